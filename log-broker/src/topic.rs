//! What a topic is, and what it may be called.

use serde::{Deserialize, Serialize};

use crate::error::TopicError;
use crate::limits;

/// How a topic is laid out and how long it keeps its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOptions {
    /// Number of partitions, 1 to [`limits::PARTITIONS_MAX`]. Default 16. It cannot be changed
    /// later, for it decides the partition of each key.
    pub partitions: u32,
    /// A segment that would grow beyond this is closed and the next one begun. Default 256 MiB.
    pub segment_bytes: u64,
    /// A segment goes when its last record was appended so many ms ago. Default `None`: kept for
    /// ever.
    pub retention_ms: Option<u64>,
    /// The oldest segments go while a partition holds more bytes than this without them. Default
    /// `None`: no bound.
    pub retention_bytes: Option<u64>,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            partitions: 16,
            segment_bytes: limits::SEGMENT_BYTES,
            retention_ms: None,
            retention_bytes: None,
        }
    }
}

impl TopicOptions {
    pub(crate) fn check(&self) -> Result<(), TopicError> {
        if !(1..=limits::PARTITIONS_MAX).contains(&self.partitions) {
            return Err(TopicError::Option {
                option: "partitions",
                value: u64::from(self.partitions),
                min: 1,
                max: u64::from(limits::PARTITIONS_MAX),
            });
        }
        if self.segment_bytes < limits::SEGMENT_BYTES_MIN {
            return Err(TopicError::Option {
                option: "segment_bytes",
                value: self.segment_bytes,
                min: limits::SEGMENT_BYTES_MIN,
                max: u64::MAX,
            });
        }
        Ok(())
    }
}

/// Checks that a topic's name can be a folder's name, and a Kafka topic's.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
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
