//! What can go wrong, for each operation. Texts complete "failed to …".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::BatchError;
use crate::producer::Producer;
use crate::transaction::TransactionState;

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
    /// A batch of the producer before this one is missing.
    #[error(
        "append to {topic}-{partition} as producer {producer:?}: sequence {found} is out of order, \
         {expected} is due"
    )]
    OutOfOrder {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The producer.
        producer: Producer,
        /// The batch's first sequence.
        found: i32,
        /// The one that is due.
        expected: i32,
    },
    /// The batch was stored, durably, so long ago that its offset is forgotten.
    #[error(
        "append to {topic}-{partition} as producer {producer:?}: sequence {found} was stored \
         already, before its last {} batches",
        crate::limits::PRODUCER_BATCHES
    )]
    OldDuplicate {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The producer.
        producer: Producer,
        /// The batch's first sequence.
        found: i32,
    },
    /// A newer epoch of this producer exists.
    #[error("append as producer {producer:?}: its epoch is fenced, the newest is {newer}")]
    StaleProducer {
        /// The producer.
        producer: Producer,
        /// The newest epoch.
        newer: i16,
    },
    /// The partition is not part of an open transaction of the producer, or the batch is not marked
    /// as part of one.
    #[error(
        "append to {topic}-{partition} as {transactional_id:?}: it is not part of an open \
         transaction. Cure: add the partition first, and abort a transaction that timed out"
    )]
    NotInTransaction {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Who appends.
        transactional_id: Arc<str>,
    },
    /// The batch is part of a transaction, and its producer has no transactional id here.
    #[error(
        "append to {topic}-{partition} as producer {producer:?}: it has no transactional id. Cure: \
         initialise the producer again"
    )]
    NoTransactionalId {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The producer.
        producer: Producer,
    },
    /// Nothing is known of the producer, here or at all: it was idle for too long, or is another
    /// log's.
    #[error(
        "append to {topic}-{partition} as producer {producer:?}: it is unknown. Cure: start again \
         from sequence 0 with a new epoch or a new id"
    )]
    UnknownProducer {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The producer.
        producer: Producer,
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

/// Why a partition was not compacted. What it holds is as before.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The file system said no.
    #[error("compact: {0}")]
    Disk(#[from] DiskError),
    /// A segment does not read as it was written.
    #[error("compact: {0}")]
    Damaged(Damage),
    /// The log does not take the result.
    #[error("compact: {0}")]
    Append(#[from] AppendError),
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

/// Why a step of a producer or a transaction was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The transactional id cannot be.
    #[error("use a transactional id of {bytes} bytes: it must have 1 to {limit}")]
    Id {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The timeout is out of bounds.
    #[error(
        "begin with a transaction timeout of {timeout_ms} ms: it must be 1 to {limit} ms. Cure: set \
         transaction.timeout.ms at the producer, or raise the log's transaction_timeout_max"
    )]
    Timeout {
        /// The timeout.
        timeout_ms: u32,
        /// The longest allowed.
        limit: u32,
    },
    /// There are too many transactional ids.
    #[error(
        "begin: there are {} transactional ids, which is the limit. Cure: use ids again, or lower \
         the log's transactional_id_expiry",
        crate::limits::TRANSACTIONAL_IDS_MAX
    )]
    TooManyIds,
    /// The transactional id is unknown, or belongs to another producer's id.
    #[error("use transactional id {transactional_id:?}: producer {producer:?} does not hold it")]
    UnknownProducer {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// Who asked.
        producer: Producer,
    },
    /// Somebody else has taken the transactional id since, or the transaction timed out.
    #[error(
        "use transactional id {transactional_id:?}: producer {producer:?} is fenced, {newer:?} holds \
         it"
    )]
    Fenced {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// Who asked.
        producer: Producer,
        /// Who holds it.
        newer: Producer,
    },
    /// It makes no sense now.
    #[error("{wish} the transaction of {transactional_id:?}: it is {state:?}")]
    State {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// Where it stands.
        state: TransactionState,
        /// What was asked.
        wish: &'static str,
    },
    /// A partition does not exist. None was added.
    #[error("add {topic}-{partition} to a transaction: it does not exist")]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
    },
    /// The end of the transaction would not fit one frame of the log.
    #[error(
        "add partitions to the transaction of {transactional_id:?}: {partitions} are too many for \
         one frame. Cure: make several transactions of it, or create the log with larger WAL files"
    )]
    TooManyPartitions {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// How many it would have.
        partitions: usize,
    },
    /// The transaction has as many groups or offsets as it may have.
    #[error(
        "commit offsets in the transaction of {transactional_id:?}: it may have {} groups and {} \
         offsets",
        crate::limits::TRANSACTION_GROUPS_MAX,
        crate::limits::TRANSACTION_OFFSETS_MAX
    )]
    TooManyOffsets {
        /// The transactional id.
        transactional_id: Arc<str>,
    },
    /// The log does not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}
