//! Everything the log knows, in memory: what is durable, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::layout::Layout;
use crate::limits;
use crate::partition::{Partition, SealedIndex};
use crate::publisher::Publisher;
use crate::storage::File;
use crate::topic::TopicOptions;
use crate::wal::Entry;

/// Topics, groups and publishers as of the end of the last frame applied.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub topics: BTreeMap<Arc<str>, Topic>,
    pub groups: BTreeMap<Arc<str>, GroupOffsets>,
    pub publishers: BTreeMap<Arc<str>, Publisher>,
    /// Where the next frame stands in the WAL, at the earliest.
    pub position: u64,
}

/// (topic, partition) → next offset to read.
pub(crate) type GroupOffsets = BTreeMap<(Arc<str>, u32), i64>;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
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
}

impl Topic {
    /// A topic without records.
    pub fn new(layout: &Layout, name: &str, options: TopicOptions) -> Self {
        let partition = |n| Partition {
            dir: layout.partition(name, n),
            ..Partition::default()
        };
        Self {
            partitions: (0..options.partitions).map(partition).collect(),
            options,
        }
    }
}

impl Tables {
    /// A partition.
    pub fn partition(&self, topic: &str, partition: u32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(partition as usize)
    }

    fn partition_mut(&mut self, topic: &str, partition: u32) -> Option<&mut Partition> {
        let topic = self.topics.get_mut(topic)?;
        topic.partitions.get_mut(partition as usize)
    }

    /// Closes every segment that is open, when there are too many.
    pub fn bound_open_segments(&mut self) {
        let mut partitions = self.topics.values_mut().flat_map(|t| &mut t.partitions);
        let open = |p: &&mut Partition| p.segments.last().is_some_and(|s| s.file.is_some());
        if partitions.by_ref().filter(open).count() > limits::OPEN_SEGMENTS_MAX {
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
                Entry::Topic { name, options } => {
                    let new = || Topic::new(layout, name, options.clone());
                    let topic = self.topics.entry(name.clone()).or_insert_with(new);
                    // The number of partitions of a topic that exists never changes.
                    let partitions = topic.options.partitions;
                    topic.options = TopicOptions {
                        partitions,
                        ..options.clone()
                    };
                }
                Entry::Commit {
                    group,
                    topic,
                    partition,
                    next_offset,
                } => {
                    let group = self.groups.entry(group.clone()).or_default();
                    group.insert((topic.clone(), *partition), *next_offset);
                }
                Entry::Publisher { id, update } => {
                    self.publishers.entry(id.clone()).or_default().apply(update);
                }
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
}
