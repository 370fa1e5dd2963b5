//! A source and an inbox in memory: to test handlers without a broker or a database.
//!
//! They keep the contracts of their ports, and can be told to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use outbox_core::{
    Headers, Inbox, InboxError, Record, Source, SourceError, TopicPartition, TopicPattern,
};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// A record of partition 0 of `topic`, with a fresh id. The source sets its offset.
pub fn record(topic: &str, key: &str, payload: impl Into<Bytes>) -> Record {
    Record {
        partition: TopicPartition {
            topic: topic.into(),
            partition: 0,
        },
        offset: 0,
        id: Some(Uuid::now_v7()),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        payload: payload.into(),
        content_type: Some("application/json".to_owned()),
        headers: Headers::new(),
        timestamp: Utc::now(),
    }
}

/// A source in memory. Clones are the same source. [`Source::changed`] wakes one waiting consumer
/// at a time; others look by themselves twice a second.
#[derive(Clone, Default)]
pub struct MemorySource {
    inner: Arc<Memory>,
}

#[derive(Default)]
struct Memory {
    state: Mutex<State>,
    changed: Notify,
    /// Counts commits.
    commits: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<TopicPartition, Kept>,
    committed: BTreeMap<(String, TopicPartition), i64>,
    outage: bool,
}

#[derive(Default)]
struct Kept {
    /// Offset of the first record.
    first: i64,
    records: Vec<Record>,
}

impl MemorySource {
    /// An empty source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record to the partition it names; answers its offset.
    pub fn append(&self, mut record: Record) -> i64 {
        let offset = {
            let mut state = self.lock();
            let kept = state
                .partitions
                .entry(record.partition.clone())
                .or_default();
            record.offset = kept.first + kept.records.len() as i64;
            kept.records.push(record.clone());
            record.offset
        };
        self.inner.changed.notify_one();
        offset
    }

    /// Removes the records of `of` below `offset`, as retention does.
    pub fn retain_from(&self, of: &TopicPartition, offset: i64) {
        let mut state = self.lock();
        if let Some(kept) = state.partitions.get_mut(of) {
            let gone = usize::try_from(offset - kept.first).unwrap_or_default();
            kept.records.drain(..gone.min(kept.records.len()));
            kept.first = offset;
        }
    }

    /// The next offset that `group` committed; `None` when it never did.
    pub fn committed_offset(&self, group: &str, of: &TopicPartition) -> Option<i64> {
        let key = (group.to_owned(), of.clone());
        self.lock().committed.get(&key).copied()
    }

    /// The offset behind the last record of `of`.
    pub fn end(&self, of: &TopicPartition) -> i64 {
        let state = self.lock();
        let kept = state.partitions.get(of);
        kept.map_or(0, |kept| kept.first + kept.records.len() as i64)
    }

    /// Waits until `group` has committed everything that is here. Cancel-safe.
    pub async fn settled(&self, group: &str) {
        let mut commits = self.inner.commits.subscribe();
        // The sender lives as long as this source: `changed` never fails.
        while !self.is_settled(group) && commits.changed().await.is_ok() {}
    }

    /// Whether `group` has committed everything that is here.
    pub fn is_settled(&self, group: &str) -> bool {
        let state = self.lock();
        state.partitions.iter().all(|(of, kept)| {
            let end = kept.first + kept.records.len() as i64;
            state.committed.get(&(group.to_owned(), of.clone())) == Some(&end)
        })
    }

