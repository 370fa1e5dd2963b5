//! A durable single-node log of Kafka record batches: an ack means fsynced.
//!
//! A tour, in reading order:
//!
//! - [`Log`]: the handle. Topics with partitions; [`Log::append`], [`Log::fetch`],
//!   [`Log::commit`].
//! - [`batch`]: Kafka's record batches, version 2: what is appended and fetched.
//! - [`Publication`]: duplicate-proof publish, by intervals of sequence numbers.
//! - [`Producer`]: producers with an id, whose batches are stored once and in order.
//! - `transaction`: records of several partitions that count together or not at all.
//! - `writer`: the one thread that writes: segments, then one WAL frame, then one sync.
//! - `wal`: frames, the files they stand in, and how a torn end is told from a corrupt middle.
//! - `tables`, `partition`, `index`: everything that is durable, in memory.
//! - `fetch`: reads, checked; `range`: what a server may send from its file.
//! - `keeper` and `state`: checkpoints and retention; `compact`: compaction by key and expiry.
//! - `recovery`: what happens when a log is opened; `view`: one that somebody else has open.
//! - [`verify`]: every byte of a log that is not open.
//! - [`Storage`]: the port to the disk, so that tests can cut the power.
//!
//! It knows nothing of an outbox, and nothing of a network: a server for Kafka's protocol can be
//! put on top, for appends take, and fetches give, the bytes of that protocol.

pub mod batch;
pub mod limits;

mod append;
mod buffers;
mod checksum;
mod compact;
mod disk;
mod error;
mod expiry;
mod fetch;
mod find;
mod groups;
mod index;
mod interval;
mod keeper;
mod layout;
mod log;
mod options;
mod partition;
mod producer;
mod publisher;
mod range;
mod reader;
mod recovery;
mod segments;
mod shared;
mod state;
mod storage;
mod syncing;
mod tables;
mod topic;
mod topics;
mod transaction;
mod verify;
mod view;
mod wal;
mod watch;
mod writer;

pub use append::{Append, Slice, Submitted};
pub use disk::Disk;
pub use error::{
    AppendError, CompactError, Damage, DiskError, FetchError, OpenError, TopicError,
    TransactionError,
};
pub use expiry::EXPIRY_HEADER;
pub use fetch::{AbortedTransaction, Fetched, Isolation, OffsetAtTime};
pub use find::{ScanError, Wanted};
pub use groups::{CommittedOffset, OffsetCommit};
pub use interval::IntervalSet;
pub use log::Log;
pub use options::LogOptions;
pub use producer::{Producer, ProducerDescription};
pub use publisher::{Publication, Sequence};
pub use range::{Batches, FileRange};
pub use storage::{File, Mode, Storage};
pub use topic::{Cleanup, Flush, Timestamps, TopicOptions, check_topic_name};
pub use transaction::{TransactionDescription, TransactionState};
pub use verify::{Verified, verify, verify_on};
pub use watch::Watch;
pub use writer::Appended;

/// Wall time in ms since 1970.
fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as i64)
}
