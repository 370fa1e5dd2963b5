//! Why a consumer could not start, or ended. Completes "failed to …".

use outbox_core::{InvalidPattern, TopicPartition};
use uuid::Uuid;

/// Why [`crate::Consumer::run`] did not end by its shutdown token.
///
/// An inbox or a source that cannot be reached is none of these: the consumer waits for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// No name, or one that is too long or has other characters. Nothing was read.
    #[error(
        "start the consumer: its name is {name:?} ({len} bytes): give 1 to {limit} bytes of \
         [a-z0-9_-] with .name(…), a different one for each effect in the same database"
    )]
    Name {
        /// The name.
        name: String,
        /// Its length.
        len: usize,
        /// The longest name.
        limit: usize,
    },
    /// A topic pattern given to `on` is not one. Nothing was read.
    #[error("start consumer {consumer:?}: .on({pattern:?}): {source}")]
    Pattern {
        /// The consumer.
        consumer: String,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: InvalidPattern,
    },
    /// There is no handler. Nothing was read.
    #[error("start consumer {consumer:?}: it has no handler: add one with .on(topic, handler)")]
    NoHandler {
        /// The consumer.
        consumer: String,
    },
    /// A number is out of its bounds. Nothing was read.
    #[error("start consumer {consumer:?}: {field} is {value}, it must be 1 to {limit}")]
    OutOfBounds {
        /// The consumer.
        consumer: String,
        /// The setting.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A record failed for good under [`crate::DeadPolicy::Stop`]. Nothing of it was kept, and its
    /// offset was not committed: the next run starts with it.
    #[error(
        "apply {topic} partition {partition} offset {offset} (id {id}) in consumer {consumer:?} \
         after {attempts} attempts, and its policy is to stop: {error}",
        topic = of.topic, partition = of.partition
    )]
    Stopped {
        /// The consumer.
        consumer: String,
        /// Where the record lies.
        of: TopicPartition,
        /// At which offset.
        offset: i64,
        /// Its id.
        id: Uuid,
        /// Failed attempts.
        attempts: u32,
        /// What the handler said last.
        error: String,
    },
    /// A worker panicked outside a handler (panics in a handler count as failed attempts): a bug.
    #[error("run consumer {consumer:?}: a worker panicked: {text}")]
    Worker {
        /// The consumer.
        consumer: String,
        /// What the runtime says.
        text: String,
    },
}
