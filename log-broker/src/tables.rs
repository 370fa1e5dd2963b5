//! Everything the log knows, in memory: what is durable, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::groups::{CommittedOffset, OffsetCommit};
use crate::layout::Layout;
use crate::limits::PRODUCERS_MAX;
use crate::partition::{Partition, SealedIndex};
use crate::producer::ProducerIds;
use crate::publisher::Publisher;
use crate::storage::File;
use crate::topic::TopicOptions;
use crate::transaction::Transactions;
use crate::wal::Entry;

/// Topics, groups and publishers as of the end of the last frame applied.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub topics: BTreeMap<Arc<str>, Topic>,
    pub groups: BTreeMap<Arc<str>, GroupOffsets>,
    pub publishers: BTreeMap<Arc<str>, Publisher>,
    pub producer_ids: ProducerIds,
    pub transactions: Transactions,
    /// Where the next frame stands in the WAL, at the earliest.
    pub position: u64,
}

/// By topic and partition.
pub(crate) type GroupOffsets = BTreeMap<(Arc<str>, u32), CommittedOffset>;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    /// What tells it from an earlier topic of its name.
    pub id: Uuid,
    /// Its folder.
    pub dir: PathBuf,
    pub options: TopicOptions,
    pub partitions: Vec<Partition>,
}

/// A run of batches that was written to a segment file: the second half of an append.
pub(crate) struct Written<'a> {
    /// Base offset of the segment.
    pub base: i64,
    pub file: Arc<dyn File>,
    pub data: &'a [u8],
}

/// What is left to do after a frame was applied.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// Indexes to be saved.
    pub sealed: Vec<SealedIndex>,
    /// Files that nothing refers to any more.
    pub unneeded: Vec<PathBuf>,
    /// Folders that are empty when those are gone, the inner ones first.
    pub unneeded_dirs: Vec<PathBuf>,
}

impl Topic {
    /// A topic without records.
    pub fn new(layout: &Layout, name: &str, id: Uuid, options: TopicOptions) -> Self {
        let mut topic = Self {
            id,
            dir: layout.topic(name, id),
            options: TopicOptions::default(),
            partitions: Vec::new(),
        };
        topic.set(options);
        topic
    }

    /// Gives it new options, and the partitions that it lacks. It never loses one.
    fn set(&mut self, options: TopicOptions) {
        let (held, wanted) = (self.partitions.len() as u32, options.partitions);
        self.partitions.extend((held..wanted).map(|n| Partition {
            dir: self.dir.join(n.to_string()),
            ..Partition::default()
        }));
        self.options = TopicOptions {
            partitions: held.max(wanted),
            ..options
        };
    }
}

impl Tables {
    /// A partition.
    pub fn partition(&self, topic: &str, partition: u32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(partition as usize)
    }

    /// Whether a producer has an id of this log, and has not been idle for long. Looks into every
    /// partition, which only a batch that cannot be stored costs.
    pub fn knows_producer(&self, id: i64) -> bool {
        let mut partitions = self.topics.values().flat_map(|t| &t.partitions);
        self.producer_ids.is_recent(id) || partitions.any(|p| p.producers.get(id).is_some())
    }

    /// Forgets producers that have been idle since `bound_ms`, and more of them while there are
    /// too many.
    pub fn forget_idle_producers(&mut self, mut bound_ms: i64) {
        let partitions = || self.topics.values().flat_map(|t| &t.partitions);
        let count: usize = partitions().map(|p| p.producers.len()).sum();
        if count > PRODUCERS_MAX {
            let idle = partitions().flat_map(|p| p.producers.idle_since());
            let mut idle: Vec<i64> = idle.collect();
            // An eighth more than needed, so that this is rare.
            let goes = (count - PRODUCERS_MAX + PRODUCERS_MAX / 8).min(idle.len());
            if let Some(last) = goes.checked_sub(1) {
                bound_ms = bound_ms.max(*idle.select_nth_unstable(last).1);
            }
        }
        self.producer_ids.forget(bound_ms);
        let partitions = self.topics.values_mut().flat_map(|t| &mut t.partitions);
        partitions.for_each(|p| p.producers.forget_idle(bound_ms));
    }

    fn partition_mut(&mut self, topic: &str, partition: u32) -> Option<&mut Partition> {
        let topic = self.topics.get_mut(topic)?;
        topic.partitions.get_mut(partition as usize)
    }

    /// Closes every segment that is open, when there are too many.
    pub fn bound_open_segments(&mut self, limit: usize) {
        let mut partitions = self.topics.values_mut().flat_map(|t| &mut t.partitions);
        let open = |p: &&mut Partition| p.segments.last().is_some_and(|s| s.file.is_some());
        if partitions.by_ref().filter(open).count() > limit {
            let topics = self.topics.values_mut();
            topics
                .flat_map(|t| &mut t.partitions)
                .for_each(Partition::close_idle);
        }
    }

