//! The topics of a log: created, changed, trimmed and deleted.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::{AppendError, FetchError, TopicError};
use crate::limits;
use crate::log::Log;
use crate::tables::Tables;
use crate::topic::{TopicOptions, check_topic_name};
use crate::wal::Entry;
use crate::writer::Request;

impl Log {
    /// Creates a topic, durably. One that exists stays as it is: its options are answered.
    ///
    /// # Errors
    /// When the name or an option cannot be, or the log does not take it.
    pub async fn create_topic(
        &self,
        name: &str,
        options: TopicOptions,
    ) -> Result<TopicOptions, TopicError> {
        if let Some(existing) = self.topic(name) {
            return Ok(existing);
        }
        match self.create_new_topic(name, options.clone()).await {
            Ok(_) => Ok(options),
            Err(TopicError::Exists { .. }) => Ok(self.topic(name).unwrap_or(options)),
            Err(error) => Err(error),
        }
    }

    /// Creates a topic, durably; answers its id.
    ///
    /// # Errors
    /// When there is one of that name, the name or an option cannot be, or the log does not take
    /// it.
    pub async fn create_new_topic(
        &self,
        name: &str,
        options: TopicOptions,
    ) -> Result<Uuid, TopicError> {
        check_topic_name(name)?;
        options.check()?;
        let id = Uuid::now_v7();
        let entry = Entry::Topic {
            name: name.into(),
            id,
            options,
        };
        self.change_topic(entry, true).await?;
        Ok(id)
    }

    /// Changes the options of a topic, durably; answers the new ones. `change` is given the
    /// present ones. The number of partitions can only grow.
    ///
    /// # Errors
    /// When there is no such topic, an option cannot be, or the log does not take it.
    pub async fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(&mut TopicOptions),
    ) -> Result<TopicOptions, TopicError> {
        // Whoever changes another option at the same time waits, so that no change is undone.
        let _one = self.altering.lock().await;
        let (id, mut options) = self.known(name)?;
        change(&mut options);
        options.check()?;
        let entry = Entry::Topic {
            name: name.into(),
            id,
            options: options.clone(),
        };
        self.change_topic(entry, false).await?;
        Ok(options)
    }

    /// Gives a topic more partitions: `partitions` in all.
    ///
    /// # Errors
    /// As [`Log::alter_topic`], and when it has as many already.
    pub async fn create_partitions(&self, name: &str, partitions: u32) -> Result<(), TopicError> {
        let mut held = 0;
        let grow = |options: &mut TopicOptions| {
            held = options.partitions;
            options.partitions = partitions.max(held);
        };
        self.alter_topic(name, grow).await?;
        if partitions <= held {
            return Err(TopicError::Partitions {
                name: name.into(),
                partitions: held,
                wanted: partitions,
            });
        }
        Ok(())
    }

    /// Deletes a topic with its records and what groups have committed for it, durably. One that
    /// is created again under its name is another topic, and starts empty at offset 0.
    ///
    /// # Errors
    /// When there is no such topic, or the log does not take it.
    pub async fn delete_topic(&self, name: &str) -> Result<(), TopicError> {
        let (id, _) = self.known(name)?;
        let name = name.into();
        self.change_topic(Entry::TopicDeleted { name, id }, false)
            .await
    }

    /// Gives up the records before `offset`, durably. Answers the first offset that is held. The
    /// files of whole segments go with the next checkpoint.
    ///
    /// # Errors
    /// When the partition does not exist or ends before `offset`, or the log does not take it.
    pub async fn trim(&self, topic: &str, partition: u32, offset: i64) -> Result<i64, AppendError> {
        let entry = Entry::Trim {
            topic: topic.into(),
            partition,
            start_offset: offset,
        };
        self.change(vec![entry]).await?;
        let offsets = self.offsets(topic, partition);
        Ok(offsets.map_or(offset, |(first, _)| first))
    }

    /// The options of a topic.
    pub fn topic(&self, name: &str) -> Option<TopicOptions> {
        let tables = self.tables();
        tables.topics.get(name).map(|t| t.options.clone())
    }

    /// The id of a topic: one that is created again under an old name has a new one.
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.tables().topics.get(name).map(|t| t.id)
    }

    /// The name of the topic with this id.
    pub fn topic_name(&self, id: Uuid) -> Option<Arc<str>> {
        let tables = self.tables();
        let mut topics = tables.topics.iter();
        topics.find(|(_, t)| t.id == id).map(|(n, _)| n.clone())
    }

    /// Every topic, by name, with its options.
    pub fn topics(&self) -> Vec<(Arc<str>, TopicOptions)> {
        let tables = self.tables();
        let topics = tables.topics.iter();
        topics
            .map(|(n, t)| (n.clone(), t.options.clone()))
            .collect()
    }

    /// First offset held and offset behind the last visible record.
    ///
    /// # Errors
    /// When the partition does not exist.
    pub fn offsets(&self, topic: &str, partition: u32) -> Result<(i64, i64), FetchError> {
        let tables = self.tables();
        let p = tables.partition(topic, partition);
        p.map(|p| (p.start, p.end)).ok_or(FetchError::Unknown {
            topic: topic.into(),
            partition,
        })
    }

    /// Bytes that a partition's segments take.
    ///
    /// # Errors
    /// When the partition does not exist.
    pub fn partition_bytes(&self, topic: &str, partition: u32) -> Result<u64, FetchError> {
        let tables = self.tables();
        let p = tables.partition(topic, partition);
        p.map(|p| p.bytes()).ok_or(FetchError::Unknown {
            topic: topic.into(),
            partition,
        })
    }

    /// The latest timestamp of a record that a partition holds, in ms; `None` when it is empty.
    ///
    /// # Errors
    /// When the partition does not exist.
    pub fn latest_timestamp(&self, topic: &str, partition: u32) -> Result<Option<i64>, FetchError> {
        let tables = self.tables();
        let p = tables.partition(topic, partition);
        let p = p.ok_or(FetchError::Unknown {
            topic: topic.into(),
            partition,
        })?;
        let held = p.segments.iter().filter(|s| s.state.end > p.start);
        Ok(held.map(|s| s.state.max_timestamp).max())
    }

    fn known(&self, name: &str) -> Result<(Uuid, TopicOptions), TopicError> {
        let tables = self.tables();
        let topic = tables.topics.get(name);
        let known = topic.map(|t| (t.id, t.options.clone()));
        known.ok_or_else(|| TopicError::Unknown { name: name.into() })
    }

    async fn change_topic(&self, entry: Entry, new: bool) -> Result<(), TopicError> {
        self.check_writable()?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Topic { entry, new, reply }).await?;
        answer.await.unwrap_or(Err(AppendError::Closed.into()))
    }
}

