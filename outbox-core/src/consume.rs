//! The ports of the consumer: where records come from, and where their effect is made once.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{Headers, TopicPattern};

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

/// A record as the broker holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it lies.
    pub partition: TopicPartition,
    /// At which offset.
    pub offset: i64,
    /// The outbox message's id; `None` for a record that did not come from an outbox.
    pub id: Option<Uuid>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its body.
    pub payload: Bytes,
    /// Media type, when the record says.
    pub content_type: Option<String>,
    /// All other headers.
    pub headers: Headers,
    /// When the message was enqueued, or appended.
    pub timestamp: DateTime<Utc>,
}

impl Record {
    /// The body as JSON.
    ///
    /// # Errors
    /// What serde_json says; a handler that returns it sends the record to the dead letters.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
}

/// Where a consumer reads. Committed offsets are kept by the source, for each group.
///
/// A source may share the partitions of a group among several processes: each is then told of its own
/// ones only, and a partition may come and go. Records of one that went may still be in flight here
/// while another process reads them; the inbox sees to it that they are applied once.
#[async_trait]
pub trait Source: Send + Sync {
    /// The partitions to read, of every topic that a pattern covers; others may appear later.
    async fn partitions(&self, topics: &[TopicPattern])
    -> Result<Vec<TopicPartition>, SourceError>;

    /// The next offset to read for `group`; the partition's first when it never committed.
    async fn committed(&self, group: &str, of: &TopicPartition) -> Result<i64, SourceError>;

    /// Records from `offset` on, at most about `max_bytes` (at least one record if there is one);
    /// empty at the end of the partition. Does not wait.
    async fn fetch(
        &self,
        from: &TopicPartition,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Record>, SourceError>;

    /// Returns when there may be something new since the last call. Cancel-safe.
    async fn changed(&self);

    /// Stores the next offsets to read for `group`, durably.
    async fn commit(&self, group: &str, next: &[(TopicPartition, i64)]) -> Result<(), SourceError>;

    /// Called once, when nothing more is read or committed: a source that shares partitions among
    /// several processes hands its own over.
    async fn close(&self) {}
}

/// Why a source could not answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached now; the same call may pass later.
    #[error("reach the source: {0}")]
    Outage(String),
    /// The offset is no longer there (retention) or not yet: the first one held is given.
    #[error("read offset {offset}: the partition holds {first} to {end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The first offset held.
        first: i64,
        /// The offset behind the last.
        end: i64,
    },
    /// The data is damaged, or the call was wrong.
    #[error("read the source: {0}")]
    Permanent(String),
}

/// The dedup table in the consumer's own database: the inbox row and the business effect commit
/// in one transaction, so that a message is applied exactly once.
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// The consumer's own transaction.
    type Tx: Send;

    /// Begins a transaction.
    async fn begin(&self) -> Result<Self::Tx, InboxError>;

    /// Marks `id` as applied by `consumer`; `false` when it already was, and then nothing is
    /// written. Waits for a concurrent transaction that accepts the same id.
    async fn accept(&self, tx: &mut Self::Tx, consumer: &str, id: Uuid)
    -> Result<bool, InboxError>;

    /// [`Inbox::accept`] for each of `ids`, with one answer for each, in their order. Of an id
    /// that stands there twice only the first can be `true`.
    ///
    /// Inboxes that can do it in one round trip should: it is the hot path.
    async fn accept_many(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        ids: &[Uuid],
    ) -> Result<Vec<bool>, InboxError> {
        let mut accepted = Vec::with_capacity(ids.len());
        for &id in ids {
            accepted.push(self.accept(tx, consumer, id).await?);
        }
        Ok(accepted)
    }

    /// Keeps a record that no handler could apply, with the reason, for an operator.
    async fn dead_letter(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        record: &Record,
        attempts: u32,
        error: &str,
    ) -> Result<(), InboxError>;

    /// Commits. An `Ok` means that everything written in `tx` is there for good.
    async fn commit(&self, tx: Self::Tx) -> Result<(), InboxError>;

    /// Whether an error that a handler got while using `Tx` means that the database is away: then
    /// the record is not to blame and no attempt is burnt.
    fn is_outage(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let _ = error;
        false
    }
}

/// A record that no handler could apply, as an inbox keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The inbox's number for it; later ones are larger.
    pub id: i64,
    /// The consumer that gave it up.
    pub consumer: String,
    /// The message's id; a record from elsewhere may have none.
    pub message_id: Option<Uuid>,
    /// Where it stands in the log.
    pub topic: String,
    /// See `topic`.
    pub partition: i32,
    /// See `topic`.
    pub offset: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// What the handler said last.
    pub error: String,
    /// When it was given up.
    pub dead_at: DateTime<Utc>,
}

/// A dead letter with what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterContent {
    /// Which one.
    pub letter: DeadLetter,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its headers, a JSON object.
    pub headers: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Which dead letters are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Of this consumer only.
    pub consumer: Option<String>,
    /// Also those whose message was applied since, when it was sent again.
    pub applied_since: bool,
    /// Behind this id.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// Why the inbox could not answer: its database is away, or refused.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// Cannot be reached now: back off, burn no attempt.
    #[error("reach the inbox: {0}")]
    Outage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else the database said.
    #[error("use the inbox: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
