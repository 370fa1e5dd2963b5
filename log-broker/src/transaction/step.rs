//! What a producer may do next, and what that writes. Decided by the writer alone, and on what is
//! durable alone.

use std::sync::Arc;

use super::TransactionState;
use super::table::Transaction;
use crate::error::TransactionError;
use crate::groups::{OffsetCommit, check_commit};
use crate::limits;
use crate::producer::Producer;
use crate::tables::Tables;
use crate::wal::Entry;

/// The last epoch of an id; the one behind it only ever shuts out its holder.
const EPOCH_MAX: i16 = i16::MAX - 1;
/// Bytes of a frame that the end of a transaction needs for a partition, but for the topic's name:
/// an entry and a marker.
const END_BYTES: usize = ENTRY_BYTES + 80;
/// Bytes of a frame that it needs besides.
const FIXED_BYTES: usize = 2 * (limits::TRANSACTIONAL_ID_BYTES_MAX + 64);
/// Upper bound of the bytes of an append entry, but for the topic's name.
const ENTRY_BYTES: usize = 32;

/// One step of a producer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A producer begins. What its transactional id had open is aborted, and whoever held it is shut
    /// out.
    Init {
        id: Option<Arc<str>>,
        timeout_ms: u32,
        current: Option<Producer>,
    },
    /// Partitions become part of the transaction, which may begin with them.
    AddPartitions {
        id: Arc<str>,
        producer: Producer,
        partitions: Vec<(Arc<str>, u32)>,
    },
    /// A group's offsets become part of it.
    AddGroup {
        id: Arc<str>,
        producer: Producer,
        group: Arc<str>,
    },
    /// Offsets to be committed at its end.
    CommitOffsets {
        id: Arc<str>,
        producer: Producer,
        group: Arc<str>,
        commits: Vec<OffsetCommit>,
    },
    /// The end.
    End {
        id: Arc<str>,
        producer: Producer,
        commits: bool,
    },
    /// It is aborted if it has timed out.
    TimeOut { id: Arc<str>, now_ms: i64 },
}

/// What bounds a step.
pub(crate) struct Limits {
    /// The next producer id that may be given out.
    pub next_id: i64,
    /// Most bytes of a frame.
    pub frame_bytes: usize,
    /// Longest timeout of a transaction.
    pub timeout_max_ms: u32,
}

/// What a step writes: nothing, if it was done before.
#[derive(Debug, PartialEq)]
pub(crate) struct Decision {
    /// Where a marker is needed.
    pub markers: Vec<Marker>,
    pub entries: Vec<Entry>,
    /// Who holds the id then.
    pub producer: Producer,
}

/// The end of a transaction in one partition.
#[derive(Debug, PartialEq)]
pub(crate) struct Marker {
    pub topic: Arc<str>,
    pub partition: u32,
    pub producer: Producer,
    pub commits: bool,
}

impl Decision {
    /// Bytes of a frame that it takes, given those of its markers.
    pub fn frame_bytes(&self, marker_bytes: usize) -> usize {
        let topics = self.markers.iter().map(|marker| marker.topic.len());
        let appends = topics.map(|bytes| bytes + ENTRY_BYTES).sum::<usize>();
        marker_bytes + appends + Entry::bytes(&self.entries)
    }
}

type Decided = Result<Decision, TransactionError>;

impl Step {
    /// The transactional id that it is about.
    pub fn id(&self) -> Option<&Arc<str>> {
        match self {
            Self::Init { id, .. } => id.as_ref(),
            Self::AddPartitions { id, .. }
            | Self::AddGroup { id, .. }
            | Self::CommitOffsets { id, .. }
            | Self::End { id, .. }
            | Self::TimeOut { id, .. } => Some(id),
        }
    }

    /// What it writes, given what is durable.
    pub fn decide(&self, tables: &Tables, limits: &Limits) -> Decided {
        match self {
            Self::Init {
                id: None,
                timeout_ms: _,
                current: _,
            } => Ok(give_id(limits)),
            Self::Init {
                id: Some(id),
                timeout_ms,
                current,
            } => init(tables, limits, id, *timeout_ms, *current),
            Self::AddPartitions {
                id,
                producer,
                partitions,
            } => add_partitions(tables, limits, id, *producer, partitions),
            Self::AddGroup {
                id,
                producer,
                group,
            } => add_group(tables, id, *producer, group),
            Self::CommitOffsets {
                id,
                producer,
                group,
                commits,
            } => commit_offsets(tables, id, *producer, group, commits),
            Self::End {
                id,
                producer,
                commits,
            } => end(tables, id, *producer, *commits),
            Self::TimeOut { id, now_ms } => time_out(tables, id, *now_ms),
        }
    }
}

