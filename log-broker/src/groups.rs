//! Offsets of consumer groups: stored durably, by group, topic and partition.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::AppendError;
use crate::limits;
use crate::log::Log;
use crate::tables::Tables;
use crate::wal::Entry;

/// The next offset that a group wants to read of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub next_offset: i64,
    /// Epoch of the leader that the last record was read from, if the consumer says so.
    pub leader_epoch: Option<i32>,
    /// The consumer's own words, at most [`limits::OFFSET_METADATA_BYTES_MAX`] bytes.
    pub metadata: Arc<str>,
}

impl OffsetCommit {
    /// A commit of nothing but the offset.
    pub fn new(topic: Arc<str>, partition: u32, next_offset: i64) -> Self {
        Self {
            topic,
            partition,
            next_offset,
            leader_epoch: None,
            metadata: "".into(),
        }
    }

    /// Checks what needs no look at the log.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        let (bytes, limit) = (self.metadata.len(), limits::OFFSET_METADATA_BYTES_MAX);
        if bytes > limit {
            let text = format!("metadata of {bytes} bytes with an offset, the limit is {limit}");
            return Err(AppendError::Invalid(text));
        }
        if self.next_offset < 0 {
            let text = format!("offset {} of a group is negative", self.next_offset);
            return Err(AppendError::Invalid(text));
        }
        Ok(())
    }
}

/// What a group committed last for a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub next_offset: i64,
    /// Epoch of the leader that the last record was read from, if the consumer said so.
    pub leader_epoch: Option<i32>,
    /// The consumer's own words.
    pub metadata: Arc<str>,
    /// When it was committed, in ms of wall time.
    pub committed_ms: i64,
}

impl CommittedOffset {
    pub(crate) fn of(commit: &OffsetCommit, committed_ms: i64) -> Self {
        Self {
            next_offset: commit.next_offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.clone(),
            committed_ms,
        }
    }
}

impl Log {
    /// Stores the next offsets to read for a consumer group, durably and all or none.
    ///
    /// # Errors
    /// When a partition does not exist, the group's name cannot be, or the log does not take it.
    pub async fn commit(&self, group: &str, next: &[OffsetCommit]) -> Result<(), AppendError> {
        let group = checked_group(group)?;
        let mut entries = Vec::with_capacity(next.len());
        for commit in next {
            commit.check()?;
            entries.push(Entry::Commit {
                group: group.clone(),
                commit: commit.clone(),
            });
        }
        self.change(entries).await
    }

    /// What a group committed last for a partition, if it ever did.
    pub fn committed(&self, group: &str, topic: &str, partition: u32) -> Option<CommittedOffset> {
        let tables = self.tables();
        let offsets = tables.groups.get(group)?;
        offsets.get(&(topic.into(), partition)).cloned()
    }

    /// Every group that has committed an offset, by name.
    pub fn groups(&self) -> Vec<Arc<str>> {
        self.tables().groups.keys().cloned().collect()
    }

    /// What a group has committed, by topic and partition.
    pub fn group_offsets(&self, group: &str) -> Vec<(Arc<str>, u32, CommittedOffset)> {
        let tables = self.tables();
        let offsets = tables.groups.get(group).into_iter().flatten();
        offsets
            .map(|((topic, partition), offset)| (topic.clone(), *partition, offset.clone()))
            .collect()
    }

    /// Forgets a group, durably. Answers whether it had committed anything.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_group(&self, group: &str) -> Result<bool, AppendError> {
        if !self.tables().groups.contains_key(group) {
            return Ok(false);
        }
        let group = group.into();
        self.change(vec![Entry::GroupForgotten { group, of: None }])
            .await?;
        Ok(true)
    }

    /// Forgets what a group has committed for these partitions, durably. Those it has not
    /// committed anything for are left out.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        of: &[(Arc<str>, u32)],
    ) -> Result<(), AppendError> {
        let held: HashSet<(Arc<str>, u32)> = {
            let held = self.group_offsets(group).into_iter();
            held.map(|(topic, partition, _)| (topic, partition))
                .collect()
        };
        let known = |of: &&(Arc<str>, u32)| held.contains(*of);
        let group: Arc<str> = group.into();
        let forgotten = |of: &(Arc<str>, u32)| Entry::GroupForgotten {
            group: group.clone(),
            of: Some(of.clone()),
        };
        let entries: Vec<_> = of.iter().filter(known).map(forgotten).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.change(entries).await
    }

    /// Forgets every group that committed nothing since `before_ms`, unless `keep` says that it is
    /// still in use. Answers which.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn expire_groups(
        &self,
        before_ms: i64,
        keep: impl Fn(&str) -> bool,
    ) -> Result<Vec<Arc<str>>, AppendError> {
        let idle: Vec<Arc<str>> = {
            let tables = self.tables();
            let groups = tables.groups.iter();
            groups
                .filter(|(name, offsets)| {
                    offsets.values().all(|o| o.committed_ms < before_ms) && !keep(name)
                })
                .map(|(name, _)| name.clone())
                .collect()
        };
        let forgotten = idle.iter().map(|group| Entry::GroupForgotten {
            group: group.clone(),
            of: None,
        });
        if !idle.is_empty() {
            self.change(forgotten.collect()).await?;
        }
        Ok(idle)
    }
}

/// A group's name, if it can be one.
pub(crate) fn checked_group(group: &str) -> Result<Arc<str>, AppendError> {
    let (bytes, limit) = (group.len(), limits::GROUP_NAME_BYTES_MAX);
    if bytes == 0 || bytes > limit {
        let text = format!("the group's name has {bytes} bytes, it must have 1 to {limit}");
        return Err(AppendError::Invalid(text));
    }
    Ok(group.into())
}

/// Whether the log can take a commit now: its partition exists, and there is room for it.
pub(crate) fn check_commit(
    tables: &Tables,
    group: &str,
    commit: &OffsetCommit,
) -> Result<(), AppendError> {
    if tables.partition(&commit.topic, commit.partition).is_none() {
        return Err(AppendError::Unknown {
            topic: commit.topic.clone(),
            partition: commit.partition,
        });
    }
    let offsets = tables.groups.get(group);
    let key = (commit.topic.clone(), commit.partition);
    let held: usize = tables.groups.values().map(|g| g.len()).sum();
    let limit = limits::GROUP_OFFSETS_MAX;
    if held >= limit && !offsets.is_some_and(|o| o.contains_key(&key)) {
        let text = format!("the groups have {held} offsets, the limit is {limit}: delete groups");
        return Err(AppendError::Invalid(text));
    }
    Ok(())
}
