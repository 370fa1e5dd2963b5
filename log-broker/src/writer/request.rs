//! What the writer is asked.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::{AppendError, TopicError, TransactionError};
use crate::producer::{Producer, ProducerBatch};
use crate::publisher::Publication;
use crate::transaction::Step;
use crate::wal::Entry;

/// One append, already checked.
pub(crate) struct AppendRequest {
    pub buffer: Vec<u8>,
    /// Consecutive parts of the buffer.
    pub runs: Vec<Run>,
    pub publication: Option<Publication>,
    pub reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Room in the queue, given back when the request is answered.
    pub permit: OwnedSemaphorePermit,
}

/// Whole batches for one partition.
pub(crate) struct Run {
    pub topic: Arc<str>,
    pub partition: u32,
    pub bytes: usize,
    pub records: i64,
    /// Who appends; then the run is one batch, and alone in its append.
    pub producer: Option<ProducerBatch>,
}

/// What was stored.
#[derive(Debug)]
pub struct Appended {
    /// The buffer that was handed in, to be used again. Offsets have been stamped into it.
    pub buffer: Vec<u8>,
    /// Offset of the first record of each slice.
    pub first_offsets: Vec<i64>,
    /// Whether the batch had been stored before, durably, at that offset: then nothing was stored
    /// now. Only of one with a producer.
    pub duplicate: bool,
}

/// What the writer is asked.
pub(crate) enum Request {
    Append(AppendRequest),
    /// Entries without batches.
    Entries {
        entries: Vec<Entry>,
        /// Bytes that they take in a frame.
        bytes: usize,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    /// Makes durable what was acknowledged before.
    Flush,
    /// A topic is created (`new`), changed or deleted.
    Topic {
        entry: Entry,
        new: bool,
        reply: oneshot::Sender<Result<(), TopicError>>,
    },
    /// What a producer does next: decided here, for only here it is known what came before.
    Step {
        step: Step,
        reply: StepReply,
    },
    /// Whoever has been idle since these times of the wall clock is forgotten. Nothing durable
    /// comes of it: after a restart they may be known again for a while.
    Forget {
        producers_ms: i64,
        transactional_ids_ms: i64,
        reply: oneshot::Sender<()>,
    },
}

/// Who asked for a step.
pub(super) type StepReply = oneshot::Sender<Result<Producer, TransactionError>>;

impl Request {
    /// Entries without batches.
    pub fn entries(entries: Vec<Entry>, reply: oneshot::Sender<Result<(), AppendError>>) -> Self {
        Self::Entries {
            bytes: Entry::bytes(&entries),
            entries,
            reply,
        }
    }
}