fn nothing(producer: Producer) -> Decision {
    Decision {
        markers: Vec::new(),
        entries: Vec::new(),
        producer,
    }
}

fn give_id(limits: &Limits) -> Decision {
    let producer = Producer {
        id: limits.next_id,
        epoch: 0,
    };
    Decision {
        entries: vec![Entry::ProducerId { id: producer.id }],
        ..nothing(producer)
    }
}

fn init(
    tables: &Tables,
    limits: &Limits,
    id: &Arc<str>,
    timeout_ms: u32,
    current: Option<Producer>,
) -> Decided {
    if timeout_ms == 0 || timeout_ms > limits.timeout_max_ms {
        return Err(TransactionError::Timeout {
            timeout_ms,
            limit: limits.timeout_max_ms,
        });
    }
    let known = tables.transactions.get(id);
    if known.is_none() && tables.transactions.len() >= limits::TRANSACTIONAL_IDS_MAX {
        return Err(TransactionError::TooManyIds);
    }
    if let (Some(transaction), Some(current)) = (known, current)
        && current != transaction.producer
    {
        // The answer to his first request was lost.
        let again =
            transaction.previous == Some(current) && transaction.state == TransactionState::Empty;
        return if again {
            Ok(nothing(transaction.producer))
        } else {
            Err(fenced(id, current, transaction))
        };
    }
    let mut decision = give_id(limits);
    if let Some(transaction) = known {
        if transaction.is_ongoing() {
            decision.markers = markers(tables, transaction, shut_out(transaction), false);
        }
        if transaction.producer.epoch < EPOCH_MAX {
            decision.producer = shut_out(transaction);
            decision.entries.clear();
        }
    }
    decision.entries.push(Entry::TransactionInit {
        id: id.clone(),
        producer: decision.producer,
        previous: current.filter(|_| known.is_some()),
        timeout_ms,
    });
    Ok(decision)
}

/// The holder of the epoch that shuts out the present one.
fn shut_out(transaction: &Transaction) -> Producer {
    Producer {
        epoch: transaction.producer.epoch.saturating_add(1),
        ..transaction.producer
    }
}

/// The transaction of an id, if `producer` holds it.
fn held<'t>(
    tables: &'t Tables,
    id: &Arc<str>,
    producer: Producer,
) -> Result<&'t Transaction, TransactionError> {
    match tables.transactions.get(id) {
        Some(t) if t.producer == producer => Ok(t),
        Some(t) if t.producer.id == producer.id => Err(fenced(id, producer, t)),
        _ => Err(TransactionError::UnknownProducer {
            transactional_id: id.clone(),
            producer,
        }),
    }
}

fn fenced(id: &Arc<str>, producer: Producer, transaction: &Transaction) -> TransactionError {
    TransactionError::Fenced {
        transactional_id: id.clone(),
        producer,
        newer: transaction.producer,
    }
}

fn add_partitions(
    tables: &Tables,
    limits: &Limits,
    id: &Arc<str>,
    producer: Producer,
    partitions: &[(Arc<str>, u32)],
) -> Decided {
    let transaction = held(tables, id, producer)?;
    for (topic, partition) in partitions {
        if tables.partition(topic, *partition).is_none() {
            return Err(TransactionError::UnknownPartition {
                topic: topic.clone(),
                partition: *partition,
            });
        }
    }
    let known = |p: &&(Arc<str>, u32)| !transaction.covers(&p.0, p.1);
    let new: Vec<_> = partitions.iter().filter(known).cloned().collect();
    if new.is_empty() {
        return Ok(nothing(producer));
    }
    let held: usize = transaction.partitions.iter().map(end_bytes).sum();
    let needed = held + new.iter().map(end_bytes).sum::<usize>();
    // The frame also holds the end itself, and the beginning of whoever shuts this producer out.
    if needed + FIXED_BYTES > limits.frame_bytes {
        return Err(TransactionError::TooManyPartitions {
            transactional_id: id.clone(),
            partitions: transaction.partitions.len() + new.len(),
        });
    }
    Ok(added(id, producer, new, Vec::new()))
}

fn end_bytes((topic, _): &(Arc<str>, u32)) -> usize {
    topic.len() + END_BYTES
}