    /// Applies a frame that is durable. `written` has one item for each append entry, in order.
    pub fn apply(
        &mut self,
        layout: &Layout,
        entries: &[Entry],
        written: &[Written<'_>],
        wall_ms: i64,
        end: u64,
    ) -> Aftermath {
        let mut aftermath = Aftermath::default();
        let mut written = written.iter();
        for entry in entries {
            match entry {
                Entry::Append {
                    topic, partition, ..
                } => {
                    if let Some(w) = written.next()
                        && let Some(p) = self.partition_mut(topic, *partition)
                    {
                        aftermath
                            .sealed
                            .extend(p.extend(w.base, &w.file, w.data, wall_ms));
                    }
                }
                Entry::Topic { name, id, options } => self.set_topic(layout, name, *id, options),
                Entry::TopicDeleted { name, id } => self.delete_topic(name, *id, &mut aftermath),
                Entry::Commit { group, commit } => self.commit(group, commit, wall_ms),
                Entry::Compacted {
                    topic,
                    id,
                    partition,
                    segment,
                } => {
                    let known = self.topics.get(topic).is_some_and(|t| t.id == *id);
                    if let Some(p) = self.partition_mut(topic, *partition).filter(|_| known) {
                        aftermath.unneeded.extend(p.compact(segment));
                    }
                }
                Entry::GroupForgotten { group, of } => self.forget_group(group, of.as_ref()),
                Entry::Publisher { id, update } => {
                    self.publishers.entry(id.clone()).or_default().apply(update);
                }
                Entry::ProducerId { .. }
                | Entry::TransactionInit { .. }
                | Entry::TransactionAdd { .. }
                | Entry::TransactionOffset { .. }
                | Entry::TransactionEnd { .. } => self.apply_transaction(entry, wall_ms),
                Entry::Trim {
                    topic,
                    partition,
                    start_offset,
                } => {
                    if let Some(p) = self.partition_mut(topic, *partition) {
                        aftermath.unneeded.extend(p.trim(*start_offset));
                    }
                }
            }
        }
        self.position = end;
        aftermath
    }

    fn set_topic(&mut self, layout: &Layout, name: &Arc<str>, id: Uuid, options: &TopicOptions) {
        match self.topics.get_mut(name) {
            Some(topic) => topic.set(options.clone()),
            None => {
                let topic = Topic::new(layout, name, id, options.clone());
                self.topics.insert(name.clone(), topic);
            }
        }
    }

    fn delete_topic(&mut self, name: &Arc<str>, id: Uuid, aftermath: &mut Aftermath) {
        if self.topics.get(name).is_none_or(|t| t.id != id) {
            return;
        }
        let Some(mut topic) = self.topics.remove(name) else {
            return;
        };
        for partition in &mut topic.partitions {
            aftermath.unneeded.extend(partition.trim(i64::MAX));
            aftermath.unneeded_dirs.push(partition.dir.clone());
        }
        aftermath.unneeded_dirs.push(topic.dir);
        self.transactions.forget_topic(name);
        self.groups.retain(|_, offsets| {
            offsets.retain(|(topic, _), _| topic != name);
            !offsets.is_empty()
        });
    }

    fn forget_group(&mut self, name: &Arc<str>, of: Option<&(Arc<str>, u32)>) {
        let Some(offsets) = self.groups.get_mut(name) else {
            return;
        };
        match of {
            Some(key) => drop(offsets.remove(key)),
            None => offsets.clear(),
        }
        if offsets.is_empty() {
            self.groups.remove(name);
        }
    }

    fn commit(&mut self, group: &Arc<str>, commit: &OffsetCommit, wall_ms: i64) {
        let group = self.groups.entry(group.clone()).or_default();
        let key = (commit.topic.clone(), commit.partition);
        group.insert(key, CommittedOffset::of(commit, wall_ms));
    }

    fn apply_transaction(&mut self, entry: &Entry, wall_ms: i64) {
        match entry {
            Entry::ProducerId { id } => self.producer_ids.give(*id, wall_ms),
            Entry::TransactionInit {
                id,
                producer,
                previous,
                timeout_ms,
            } => {
                self.producer_ids.give(producer.id, wall_ms);
                self.transactions
                    .init(id, *producer, *previous, *timeout_ms, wall_ms);
            }
            Entry::TransactionAdd {
                id,
                partitions,
                groups,
            } => self.transactions.add(id, partitions, groups, wall_ms),
            Entry::TransactionOffset { id, group, commit } => {
                self.transactions.add_offset(id, group, commit);
            }
            Entry::TransactionEnd { id, epoch, commits } => {
                for (group, commit) in self.transactions.end(id, *epoch, *commits, wall_ms) {
                    self.commit(&group, &commit, wall_ms);
                }
            }
            _ => {}
        }
    }
}