/// Whether a partition can start at `offset`.
pub(crate) fn check_trim(
    tables: &Tables,
    topic: &Arc<str>,
    partition: u32,
    offset: i64,
) -> Result<(), AppendError> {
    let p = tables.partition(topic, partition);
    let p = p.ok_or_else(|| AppendError::Unknown {
        topic: topic.clone(),
        partition,
    })?;
    if !(0..=p.end).contains(&offset) {
        return Err(AppendError::OffsetOutOfRange {
            topic: topic.clone(),
            partition,
            offset,
            first: p.start,
            end: p.end,
        });
    }
    Ok(())
}

/// Whether the segments that a compacted one stands for are still there.
pub(crate) fn check_compacted(tables: &Tables, entry: &Entry) -> Result<(), AppendError> {
    let Entry::Compacted {
        topic,
        id,
        partition,
        segment,
    } = entry
    else {
        return Ok(());
    };
    let held = tables.topics.get(topic).filter(|t| t.id == *id);
    let held = held.and_then(|t| t.partitions.get(*partition as usize));
    match held.and_then(|p| p.compacted(segment)) {
        Some(_) => Ok(()),
        None => Err(AppendError::Invalid(format!(
            "the segments of {topic}-{partition} from offset {} on have gone since",
            segment.base
        ))),
    }
}

/// Whether a topic can be created (`new`), changed or deleted now, by its entry.
pub(crate) fn check_change(tables: &Tables, entry: &Entry, new: bool) -> Result<(), TopicError> {
    let (Entry::Topic { name, id, .. } | Entry::TopicDeleted { name, id }) = entry else {
        return Ok(());
    };
    let held = match tables.topics.get(name) {
        Some(_) if new => return Err(TopicError::Exists { name: name.clone() }),
        // Deleted since it was looked at, and perhaps created again.
        Some(topic) if topic.id == *id => topic.options.partitions,
        None if new => 0,
        _ => return Err(TopicError::Unknown { name: name.clone() }),
    };
    let Entry::Topic { options, .. } = entry else {
        return Ok(());
    };
    let wanted = options.partitions;
    if wanted < held {
        return Err(TopicError::Partitions {
            name: name.clone(),
            partitions: held,
            wanted,
        });
    }
    let partitions: u32 = tables.topics.values().map(|t| t.options.partitions).sum();
    let (wanted, limit) = (wanted - held, limits::PARTITIONS_MAX);
    if partitions + wanted > limit {
        return Err(TopicError::Full {
            partitions,
            wanted,
            limit,
        });
    }
    Ok(())
}
