//! Consumer groups, as an operator sees them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::topics::{EARLIEST, LATEST, text, topic_name};
use super::{Admin, ClientError};
use crate::codec::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::codec::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest,
};

/// One group in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupSummary {
    /// Its id.
    pub group: String,
    /// Where it stands: Empty, PreparingRebalance, CompletingRebalance, Stable.
    pub state: String,
    /// What kind of group it is; empty when it only has offsets.
    pub protocol_type: String,
}

/// One group, looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDetail {
    /// Its id.
    pub group: String,
    /// Where it stands.
    pub state: String,
    /// How its members share out, when it is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// What it has committed, by topic and partition.
    pub offsets: Vec<GroupOffset>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Its lasting name, if it has one.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client: String,
    /// Where it connected from.
    pub host: String,
}

/// What a group has committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub committed: i64,
    /// The offset behind the last record; `None` when the partition is gone.
    pub end: Option<i64>,
    /// The consumer's own words.
    pub metadata: String,
}

/// Where a group's offsets are to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// At the first record held.
    Earliest,
    /// Behind the last record.
    Latest,
    /// At an offset, or at the nearest one that the partition has.
    Offset(i64),
    /// At the first record of this time or later, in ms since 1970; behind the last one if all are
    /// older.
    Time(i64),
}

/// The offsets that a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The first one held.
    pub first: i64,
    /// The one behind the last record.
    pub end: i64,
}

/// What is, or would be, committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OffsetReset {
    /// The partition.
    pub partition: i32,
    /// What was committed before.
    pub before: Option<i64>,
    /// What is from now on.
    pub after: i64,
}

impl ResetTo {
    /// The offset, in a partition with these; `at_time` is what was found for a time.
    pub fn offset(self, has: PartitionOffsets, at_time: Option<i64>) -> i64 {
        match self {
            Self::Earliest => has.first,
            Self::Latest => has.end,
            Self::Offset(offset) => offset.clamp(has.first, has.end),
            Self::Time(_) => at_time.unwrap_or(has.end),
        }
    }
}

impl GroupOffset {
    /// How many offsets the group is behind.
    pub fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end - self.committed).max(0))
    }
}