    /// While `on`, every call fails as if the source could not be reached.
    pub fn set_outage(&self, on: bool) {
        self.lock().outage = on;
        self.inner.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<MutexGuard<'_, State>, SourceError> {
        let state = self.lock();
        match state.outage {
            true => Err(SourceError::Outage("told to fail".to_owned())),
            false => Ok(state),
        }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn partitions(
        &self,
        topics: &[TopicPattern],
    ) -> Result<Vec<TopicPartition>, SourceError> {
        let state = self.reached()?;
        let covered = |of: &&TopicPartition| topics.iter().any(|p| p.matches(&of.topic));
        Ok(state.partitions.keys().filter(covered).cloned().collect())
    }

    async fn committed(&self, group: &str, of: &TopicPartition) -> Result<i64, SourceError> {
        let state = self.reached()?;
        let first = state.partitions.get(of).map_or(0, |kept| kept.first);
        let key = (group.to_owned(), of.clone());
        Ok(state.committed.get(&key).copied().unwrap_or(first))
    }

    async fn fetch(
        &self,
        from: &TopicPartition,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Record>, SourceError> {
        let state = self.reached()?;
        let Some(kept) = state.partitions.get(from) else {
            return Err(SourceError::Permanent(format!("{from:?} does not exist")));
        };
        let (first, end) = (kept.first, kept.first + kept.records.len() as i64);
        let at = usize::try_from(offset - first)
            .ok()
            .filter(|_| offset <= end);
        let Some(at) = at else {
            return Err(SourceError::OffsetOutOfRange { offset, first, end });
        };
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let fits = bytes < max_bytes;
            bytes += record.payload.len();
            fits
        };
        Ok(kept.records[at..]
            .iter()
            .take_while(fits)
            .cloned()
            .collect())
    }

    async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    async fn commit(&self, group: &str, next: &[(TopicPartition, i64)]) -> Result<(), SourceError> {
        let mut state = self.reached()?;
        for (of, next) in next {
            state
                .committed
                .insert((group.to_owned(), of.clone()), *next);
        }
        drop(state);
        self.inner.commits.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// An inbox in memory whose transactions collect effects of type `T`. Clones are the same inbox.
///
/// Unlike a database it does not make a second transaction wait for a first one that accepts the
/// same id: the second fails at commit, and is tried again.
pub struct MemoryInbox<T> {
    state: Arc<Mutex<InboxState<T>>>,
}

struct InboxState<T> {
    accepted: BTreeSet<(String, Uuid)>,
    effects: Vec<T>,
    dead: Vec<DeadLetter>,
    outage: bool,
    lose_next_answers: u32,
}

/// A record that [`MemoryInbox`] keeps as a dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The consumer that gave it up.
    pub consumer: String,
    /// The record.
    pub record: Record,
    /// Failed attempts.
    pub attempts: u32,
    /// What the handler said last.
    pub error: String,
}

/// A transaction of [`MemoryInbox`].
#[derive(Debug)]
pub struct MemoryTx<T> {
    accepted: BTreeSet<(String, Uuid)>,
    effects: Vec<T>,
    dead: Vec<DeadLetter>,
}

impl<T> MemoryTx<T> {
    /// Adds an effect, to be seen by [`MemoryInbox::effects`] once committed.
    pub fn push(&mut self, effect: T) {
        self.effects.push(effect);
    }
}

impl<T> Clone for MemoryInbox<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
        }
    }
}

impl<T> Default for MemoryInbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> MemoryInbox<T> {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(InboxState {
                accepted: BTreeSet::new(),
                effects: Vec::new(),
                dead: Vec::new(),
                outage: false,
                lose_next_answers: 0,
            })),
        }
    }

    /// Committed effects, in commit order.
    pub fn effects(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.lock().effects.clone()
    }

    /// Committed dead letters.
    pub fn dead(&self) -> Vec<DeadLetter> {
        self.lock().dead.clone()
    }

    /// While `on`, every call fails as if the database could not be reached.
    pub fn set_outage(&self, on: bool) {
        self.lock().outage = on;
    }

    /// The next `n` commits take effect, and then fail as if the answer was lost.
    pub fn lose_answers(&self, n: u32) {
        self.lock().lose_next_answers = n;
    }

    fn lock(&self) -> MutexGuard<'_, InboxState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<MutexGuard<'_, InboxState<T>>, InboxError> {
        let state = self.lock();
        match state.outage {
            true => Err(InboxError::Outage("told to fail".into())),
            false => Ok(state),
        }
    }
}

#[async_trait]
impl<T: Send + 'static> Inbox for MemoryInbox<T> {
    type Tx = MemoryTx<T>;

    async fn begin(&self) -> Result<MemoryTx<T>, InboxError> {
        drop(self.reached()?);
        Ok(MemoryTx {
            accepted: BTreeSet::new(),
            effects: Vec::new(),
            dead: Vec::new(),
        })
    }

    async fn accept(
        &self,
        tx: &mut MemoryTx<T>,
        consumer: &str,
        id: Uuid,
    ) -> Result<bool, InboxError> {
        let entry = (consumer.to_owned(), id);
        let known = self.reached()?.accepted.contains(&entry);
        Ok(!known && tx.accepted.insert(entry))
    }

    async fn dead_letter(
        &self,
        tx: &mut MemoryTx<T>,
        consumer: &str,
        record: &Record,
        attempts: u32,
        error: &str,
    ) -> Result<(), InboxError> {
        drop(self.reached()?);
        tx.dead.push(DeadLetter {
            consumer: consumer.to_owned(),
            record: record.clone(),
            attempts,
            error: error.to_owned(),
        });
        Ok(())
    }

    async fn commit(&self, mut tx: MemoryTx<T>) -> Result<(), InboxError> {
        let mut state = self.reached()?;
        if tx
            .accepted
            .iter()
            .any(|entry| state.accepted.contains(entry))
        {
            return Err(InboxError::Outage("accepted by another transaction".into()));
        }
        state.accepted.append(&mut tx.accepted);
        state.effects.append(&mut tx.effects);
        state.dead.append(&mut tx.dead);
        if state.lose_next_answers > 0 {
            state.lose_next_answers -= 1;
            return Err(InboxError::Outage("the answer was lost".into()));
        }
        Ok(())
    }
}
