//! Producers with an id: what lets the log tell a batch that is sent again from a new one.
//!
//! - [`Producer`]: who appends.
//! - `sequence`: the last batches of one producer in one partition, and whether another one
//!   follows.
//! - `partition`: all producers of one partition, their open transactions, and those that were
//!   aborted.
//! - `pending`: what the frame that is being made will add.
//! - `ids`: those given out.

mod ids;
mod partition;
mod pending;
mod sequence;

pub(crate) use ids::ProducerIds;
pub(crate) use partition::{Aborted, ProducerRecord, Producers};
pub(crate) use pending::{Follows, Pending};
pub(crate) use sequence::{ProducerBatch, ProducerState, Verdict};

/// One life of a producer. A newer epoch of the same id shuts out older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Its id, given out by [`crate::Log::init_producer`]: 0 or more.
    pub id: i64,
    /// Its epoch: 0 or more.
    pub epoch: i16,
}

/// What a partition knows of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Who.
    pub producer: Producer,
    /// Sequence of its last record; `None` when this epoch has appended nothing.
    pub last_sequence: Option<i32>,
    /// When it last appended, in ms of wall time.
    pub appended_ms: i64,
    /// Where its open transaction begins in this partition, if it has one here.
    pub transaction_first_offset: Option<i64>,
}
