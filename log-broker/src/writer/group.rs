//! What one frame will hold, and who waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::request::{Appended, Run, StepReply};
use crate::batch::{BatchHeader, write_marker};
use crate::error::{AppendError, DiskError, TopicError};
use crate::producer::{Pending, Producer};
use crate::segments::SegmentWriter;
use crate::tables::Written;
use crate::transaction::Decision;
use crate::wal::Entry;

/// What one frame will hold.
#[derive(Default)]
pub(super) struct Group {
    pub entries: Vec<Entry>,
    pub appends: Vec<Joined>,
    pub others: Vec<Waiting>,
    pub publishers: BTreeSet<Arc<str>>,
    pub producers: Pending,
    /// Next offset of each partition that is appended to.
    pub ends: BTreeMap<(Arc<str>, u32), i64>,
    pub bytes: usize,
    /// Whether anybody is promised that it is durable.
    pub sync: bool,
}

/// Batches with their offsets, and whom to tell.
pub(super) struct Joined {
    pub buffer: Vec<u8>,
    pub runs: Vec<Run>,
    pub first_offsets: Vec<i64>,
    pub answer: Answer,
}

pub(super) enum Answer {
    Append(
        oneshot::Sender<Result<Appended, AppendError>>,
        OwnedSemaphorePermit,
    ),
    Step(StepReply, Producer),
}

/// Whoever waits for entries.
pub(super) enum Waiting {
    Entries(oneshot::Sender<Result<(), AppendError>>),
    Topic(oneshot::Sender<Result<(), TopicError>>),
}

impl Waiting {
    pub fn answer(self, result: Result<(), AppendError>) {
        // Whoever gave up waiting no longer cares.
        let _ = match self {
            Self::Entries(reply) => reply.send(result).is_ok(),
            Self::Topic(reply) => reply.send(result.map_err(TopicError::from)).is_ok(),
        };
    }
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.others.is_empty() && !self.sync
    }

    /// Tells everybody that it is stored.
    pub fn answer(self) {
        for joined in self.appends {
            // Whoever gave up waiting no longer cares.
            match joined.answer {
                Answer::Append(reply, permit) => {
                    let _ = reply.send(Ok(Appended {
                        buffer: joined.buffer,
                        first_offsets: joined.first_offsets,
                        duplicate: false,
                    }));
                    drop(permit);
                }
                Answer::Step(reply, producer) => {
                    let _ = reply.send(Ok(producer));
                }
            }
        }
        for reply in self.others {
            reply.answer(Ok(()));
        }
    }

    /// Tells everybody why it is not.
    pub fn refuse(self, error: &AppendError) {
        for joined in self.appends {
            match joined.answer {
                Answer::Append(reply, _) => drop(reply.send(Err(error.clone()))),
                Answer::Step(reply, _) => drop(reply.send(Err(error.clone().into()))),
            }
        }
        for reply in self.others {
            reply.answer(Err(error.clone()));
        }
    }
}

/// Stamps the time of the append into the batches of `run`.
pub(super) fn stamp_time(run: &mut [u8], wall_ms: i64) {
    let mut rest = run;
    while let Ok(header) = BatchHeader::parse(rest) {
        BatchHeader::stamp_time(rest, wall_ms);
        rest = rest.get_mut(header.bytes..).unwrap_or_default();
    }
}

/// The markers of a decision, one run for each.
pub(super) fn markers(decision: &Decision, wall_ms: i64) -> (Vec<u8>, Vec<Run>) {
    let mut buffer = Vec::new();
    let runs = decision.markers.iter().map(|marker| Run {
        topic: marker.topic.clone(),
        partition: marker.partition,
        bytes: write_marker(&mut buffer, marker.producer, marker.commits, wall_ms),
        records: 1,
        producer: None,
    });
    let runs = runs.collect();
    (buffer, runs)
}

/// Stamps consecutive offsets into the batches of `run`, which were checked before.
pub(super) fn stamp(run: &mut [u8], first: i64) {
    let (mut rest, mut offset) = (run, first);
    while let Ok(header) = BatchHeader::parse(rest) {
        BatchHeader::stamp(rest, offset, 0);
        offset += i64::from(header.records);
        rest = rest.get_mut(header.bytes..).unwrap_or_default();
    }
}

/// Writes every append's runs to their segments; one item for each append entry, in order.
pub(super) fn write_segments<'g>(
    segments: &mut SegmentWriter<'_>,
    group: &'g Group,
) -> Result<Vec<Written<'g>>, DiskError> {
    let mut written = Vec::new();
    for joined in &group.appends {
        let mut rest = joined.buffer.as_slice();
        for (run, &first) in joined.runs.iter().zip(&joined.first_offsets) {
            let (data, tail) = rest.split_at(run.bytes);
            rest = tail;
            written.push(segments.write(&run.topic, run.partition, first, data)?);
        }
    }
    Ok(written)
}