fn add_group(tables: &Tables, id: &Arc<str>, producer: Producer, group: &Arc<str>) -> Decided {
    let transaction = held(tables, id, producer)?;
    if transaction.is_ongoing() && transaction.groups.contains(group) {
        return Ok(nothing(producer));
    }
    if transaction.groups.len() >= limits::TRANSACTION_GROUPS_MAX {
        return Err(TransactionError::TooManyOffsets {
            transactional_id: id.clone(),
        });
    }
    Ok(added(id, producer, Vec::new(), vec![group.clone()]))
}

fn added(
    id: &Arc<str>,
    producer: Producer,
    partitions: Vec<(Arc<str>, u32)>,
    groups: Vec<Arc<str>>,
) -> Decision {
    let entry = Entry::TransactionAdd {
        id: id.clone(),
        partitions,
        groups,
    };
    Decision {
        entries: vec![entry],
        ..nothing(producer)
    }
}

fn commit_offsets(
    tables: &Tables,
    id: &Arc<str>,
    producer: Producer,
    group: &Arc<str>,
    commits: &[OffsetCommit],
) -> Decided {
    let transaction = held(tables, id, producer)?;
    if !transaction.is_ongoing() || !transaction.groups.contains(group) {
        return Err(state_error(id, transaction, "commit offsets in"));
    }
    let new = commits.len();
    if transaction.offset_count() + new > limits::TRANSACTION_OFFSETS_MAX
        || tables.transactions.offset_count() + new > limits::GROUP_OFFSETS_MAX
    {
        return Err(TransactionError::TooManyOffsets {
            transactional_id: id.clone(),
        });
    }
    for commit in commits {
        check_commit(tables, group, commit)?;
    }
    let entries = commits.iter().map(|commit| Entry::TransactionOffset {
        id: id.clone(),
        group: group.clone(),
        commit: commit.clone(),
    });
    Ok(Decision {
        entries: entries.collect(),
        ..nothing(producer)
    })
}

fn end(tables: &Tables, id: &Arc<str>, producer: Producer, commits: bool) -> Decided {
    let transaction = held(tables, id, producer)?;
    match (transaction.state, commits) {
        (TransactionState::Ongoing, _) => Ok(ended(tables, id, transaction, producer, commits)),
        // The answer to the first request was lost.
        (TransactionState::Committed, true) | (TransactionState::Aborted, false) => {
            Ok(nothing(producer))
        }
        (_, true) => Err(state_error(id, transaction, "commit")),
        (_, false) => Err(state_error(id, transaction, "abort")),
    }
}

/// Its holder is shut out, so that what he still sends is not taken for a new transaction.
fn time_out(tables: &Tables, id: &Arc<str>, now_ms: i64) -> Decided {
    match tables.transactions.get(id) {
        Some(t) if t.is_ongoing() && t.deadline_ms() <= now_ms => {
            Ok(ended(tables, id, t, shut_out(t), false))
        }
        Some(t) => Ok(nothing(t.producer)),
        None => Err(TransactionError::UnknownProducer {
            transactional_id: id.clone(),
            producer: Producer { id: -1, epoch: -1 },
        }),
    }
}

fn ended(
    tables: &Tables,
    id: &Arc<str>,
    transaction: &Transaction,
    producer: Producer,
    commits: bool,
) -> Decision {
    Decision {
        markers: markers(tables, transaction, producer, commits),
        entries: vec![Entry::TransactionEnd {
            id: id.clone(),
            epoch: producer.epoch,
            commits,
        }],
        producer,
    }
}

/// A marker for each partition that has records of the transaction.
fn markers(
    tables: &Tables,
    transaction: &Transaction,
    producer: Producer,
    commits: bool,
) -> Vec<Marker> {
    let has_records = |(topic, partition): &&(Arc<str>, u32)| {
        let partition = tables.partition(topic, *partition);
        let state = partition.and_then(|p| p.producers.get(producer.id));
        state.is_some_and(|s| s.transaction.is_some())
    };
    let open = transaction.partitions.iter().filter(has_records);
    open.map(|(topic, partition)| Marker {
        topic: topic.clone(),
        partition: *partition,
        producer,
        commits,
    })
    .collect()
}

fn state_error(id: &Arc<str>, transaction: &Transaction, wish: &'static str) -> TransactionError {
    TransactionError::State {
        transactional_id: id.clone(),
        state: transaction.state,
        wish,
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
