//! What is appended, and what can be checked of it without the writer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::batch::{BatchError, BatchHeader};
use crate::error::AppendError;
use crate::limits;
use crate::producer::ProducerBatch;
use crate::publisher::Publication;
use crate::writer::{Appended, Run};

/// Batches to append. All of it is stored, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Whole record batches, one behind the other, at most [`crate::limits::APPEND_BYTES_MAX`]. Base
    /// offsets are stamped into it.
    pub buffer: Vec<u8>,
    /// Which parts of the buffer go where; together they are the buffer. A batch with a producer id
    /// must be the only one.
    pub slices: Vec<Slice>,
    /// For duplicate-proof publish: who appends, and which of its sequence numbers. With one, an
    /// append without batches is allowed.
    pub publication: Option<Publication>,
}

/// Consecutive bytes of the buffer of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Bytes of whole batches, at least one.
    pub bytes: usize,
}

/// An append that has its place in the writer's queue. Dropping it does not take the append back.
#[derive(Debug)]
pub struct Submitted {
    pub(crate) answer: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Future for Submitted {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
    }
}

/// The batches of one slice must be whole and right, and none larger than `limit` bytes.
pub(crate) fn check_slice(slice: &Slice, data: &[u8], limit: u32) -> Result<Run, AppendError> {
    let bad = |source| AppendError::Batch {
        topic: slice.topic.clone(),
        partition: slice.partition,
        source,
    };
    let (mut rest, mut records, mut producer) = (data, 0, None);
    loop {
        let header = BatchHeader::verify(rest).map_err(bad)?;
        header.check_whole().map_err(bad)?;
        if header.bytes > limit as usize {
            return Err(AppendError::BatchTooLarge {
                topic: slice.topic.clone(),
                partition: slice.partition,
                bytes: header.bytes,
                limit,
            });
        }
        check_producer(&header).map_err(bad)?;
        producer = producer.or(ProducerBatch::of(&header));
        records += i64::from(header.records);
        rest = &rest[header.bytes..];
        if rest.is_empty() {
            break;
        }
    }
    Ok(Run {
        topic: slice.topic.clone(),
        partition: slice.partition,
        bytes: slice.bytes,
        records,
        producer,
    })
}

/// What a batch says about its producer must make sense, and only the log writes markers.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    if header.is_control() {
        return Err(BatchError::Marker);
    }
    let wrong = match header.producer_id {
        0.. => header.producer_epoch < 0 || header.base_sequence < 0,
        _ => header.is_transactional(),
    };
    if wrong {
        return Err(BatchError::Producer {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
    }
    Ok(())
}

/// A batch with a producer must be alone: it may be refused, or be a duplicate, for itself only.
pub(crate) fn check_alone(append: &Append, runs: &[Run]) -> Result<(), AppendError> {
    let Some(batch) = runs.iter().find_map(|r| r.producer) else {
        return Ok(());
    };
    let whole = BatchHeader::parse(&append.buffer).map_or(0, |h| h.bytes);
    if whole == append.buffer.len() && append.publication.is_none() {
        return Ok(());
    }
    Err(AppendError::Invalid(format!(
        "a batch of producer {} must be the only one of its append, and have no publication",
        batch.producer.id
    )))
}

/// Each record must have its sequence.
pub(crate) fn check_publication(
    publication: Option<&Publication>,
    runs: &[Run],
) -> Result<(), AppendError> {
    let Some(publication) = publication else {
        return Ok(());
    };
    let records: i64 = runs.iter().map(|r| r.records).sum();
    let (sequences, id) = (publication.sequences.len(), &publication.publisher);
    if sequences as i64 != records {
        let text = format!("{sequences} sequences for {records} records: each must have one");
        return Err(AppendError::Invalid(text));
    }
    if id.is_empty() || id.len() > limits::PUBLISHER_BYTES_MAX {
        let (bytes, limit) = (id.len(), limits::PUBLISHER_BYTES_MAX);
        let text = format!("the publisher's id has {bytes} bytes, it must have 1 to {limit}");
        return Err(AppendError::Invalid(text));
    }
    Ok(())
}
