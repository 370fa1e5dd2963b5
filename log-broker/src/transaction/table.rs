//! What is known of each transactional id.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{TransactionDescription, TransactionState};
use crate::groups::OffsetCommit;
use crate::producer::Producer;

/// Every transactional id.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    by_id: BTreeMap<Arc<str>, Transaction>,
    by_producer: HashMap<i64, Arc<str>>,
    /// When each open transaction times out.
    deadlines: BTreeSet<(i64, Arc<str>)>,
}

/// One transactional id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transaction {
    pub producer: Producer,
    /// Who held the id before, if it was he who asked for the new epoch: he may ask again.
    pub previous: Option<Producer>,
    pub timeout_ms: u32,
    pub state: TransactionState,
    /// When the open transaction began.
    pub started_ms: i64,
    /// When the id was last used.
    pub used_ms: i64,
    pub partitions: BTreeSet<(Arc<str>, u32)>,
    pub groups: BTreeSet<Arc<str>>,
    /// Offsets to be committed at the end.
    offsets: BTreeMap<OffsetKey, OffsetCommit>,
}

/// Group, topic and partition.
type OffsetKey = (Arc<str>, Arc<str>, u32);

/// The form of a transactional id in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TransactionRecord {
    id: Arc<str>,
    /// Producer's id and epoch.
    producer: (i64, i16),
    previous: Option<(i64, i16)>,
    timeout_ms: u32,
    state: char,
    started_ms: i64,
    used_ms: i64,
    partitions: Vec<(Arc<str>, u32)>,
    groups: Vec<Arc<str>>,
    /// Group and commit.
    offsets: Vec<(Arc<str>, OffsetCommit)>,
}

impl Transaction {
    fn new(producer: Producer, previous: Option<Producer>, timeout_ms: u32, wall_ms: i64) -> Self {
        Self {
            producer,
            previous,
            timeout_ms,
            state: TransactionState::Empty,
            started_ms: wall_ms,
            used_ms: wall_ms,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: BTreeMap::new(),
        }
    }

    pub fn is_ongoing(&self) -> bool {
        self.state == TransactionState::Ongoing
    }

    /// Whether records for this partition belong to it.
    pub fn covers(&self, topic: &Arc<str>, partition: u32) -> bool {
        self.is_ongoing() && self.partitions.contains(&(topic.clone(), partition))
    }

    /// The partitions whose offsets of a group wait for the end.
    fn pending_offsets(&self, group: &str) -> impl Iterator<Item = (Arc<str>, u32)> {
        let offsets = self.offsets.keys().filter(move |(of, ..)| **of == *group);
        offsets.map(|(_, topic, partition)| (topic.clone(), *partition))
    }

    /// How many offsets wait for the end.
    pub fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    /// When it times out, in ms of wall time.
    pub fn deadline_ms(&self) -> i64 {
        self.started_ms.saturating_add(i64::from(self.timeout_ms))
    }

    fn describe(&self, id: &Arc<str>) -> TransactionDescription {
        TransactionDescription {
            transactional_id: id.clone(),
            producer: self.producer,
            state: self.state,
            timeout_ms: self.timeout_ms,
            started_ms: self.is_ongoing().then_some(self.started_ms),
            partitions: self.partitions.iter().cloned().collect(),
        }
    }
}

impl Transactions {
    /// A transactional id.
    pub fn get(&self, id: &str) -> Option<&Transaction> {
        self.by_id.get(id)
    }

