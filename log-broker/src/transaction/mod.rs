//! Transactions: records in several partitions, and offsets of groups, that count together or not
//! at all.
//!
//! - `table`: what is known of each transactional id. It changes by entries of durable frames only.
//! - `step`: what a producer may do next, and which entries and markers that takes.
//! - `api`: the methods of [`crate::Log`].
//!
//! The end of a transaction is one frame with the markers of all its partitions and the offsets of
//! its groups. So there is no state between "ongoing" and "ended", and nothing to be resumed after a
//! crash.

mod api;
mod step;
mod table;

use std::sync::Arc;

use crate::producer::Producer;

pub(crate) use step::{Decision, Limits, Step};
pub(crate) use table::{TransactionRecord, Transactions};

/// Where a transactional id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// Its producer has begun none.
    Empty,
    /// One is open.
    Ongoing,
    /// The last one was committed.
    Committed,
    /// The last one was aborted.
    Aborted,
}

/// What is known of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The id.
    pub transactional_id: Arc<str>,
    /// Who holds it.
    pub producer: Producer,
    /// Where it stands.
    pub state: TransactionState,
    /// A transaction that is open for so many ms is aborted.
    pub timeout_ms: u32,
    /// When the open transaction began, in ms of wall time.
    pub started_ms: Option<i64>,
    /// The partitions of the open transaction: topic and number.
    pub partitions: Vec<(Arc<str>, u32)>,
}
