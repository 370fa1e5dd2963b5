//! All producers of one partition, and what they left open or aborted.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Producer, ProducerBatch, ProducerDescription, ProducerState};
use crate::batch::{BatchHeader, marker_commits};

/// What a partition knows of its producers. Made of the batches that are durable, and of nothing
/// else, so that replaying them makes it again.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<i64, ProducerState>,
    /// First offset of each open transaction → its producer.
    open: BTreeMap<i64, i64>,
    /// In order of their markers.
    aborted: Vec<Aborted>,
}

/// A transaction that was aborted: its records are not for readers of committed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
    /// What was stable when it had been aborted: no later one begins before this.
    pub stable: i64,
}

/// The form of a producer in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProducerRecord {
    id: i64,
    epoch: i16,
    appended_ms: i64,
    transaction: Option<i64>,
    batches: Vec<(i32, i32, i64)>,
}

impl Producers {
    /// What is known of a producer.
    pub fn get(&self, id: i64) -> Option<&ProducerState> {
        self.by_id.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Notes a durable batch that has a producer. `bytes` starts with it.
    pub fn note(&mut self, header: &BatchHeader, bytes: &[u8], wall_ms: i64) {
        let Producer { id, epoch } = header.producer();
        let new = || ProducerState::new(epoch);
        let state = self.by_id.entry(id).or_insert_with(new);
        state.appended_ms = state.appended_ms.max(wall_ms);
        if let Some(batch) = ProducerBatch::of(header) {
            let was_open = state.transaction.is_some();
            state.push(&batch, header.base_offset);
            if !was_open && state.transaction.is_some() {
                self.open.insert(header.base_offset, id);
            }
        } else if let Some(commits) = marker_commits(bytes) {
            state.enter(epoch);
            if let Some(first_offset) = state.transaction.take() {
                self.open.remove(&first_offset);
                if !commits {
                    self.note_aborted(id, first_offset, header.base_offset);
                }
            }
        }
    }

    fn note_aborted(&mut self, producer_id: i64, first_offset: i64, last_offset: i64) {
        self.aborted.push(Aborted {
            producer_id,
            first_offset,
            last_offset,
            stable: self.first_open().unwrap_or(last_offset + 1),
        });
    }

    /// First offset of the oldest open transaction.
    pub fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// The aborted transactions that have records from `offset` to `upper`, without the latter.
    pub fn aborted_within(&self, offset: i64, upper: i64) -> Vec<Aborted> {
        let behind = self.aborted.partition_point(|a| a.last_offset < offset);
        let mut found = Vec::new();
        for aborted in &self.aborted[behind..] {
            if aborted.first_offset < upper {
                found.push(*aborted);
            }
            if aborted.stable >= upper {
                break;
            }
        }
        found
    }

    /// Forgets the aborted transactions that end before `start`. Producers stay: a batch that is
    /// sent again is a duplicate also when its records are gone.
    pub fn trim(&mut self, start: i64) {
        let gone = self.aborted.partition_point(|a| a.last_offset < start);
        self.aborted.drain(..gone);
    }

    /// Forgets the producers that have not appended since `bound_ms` and have nothing open.
    pub fn forget_idle(&mut self, bound_ms: i64) {
        self.by_id
            .retain(|_, state| state.transaction.is_some() || state.appended_ms > bound_ms);
    }

    /// When each producer with nothing open has last appended.
    pub fn idle_since(&self) -> impl Iterator<Item = i64> + '_ {
        let idle = self.by_id.values().filter(|s| s.transaction.is_none());
        idle.map(|state| state.appended_ms)
    }

    /// Every producer, by id.
    pub fn describe(&self) -> Vec<ProducerDescription> {
        let mut all: Vec<_> = self
            .by_id
            .iter()
            .map(|(&id, state)| ProducerDescription {
                producer: Producer {
                    id,
                    epoch: state.epoch,
                },
                last_sequence: state.last_sequence(),
                appended_ms: state.appended_ms,
                transaction_first_offset: state.transaction,
            })
            .collect();
        all.sort_unstable_by_key(|d| d.producer);
        all
    }

    /// What a checkpoint holds.
    pub fn to_records(&self) -> (Vec<ProducerRecord>, Vec<Aborted>) {
        let record = |(&id, state): (&i64, &ProducerState)| ProducerRecord {
            id,
            epoch: state.epoch,
            appended_ms: state.appended_ms,
            transaction: state.transaction,
            batches: state.batches().collect(),
        };
        (
            self.by_id.iter().map(record).collect(),
            self.aborted.clone(),
        )
    }

    /// What a checkpoint held.
    pub fn from_records(producers: &[ProducerRecord], aborted: &[Aborted]) -> Self {
        let mut all = Self {
            aborted: aborted.to_vec(),
            ..Self::default()
        };
        for record in producers {
            let mut state = ProducerState::new(record.epoch);
            for &(first, last, first_offset) in &record.batches {
                let producer = Producer {
                    id: record.id,
                    epoch: record.epoch,
                };
                let batch = ProducerBatch {
                    producer,
                    first,
                    last,
                    transactional: false,
                };
                state.push(&batch, first_offset);
            }
            state.appended_ms = record.appended_ms;
            state.transaction = record.transaction;
            all.open
                .extend(record.transaction.map(|at| (at, record.id)));
            all.by_id.insert(record.id, state);
        }
        all
    }
}