    /// The transactional id that a producer holds.
    pub fn of_producer(&self, producer_id: i64) -> Option<(&Arc<str>, &Transaction)> {
        self.by_id
            .get_key_value(self.by_producer.get(&producer_id)?)
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many offsets wait for the ends of all open transactions.
    pub fn offset_count(&self) -> usize {
        let open = self.deadlines.iter().filter_map(|(_, id)| self.get(id));
        open.map(Transaction::offset_count).sum()
    }

    /// When the next open transaction times out, in ms of wall time.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The partitions of which a group's offsets wait for an open transaction to end.
    pub fn pending_offsets(&self, group: &str) -> BTreeSet<(Arc<str>, u32)> {
        let open = self
            .deadlines
            .iter()
            .filter_map(|(_, id)| self.by_id.get(id));
        open.flat_map(|transaction| transaction.pending_offsets(group))
            .collect()
    }

    /// The open transactions that have timed out.
    pub fn timed_out(&self, now_ms: i64) -> Vec<Arc<str>> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now_ms);
        due.map(|(_, id)| id.clone()).collect()
    }

    /// A producer takes the id.
    pub fn init(
        &mut self,
        id: &Arc<str>,
        producer: Producer,
        previous: Option<Producer>,
        timeout_ms: u32,
        wall_ms: i64,
    ) {
        let new = Transaction::new(producer, previous, timeout_ms, wall_ms);
        if let Some(old) = self.by_id.insert(id.clone(), new) {
            self.by_producer.remove(&old.producer.id);
            self.deadlines.remove(&(old.deadline_ms(), id.clone()));
        }
        self.by_producer.insert(producer.id, id.clone());
    }

    /// Partitions and groups become part of the open transaction, which may begin with them.
    pub fn add(
        &mut self,
        id: &Arc<str>,
        partitions: &[(Arc<str>, u32)],
        groups: &[Arc<str>],
        wall_ms: i64,
    ) {
        let Some(transaction) = self.by_id.get_mut(id) else {
            return;
        };
        transaction.used_ms = wall_ms;
        if !transaction.is_ongoing() {
            transaction.state = TransactionState::Ongoing;
            transaction.started_ms = wall_ms;
            let deadline = transaction.deadline_ms();
            self.deadlines.insert((deadline, id.clone()));
        }
        transaction.partitions.extend(partitions.iter().cloned());
        transaction.groups.extend(groups.iter().cloned());
    }

    /// An offset is to be committed at the end.
    pub fn add_offset(&mut self, id: &str, group: &Arc<str>, commit: &OffsetCommit) {
        if let Some(transaction) = self.by_id.get_mut(id) {
            let key = (group.clone(), commit.topic.clone(), commit.partition);
            transaction.offsets.insert(key, commit.clone());
        }
    }

    /// A topic is deleted: nothing of it is part of a transaction any more.
    pub fn forget_topic(&mut self, name: &Arc<str>) {
        for transaction in self.by_id.values_mut() {
            transaction.partitions.retain(|(topic, _)| topic != name);
            transaction.offsets.retain(|(_, topic, _), _| topic != name);
        }
    }

    /// The transaction has ended. Answers the offsets to be committed.
    pub fn end(
        &mut self,
        id: &Arc<str>,
        epoch: i16,
        commits: bool,
        wall_ms: i64,
    ) -> Vec<(Arc<str>, OffsetCommit)> {
        let Some(transaction) = self.by_id.get_mut(id) else {
            return Vec::new();
        };
        self.deadlines
            .remove(&(transaction.deadline_ms(), id.clone()));
        if transaction.producer.epoch != epoch {
            transaction.producer.epoch = epoch;
            transaction.previous = None;
        }
        transaction.used_ms = wall_ms;
        transaction.state = if commits {
            TransactionState::Committed
        } else {
            TransactionState::Aborted
        };
        transaction.partitions.clear();
        transaction.groups.clear();
        let offsets = std::mem::take(&mut transaction.offsets);
        let counts = offsets.into_iter().filter(|_| commits);
        counts
            .map(|((group, ..), commit)| (group, commit))
            .collect()
    }

    /// Forgets the ids that were last used before `bound_ms` and have nothing open.
    pub fn forget_idle(&mut self, bound_ms: i64) {
        let by_producer = &mut self.by_producer;
        self.by_id.retain(|_, transaction| {
            let stays = transaction.is_ongoing() || transaction.used_ms > bound_ms;
            if !stays {
                by_producer.remove(&transaction.producer.id);
            }
            stays
        });
    }

    /// Every id, in order.
    pub fn describe(&self) -> Vec<TransactionDescription> {
        self.by_id.iter().map(|(id, t)| t.describe(id)).collect()
    }

    /// One id.
    pub fn describe_one(&self, id: &str) -> Option<TransactionDescription> {
        let (id, transaction) = self.by_id.get_key_value(id)?;
        Some(transaction.describe(id))
    }

    /// What a checkpoint holds.
    pub fn to_records(&self) -> Vec<TransactionRecord> {
        let record = |(id, t): (&Arc<str>, &Transaction)| TransactionRecord {
            id: id.clone(),
            producer: (t.producer.id, t.producer.epoch),
            previous: t.previous.map(|p| (p.id, p.epoch)),
            timeout_ms: t.timeout_ms,
            state: letter(t.state),
            started_ms: t.started_ms,
            used_ms: t.used_ms,
            partitions: t.partitions.iter().cloned().collect(),
            groups: t.groups.iter().cloned().collect(),
            offsets: t
                .offsets
                .iter()
                .map(|(k, c)| (k.0.clone(), c.clone()))
                .collect(),
        };
        self.by_id.iter().map(record).collect()
    }

    /// What a checkpoint held.
    pub fn from_records(records: &[TransactionRecord]) -> Self {
        let mut all = Self::default();
        let producer = |(id, epoch)| Producer { id, epoch };
        for r in records {
            let mut transaction = Transaction::new(
                producer(r.producer),
                r.previous.map(producer),
                r.timeout_ms,
                r.used_ms,
            );
            transaction.started_ms = r.started_ms;
            transaction.state = state_of(r.state);
            transaction.partitions = r.partitions.iter().cloned().collect();
            transaction.groups = r.groups.iter().cloned().collect();
            if transaction.is_ongoing() {
                all.deadlines
                    .insert((transaction.deadline_ms(), r.id.clone()));
            }
            all.by_producer.insert(r.producer.0, r.id.clone());
            all.by_id.insert(r.id.clone(), transaction);
            for (group, commit) in &r.offsets {
                all.add_offset(&r.id, group, commit);
            }
        }
        all
    }
}

const LETTERS: [(TransactionState, char); 4] = [
    (TransactionState::Empty, 'e'),
    (TransactionState::Ongoing, 'o'),
    (TransactionState::Committed, 'c'),
    (TransactionState::Aborted, 'a'),
];

fn letter(state: TransactionState) -> char {
    let found = LETTERS.iter().find(|(s, _)| *s == state);
    found.map_or('e', |(_, c)| *c)
}

fn state_of(letter: char) -> TransactionState {
    let found = LETTERS.iter().find(|(_, c)| *c == letter);
    found.map_or(TransactionState::Empty, |(s, _)| *s)
}
