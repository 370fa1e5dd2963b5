//! What can go wrong, for each operation. Texts complete "failed to …".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::BatchError;

/// An operation on a file that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {path}: {source}")]
pub struct DiskError {
    /// What was done.
    pub operation: &'static str,
    /// To which file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

impl DiskError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Whether there was no room: it may pass.
    pub fn is_full(&self) -> bool {
        crate::storage::is_full(&self.source)
    }
}

/// Adds what was done, and to which file, to an error of the system.
pub(crate) trait Context<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|e| DiskError::new(operation, path, e))
    }
}

/// Data that was durable and no longer reads as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is damaged at byte {position}: {problem}")]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in the file.
    pub position: u64,
    /// What was found.
    pub problem: String,
}

/// Why a log could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it open.
    #[error(
        "open the log {dir}: it is open already, here or in another process. Cure: stop that one, \
         or share its handle"
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// An option is out of bounds.
    #[error("open the log: option {option} is {value}, it must be {must}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        must: String,
    },
    /// The checkpoint is missing or damaged, so that nothing can be told about the rest.
    #[error(
        "open the log {dir}: {problem}. Nothing was changed. Cure: restore the folder from a \
         backup; if its records are not needed, move it away and start with an empty one"
    )]
    State {
        /// The folder.
        dir: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The file system said no.
    #[error("open the log: {0}")]
    Disk(#[from] DiskError),
}

/// Why nothing was stored.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The bytes are not record batches, or not of the length announced.
    #[error("append to {topic}-{partition}: {source}")]
    Batch {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// What is wrong.
        #[source]
        source: BatchError,
    },
    /// The request itself makes no sense.
    #[error("append: {0}")]
    Invalid(String),
    /// More than one frame holds.
    #[error("append: {bytes} bytes, the limit is {limit}: send it in several appends")]
    TooLarge {
        /// Bytes of data.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The topic or partition does not exist.
    #[error("append to {topic}-{partition}: it does not exist; create the topic first")]
    Unknown {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
    },
    /// A batch is larger than its topic takes.
    #[error(
        "append to {topic}-{partition}: a batch of {bytes} bytes, the topic's max_message_bytes is \
         {limit}: send smaller batches, or raise it"
    )]
    BatchTooLarge {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Bytes of the batch.
        bytes: usize,
        /// The limit.
        limit: u32,
    },
    /// An offset that the partition does not have.
    #[error("move the start of {topic}-{partition} to offset {offset}: it holds {first} to {end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: i64,
        /// The first offset held.
        first: i64,
        /// The offset behind the last.
        end: i64,
    },
    /// A newer epoch of this publisher has appended.
    #[error("append as {publisher:?}: epoch {epoch} is fenced, epoch {newer} has appended")]
    Fenced {
        /// The publisher.
        publisher: Arc<str>,
        /// Its epoch.
        epoch: i64,
        /// The newest seen.
        newer: i64,
    },
    /// Some of the records are stored already, durably: send the others alone.
    #[error("append: {} of the records are stored already", indexes.len())]
    Duplicates {
        /// Indexes into [`crate::Publication::sequences`], in order.
        indexes: Vec<usize>,
    },
    /// There is no room. Reads go on, and appends pass again when there is room.
    #[error("append: no room on the disk: {0}. Cure: make room or shorten the retention")]
    Full(DiskError),
    /// The log was found damaged when it was opened, and is served read-only.
    #[error("append: the log is read-only: {0}. Cure: restore the folder from a backup")]
    ReadOnly(Damage),
    /// The disk failed: nothing can be known about what is durable until the log is opened again.
    #[error("append: the log stopped after a disk error: {0}. Cure: mend the disk and restart")]
    Failed(Arc<str>),
    /// The log is being closed.
    #[error("append: the log is closed")]
    Closed,
}

/// Why nothing could be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The topic or partition does not exist.
    #[error("read {topic}-{partition}: it does not exist")]
    Unknown {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
    },
    /// The offset is gone, or not yet there.
    #[error("read {topic}-{partition} at offset {offset}: it holds {first} to {end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: i64,
        /// The first offset held.
        first: i64,
        /// The offset behind the last.
        end: i64,
    },
    /// A stored batch does not read as it was written. It is not served.
    #[error("read {topic}-{partition} at offset {offset}: {damage}")]
    Corrupt {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: i64,
        /// Where, and what.
        damage: Damage,
    },
    /// The file system said no.
    #[error("read: {0}")]
    Disk(#[from] DiskError),
}

/// Why a topic was not created, changed or deleted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name cannot be.
    #[error("create topic {name:?}: the name {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An option is out of bounds.
    #[error("set {option} of a topic to {value}: it must be {min} to {max}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// There is one of that name.
    #[error("create topic {name:?}: it exists")]
    Exists {
        /// The name.
        name: Arc<str>,
    },
    /// There is none of that name.
    #[error("find topic {name:?}: it does not exist")]
    Unknown {
        /// The name.
        name: Arc<str>,
    },
    /// The number of partitions of a topic can only grow.
    #[error("give topic {name:?} {wanted} partitions: it has {partitions}, and can only grow")]
    Partitions {
        /// The name.
        name: Arc<str>,
        /// Its partitions.
        partitions: u32,
        /// The number asked for.
        wanted: u32,
    },
    /// All topics together would have too many partitions.
    #[error(
        "create {wanted} partitions: the log has {partitions}, the limit is {limit}. Cure: delete \
         topics that are not needed, or use fewer partitions"
    )]
    Full {
        /// Partitions of all topics.
        partitions: u32,
        /// The number asked for.
        wanted: u32,
        /// The limit.
        limit: u32,
    },
    /// The log does not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}