impl Admin {
    /// Every group, by id.
    ///
    /// # Errors
    /// As all requests: [`ClientError`].
    pub async fn groups(&mut self) -> Result<Vec<GroupSummary>, ClientError> {
        let answer = self
            .connection
            .call(4, &ListGroupsRequest::default())
            .await?;
        ClientError::check("list groups", answer.error_code, None)?;
        let groups = answer.groups.iter().map(|group| GroupSummary {
            group: group.group_id.to_string(),
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
        });
        let mut groups: Vec<GroupSummary> = groups.collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// One group, with its members and how far behind it is.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and as all requests.
    pub async fn describe_group(&mut self, group: &str) -> Result<GroupDetail, ClientError> {
        let what = format!("find group {group:?}");
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let answer = self.connection.call(4, &request).await?;
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| ClientError::NotFound { what: what.clone() })?;
        ClientError::check(&what, found.error_code, None)?;
        if &*found.group_state == "Dead" {
            return Err(ClientError::NotFound { what });
        }
        let members = found.members.iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.as_ref().map(|i| i.to_string()),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
        });
        Ok(GroupDetail {
            group: group.to_owned(),
            state: found.group_state.to_string(),
            protocol: found.protocol_data.to_string(),
            members: members.collect(),
            offsets: self.group_offsets(group).await?,
        })
    }

    async fn group_offsets(&mut self, group: &str) -> Result<Vec<GroupOffset>, ClientError> {
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(None);
        let answer = self.connection.call(5, &request).await?;
        let what = format!("find the offsets of group {group:?}");
        ClientError::check(&what, answer.error_code, None)?;
        let mut offsets = Vec::new();
        for topic in &answer.topics {
            let name = topic.name.to_string();
            let indexes: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
            let ends = match self.offsets(&name, &indexes, LATEST).await {
                Err(ClientError::NotFound { .. }) => BTreeMap::new(),
                ends => ends?,
            };
            for partition in &topic.partitions {
                ClientError::check(&what, partition.error_code, None)?;
                offsets.push(GroupOffset {
                    topic: name.clone(),
                    partition: partition.partition_index,
                    committed: partition.committed_offset,
                    end: ends.get(&partition.partition_index).copied(),
                    metadata: partition
                        .metadata
                        .as_ref()
                        .map(|m| m.to_string())
                        .unwrap_or_default(),
                });
            }
        }
        offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(offsets)
    }

    /// Puts a group's offsets of a topic somewhere else, in all its partitions or one. Nothing is
    /// changed when `commit` is false.
    ///
    /// # Errors
    /// When the group has members, for they would go on as they were; [`ClientError::NotFound`];
    /// and as all requests.
    pub async fn reset_offsets(
        &mut self,
        group: &str,
        topic: &str,
        partition: Option<i32>,
        to: ResetTo,
        commit: bool,
    ) -> Result<Vec<OffsetReset>, ClientError> {
        let what = format!("reset the offsets of group {group:?}");
        let before = match self.describe_group(group).await {
            Ok(found) if found.members.is_empty() => found.offsets,
            Ok(found) => {
                let reason = format!(
                    "it has {} members, which would go on as they are: stop them first",
                    found.members.len()
                );
                let code = crate::codec::ErrorCode::NonEmptyGroup.code();
                return Err(ClientError::Refused { what, code, reason });
            }
            // A group that is put somewhere before it begins.
            Err(ClientError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut partitions = self.partitions(topic).await?;
        partitions.retain(|p| partition.is_none_or(|wanted| wanted == *p));
        if partitions.is_empty() {
            let what = format!("find partition {} of {topic:?}", partition.unwrap_or(0));
            return Err(ClientError::NotFound { what });
        }
        let first = self.offsets(topic, &partitions, EARLIEST).await?;
        let end = self.offsets(topic, &partitions, LATEST).await?;
        let at_time = match to {
            ResetTo::Time(ms) => self.offsets(topic, &partitions, ms).await?,
            _ => BTreeMap::new(),
        };
        let resets = partitions.iter().map(|p| {
            let at = |offsets: &BTreeMap<i32, i64>| offsets.get(p).copied().unwrap_or(0);
            let has = PartitionOffsets {
                first: at(&first),
                end: at(&end),
            };
            let known = before
                .iter()
                .find(|o| o.topic == topic && o.partition == *p);
            OffsetReset {
                partition: *p,
                before: known.map(|o| o.committed),
                after: to.offset(has, at_time.get(p).copied()),
            }
        });
        let resets: Vec<OffsetReset> = resets.collect();
        if commit {
            self.commit(&what, group, topic, &resets).await?;
        }
        Ok(resets)
    }

    async fn commit(
        &mut self,
        what: &str,
        group: &str,
        topic: &str,
        resets: &[OffsetReset],
    ) -> Result<(), ClientError> {
        let partitions = resets.iter().map(|reset| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(reset.partition)
                .with_committed_offset(reset.after)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let answer = self.connection.call(7, &request).await?;
        for partition in answer.topics.iter().flat_map(|t| &t.partitions) {
            ClientError::check(what, partition.error_code, None)?;
        }
        Ok(())
    }

    /// Deletes a group with all that it has committed.
    ///
    /// # Errors
    /// When it has members; [`ClientError::NotFound`]; and as all requests.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let groups_names = vec![GroupId(text(group))];
        let request = DeleteGroupsRequest::default().with_groups_names(groups_names);
        let answer = self.connection.call(1, &request).await?;
        let what = format!("delete group {group:?}");
        for result in &answer.results {
            ClientError::check(&what, result.error_code, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_reset_to_one_that_the_partition_has() {
        let has = PartitionOffsets { first: 10, end: 20 };
        for (to, expected) in [
            (ResetTo::Earliest, 10),
            (ResetTo::Latest, 20),
            (ResetTo::Offset(15), 15),
            (ResetTo::Offset(0), 10),
            (ResetTo::Offset(99), 20),
            (ResetTo::Time(5), 20),
        ] {
            assert_eq!(to.offset(has, None), expected, "{to:?}");
        }
        assert_eq!(ResetTo::Time(5).offset(has, Some(12)), 12);
    }
}
