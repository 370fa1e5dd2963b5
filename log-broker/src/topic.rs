//! What a topic is, and what it may be called.

use serde::{Deserialize, Serialize};

use crate::batch::HEADER_BYTES;
use crate::error::TopicError;
use crate::limits;

/// How a topic is laid out, how long it keeps its records, and what an acknowledgement means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicOptions {
    /// Number of partitions, 1 to [`limits::PARTITIONS_MAX`]. Default 16. It can only grow, and
    /// records of one key may then be in two partitions: the number decides the partition of each.
    pub partitions: u32,
    /// A segment that would grow beyond this is closed and the next one begun. Default 256 MiB.
    pub segment_bytes: u64,
    /// A segment goes when its last record was appended so many ms ago. Default `None`: kept for
    /// ever.
    pub retention_ms: Option<u64>,
    /// The oldest segments go while a partition holds more bytes than this without them. Default
    /// `None`: no bound.
    pub retention_bytes: Option<u64>,
    /// Whether old records go by age and size, by key, or both. Default [`Cleanup::Delete`].
    pub cleanup: Cleanup,
    /// What an acknowledgement means. Default [`Flush::Sync`].
    pub flush: Flush,
    /// Largest record batch that is taken, in bytes, at most [`limits::BATCH_BYTES_MAX`], which
    /// is the default.
    pub max_message_bytes: u32,
    /// Whose clock the records' timestamps are of. Default [`Timestamps::Create`].
    pub timestamps: Timestamps,
    /// Compaction keeps a record without a value (a tombstone) for at least so many ms, so that
    /// readers learn that its key is gone. Default one day.
    pub tombstone_retention_ms: u64,
    /// Compaction leaves records alone until they were appended so many ms ago. Default 0.
    pub compaction_lag_ms: u64,
    /// Whether compaction removes records whose header [`crate::EXPIRY_HEADER`] names a time that
    /// is over. It reads each closed segment for that. Default `false`.
    pub expire: bool,
}

/// How old records go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// Whole segments, by the topic's retention.
    #[default]
    Delete,
    /// Every record behind which a newer one of its key stands. Retention does not apply.
    Compact,
    /// Both.
    CompactAndDelete,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    /// The records are on the disk: they survive the loss of power.
    #[default]
    Sync,
    /// The operating system has them: they survive the end of this process, but the loss of power
    /// may take those of the last second, acknowledged as they are.
    Async,
}

/// Whose clock the timestamps of records are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timestamps {
    /// The producer's.
    #[default]
    Create,
    /// The log's, when it appends them.
    Append,
}

impl Cleanup {
    /// Whether retention by age and size applies.
    pub fn deletes(self) -> bool {
        self != Self::Compact
    }

    /// Whether records go by key.
    pub fn compacts(self) -> bool {
        self != Self::Delete
    }
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            partitions: 16,
            segment_bytes: limits::SEGMENT_BYTES,
            retention_ms: None,
            retention_bytes: None,
            cleanup: Cleanup::Delete,
            flush: Flush::Sync,
            max_message_bytes: limits::BATCH_BYTES_MAX as u32,
            timestamps: Timestamps::Create,
            tombstone_retention_ms: limits::TOMBSTONE_RETENTION_MS,
            compaction_lag_ms: 0,
            expire: false,
        }
    }
}

impl TopicOptions {
    /// Checks what every log checks of a topic's options.
    ///
    /// # Errors
    /// The first option that is out of bounds.
    pub fn check(&self) -> Result<(), TopicError> {
        let least = HEADER_BYTES as u64;
        let bounds = [
            (
                "partitions",
                u64::from(self.partitions),
                1,
                u64::from(limits::PARTITIONS_MAX),
            ),
            (
                "segment_bytes",
                self.segment_bytes,
                limits::SEGMENT_BYTES_MIN,
                u64::MAX,
            ),
            (
                "max_message_bytes",
                u64::from(self.max_message_bytes),
                least,
                limits::BATCH_BYTES_MAX as u64,
            ),
        ];
        let wrong = bounds
            .into_iter()
            .find(|&(_, value, min, max)| !(min..=max).contains(&value));
        match wrong {
            None => Ok(()),
            Some((option, value, min, max)) => Err(TopicError::Option {
                option,
                value,
                min,
                max,
            }),
        }
    }
}

/// Checks that a topic's name can be a folder's name, and a Kafka topic's.
///
/// # Errors
/// What is wrong with it.
pub fn check_topic_name(name: &str) -> Result<(), TopicError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let bad = name.chars().find(|&c| !allowed(c));
    let reason = match bad {
        Some(c) => format!("has {c:?}: allowed are A-Z a-z 0-9 . _ -"),
        None if name.is_empty() => "is empty".to_owned(),
        None if name == "." || name == ".." => "is not a name".to_owned(),
        None if name.len() > limits::TOPIC_BYTES_MAX => format!(
            "is {} bytes long, the limit is {}",
            name.len(),
            limits::TOPIC_BYTES_MAX
        ),
        None => return Ok(()),
    };
    Err(TopicError::Name {
        name: name.to_owned(),
        reason,
    })
}
