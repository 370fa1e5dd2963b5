//! The port to a broker.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Failure, Pending, Seq};

/// Where batches are published. One value serves one destination.
#[async_trait]
pub trait Broker: Send + Sync {
    /// What this broker can promise; the relay works around what it cannot.
    fn capabilities(&self) -> Capabilities;

    /// Publishes `batch` and answers for each message, in the batch's order.
    ///
    /// The relay calls this for one batch of a destination at a time. An answer of
    /// [`Outcome::Sent`] means the broker's own durable acknowledgement, never "handed to a
    /// buffer".
    ///
    /// # Errors
    /// [`PublishError::Outage`] when nothing gets through: the whole batch is tried again later
    /// and no attempt is burnt. [`PublishError::Fenced`] when a newer epoch has published.
    ///
    /// # Cancellation
    /// Dropping the future leaves it unknown which messages were accepted; they are published
    /// again later.
    async fn publish(&self, batch: &Batch) -> Result<Vec<Outcome>, PublishError>;
}

/// What a broker can promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Messages of one batch are stored in the batch's order, and when one fails no later one of
    /// its key is stored. Without it the relay sends waves in which a key appears once.
    pub ordered_batches: bool,
    /// A batch with an older epoch than one already seen is refused.
    pub fences: bool,
    /// A (destination, seq, redelivery) already stored is not stored again.
    pub drops_duplicates: bool,
}

/// Who publishes: a newer epoch of the same incarnation and destination shuts out older ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The store the messages come from.
    pub incarnation: Arc<str>,
    /// The destination.
    pub destination: Arc<str>,
    /// The lease's epoch.
    pub epoch: i64,
}

/// Messages to publish, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Who publishes.
    pub fence: Fence,
    /// The messages, in the order they must be stored. Never empty.
    pub messages: Vec<Pending>,
    /// No seq below this will ever be published again with redelivery 0: a broker that
    /// remembers seqs may forget them.
    pub low_water: Seq,
    /// The stretch of the log this batch stands for, both ends included, or `None` for a batch
    /// of exceptions. Every seq in it that is neither in `messages` nor in `except` will never be
    /// published (no message, or another destination's), so that a set of "seqs done" has a hole
    /// only for each exception.
    pub range: Option<(Seq, Seq)>,
    /// Seqs of `range` that may still come later, as ranges with both ends included, sorted:
    /// open gaps, parked and scheduled messages.
    pub except: Vec<(Seq, Seq)>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Durably stored.
    Sent(Receipt),
    /// Not accepted.
    Failed(Failure),
}

/// Where the broker put a message, as far as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Partition, queue or stream.
    pub partition: Option<i32>,
    /// Offset, sequence or delivery tag.
    pub offset: Option<i64>,
    /// The broker already had it, and did not store it again.
    pub duplicate: bool,
}

/// Why a whole batch did not get through.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PublishError {
    /// Refused, timed out, not leader, disk full: nothing gets through for now.
    #[error("publish: the broker does not take messages now: {0}")]
    Outage(String),
    /// A newer epoch has published: this relay must stop leading the destination.
    #[error("publish: epoch {epoch} is fenced, epoch {newer} has published")]
    Fenced {
        /// Our epoch.
        epoch: i64,
        /// The newest the broker has seen.
        newer: i64,
    },
}
