//! Groups: committed offsets, and which partitions are this member's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::topics::topic_name;
use super::{Client, TopicPartitions};
use crate::client::ClientError;
use crate::codec::messages::join_group_request::JoinGroupRequestProtocol;
use crate::codec::messages::leave_group_request::MemberIdentity;
use crate::codec::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::codec::messages::offset_fetch_request::OffsetFetchRequestTopic;
use crate::codec::messages::sync_group_request::SyncGroupRequestAssignment;
use crate::codec::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use crate::codec::{self, ErrorCode, StrBytes, Subscription};

const FETCH_VERSION: i16 = 7;
const COMMIT_VERSION: i16 = 7;
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;
const LEAVE_VERSION: i16 = 3;
const PROTOCOL_TYPE: &str = "consumer";
/// The name of the way in which partitions are spread, which all members must share.
const PROTOCOL: &str = "range";
/// The generation of somebody who commits without being a member.
const NO_GENERATION: i32 = -1;

/// A topic's name and a partition.
pub type Partition = (Arc<str>, u32);

/// How a group is joined.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The group.
    pub group: String,
    /// Topics that this member wants partitions of.
    pub topics: Vec<Arc<str>>,
    /// A member that is silent for so long is taken for gone.
    pub session_timeout: Duration,
    /// Longest time that the others wait for a member to join again.
    pub rebalance_timeout: Duration,
}

/// A member of one generation of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The group.
    pub group: String,
    /// The name that the broker gave.
    pub id: String,
    /// Counts rebalances.
    pub generation: i32,
}

/// What a generation gave to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Who it is for.
    pub member: Member,
    /// Its partitions, sorted.
    pub partitions: Vec<Partition>,
}

impl Client {
    /// The next offset to read for a group, of each partition for which it ever committed one.
    ///
    /// # Errors
    /// [`ClientError`]; code 88 while an open transaction holds one of them.
    pub async fn committed(
        &self,
        group: &str,
        of: &[Partition],
    ) -> Result<BTreeMap<Partition, i64>, ClientError> {
        let topics = of.chunk_by(|a, b| a.0 == b.0).map(|same| {
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(&same[0].0))
                .with_partition_indexes(same.iter().map(|(_, p)| *p as i32).collect())
        });
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(topics.collect()))
            .with_require_stable(true);
        let answer = self.call(FETCH_VERSION, &request, Duration::ZERO).await?;
        let what = format!("look up the offsets of group {group:?}");
        ClientError::check(&what, answer.error_code, None)?;
        let mut offsets = BTreeMap::new();
        for topic in answer.topics {
            let name: Arc<str> = topic.name.0.as_str().into();
            for partition in topic.partitions {
                ClientError::check(&what, partition.error_code, None)?;
                if partition.committed_offset >= 0 {
                    let key = (name.clone(), partition.partition_index as u32);
                    offsets.insert(key, partition.committed_offset);
                }
            }
        }
        Ok(offsets)
    }

    /// Stores the next offsets to read. As a member, only while its generation lasts.
    ///
    /// # Errors
    /// [`ClientError`]; the first one when several partitions are refused. See
    /// [`ClientError::is_rebalance`].
    pub async fn commit(
        &self,
        group: &str,
        member: Option<&Member>,
        next: &[(Partition, i64)],
    ) -> Result<(), ClientError> {
        let topics = next.chunk_by(|a, b| a.0.0 == b.0.0).map(|same| {
            let partitions = same.iter().map(|((_, partition), offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition as i32)
                    .with_committed_offset(*offset)
            });
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(&same[0].0.0))
                .with_partitions(partitions.collect())
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(member.map_or(NO_GENERATION, |m| m.generation))
            .with_member_id(text(member.map_or("", |m| &m.id)))
            .with_topics(topics.collect());
        let answer = self.call(COMMIT_VERSION, &request, Duration::ZERO).await?;
        let what = format!("commit offsets of group {group:?}");
        let partitions = answer.topics.iter().flat_map(|t| &t.partitions);
        for partition in partitions {
            ClientError::check(&what, partition.error_code, None)?;
        }
        Ok(())
    }

    /// Joins a group, or joins it again after a rebalance, and waits until every member knows what
    /// is its own. `known` is the name from before, if there was one.
    ///
    /// # Errors
    /// [`ClientError`]; when [`ClientError::is_rebalance`], to be tried again at once.
    ///
    /// # Cancellation
    /// The broker takes the member for gone after its session timeout.
    pub async fn join(
        &self,
        options: &JoinOptions,
        known: Option<&str>,
    ) -> Result<Assignment, ClientError> {
        let (member, members) = match self.join_as(options, known.unwrap_or("")).await? {
            Joined::Member(member, members) => (member, members),
            // Who comes without a name is given one, and asked to come again with it.
            Joined::Named(id) => match self.join_as(options, &id).await? {
                Joined::Member(member, members) => (member, members),
                Joined::Named(_) => {
                    return Err(ClientError::Protocol {
                        address: self.address().to_owned(),
                        reason: "a group member was named twice".to_owned(),
                    });
                }
            },
        };
        let assignments = match members.is_empty() {
            true => Vec::new(),
            false => self.assignments(members).await?,
        };
        self.sync(member, assignments).await
    }

    async fn join_as(&self, options: &JoinOptions, id: &str) -> Result<Joined, ClientError> {
        let subscription =
            codec::write_subscription(&options.topics).map_err(|e| self.confused(&e))?;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(PROTOCOL))
            .with_metadata(subscription);
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(&options.group))
            .with_session_timeout_ms(ms(options.session_timeout))
            .with_rebalance_timeout_ms(ms(options.rebalance_timeout))
            .with_member_id(text(id))
            .with_protocol_type(text(PROTOCOL_TYPE))
            .with_protocols(vec![protocol]);
        let wait = options.rebalance_timeout;
        let answer = self.call(JOIN_VERSION, &request, wait).await?;
        if answer.error_code == ErrorCode::MemberIdRequired.code() {
            return Ok(Joined::Named(answer.member_id.to_string()));
        }
        ClientError::check(
            &format!("join group {:?}", options.group),
            answer.error_code,
            None,
        )?;
        let mut members = Vec::with_capacity(answer.members.len());
        for member in answer.members {
            let subscription =
                codec::read_subscription(member.metadata).map_err(|e| self.confused(&e))?;
            members.push((member.member_id.to_string(), subscription));
        }
        let member = Member {
            group: options.group.clone(),
            id: answer.member_id.to_string(),
            generation: answer.generation_id,
        };
        Ok(Joined::Member(member, members))
    }

    /// The leader's work: every member's partitions.
    async fn assignments(
        &self,
        members: Vec<(String, Subscription)>,
    ) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let partitions = self.topics().await?;
        let mut assignments = Vec::with_capacity(members.len());
        for (id, partitions) in spread(&members, &partitions) {
            let assignment = codec::write_assignment(&partitions).map_err(|e| self.confused(&e))?;
            assignments.push(
                SyncGroupRequestAssignment::default()
                    .with_member_id(text(&id))
                    .with_assignment(assignment),
            );
        }
        Ok(assignments)
    }

    async fn sync(
        &self,
        member: Member,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Assignment, ClientError> {
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(&member.group))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id))
            .with_assignments(assignments);
        // The leader may take its time.
        let wait = self.options.timeout;
        let answer = self.call(SYNC_VERSION, &request, wait).await?;
        ClientError::check(
            &format!("join group {:?}", member.group),
            answer.error_code,
            None,
        )?;
        let partitions =
            codec::read_assignment(answer.assignment).map_err(|e| self.confused(&e))?;
        Ok(Assignment { member, partitions })
    }

    /// Says that the member is there.
    ///
    /// # Errors
    /// [`ClientError`]; when [`ClientError::is_rebalance`], it has to join again.
    pub async fn heartbeat(&self, member: &Member) -> Result<(), ClientError> {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&member.group))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id));
        let answer = self
            .call(HEARTBEAT_VERSION, &request, Duration::ZERO)
            .await?;
        ClientError::check(
            &format!("stay in group {:?}", member.group),
            answer.error_code,
            None,
        )
    }

    /// Leaves, so that the others take over at once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn leave(&self, member: &Member) -> Result<(), ClientError> {
        let leaving = MemberIdentity::default().with_member_id(text(&member.id));
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id(&member.group))
            .with_members(vec![leaving]);
        let answer = self.call(LEAVE_VERSION, &request, Duration::ZERO).await?;
        ClientError::check(
            &format!("leave group {:?}", member.group),
            answer.error_code,
            None,
        )
    }
}

impl ClientError {
    /// Whether the group has moved on without this member: it has to join again, under its old name
    /// unless [`ClientError::is_forgotten`].
    pub fn is_rebalance(&self) -> bool {
        let moved_on = [
            ErrorCode::RebalanceInProgress,
            ErrorCode::IllegalGeneration,
            ErrorCode::UnknownMemberId,
        ];
        self.code()
            .is_some_and(|code| moved_on.iter().any(|e| e.code() == code))
    }

    /// Whether the group does not know this member any more.
    pub fn is_forgotten(&self) -> bool {
        self.code() == Some(ErrorCode::UnknownMemberId.code())
    }
}

enum Joined {
    /// A member; the leader is told of all of them.
    Member(Member, Vec<(String, Subscription)>),
    /// The name under which to come again.
    Named(String),
}

/// Kafka's range assignment: of each topic, consecutive partitions to each member that wants the
/// topic, in the order of their names; the first ones get one more when it does not come out even.
fn spread(
    members: &[(String, Subscription)],
    topics: &TopicPartitions,
) -> BTreeMap<String, Vec<Partition>> {
    let mut spread: BTreeMap<String, Vec<Partition>> = members
        .iter()
        .map(|(id, _)| (id.clone(), Vec::new()))
        .collect();
    for (topic, &partitions) in topics {
        let mut takers: Vec<&str> = members
            .iter()
            .filter(|(_, wanted)| wanted.contains(topic))
            .map(|(id, _)| id.as_str())
            .collect();
        takers.sort_unstable();
        let mut next = 0;
        for (place, id) in takers.iter().enumerate() {
            let count = partitions as usize;
            let share = count / takers.len() + usize::from(place < count % takers.len());
            let until = next + share as u32;
            if let Some(own) = spread.get_mut(*id) {
                own.extend((next..until).map(|partition| (topic.clone(), partition)));
            }
            next = until;
        }
    }
    spread
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(wanted: &[(&str, &[&str])]) -> Vec<(String, Subscription)> {
        let of = |(id, topics): &(&str, &[&str])| {
            let topics = topics.iter().map(|&t| t.into()).collect();
            ((*id).to_owned(), topics)
        };
        wanted.iter().map(of).collect()
    }

    #[test]
    fn every_partition_goes_to_one_member_that_wants_its_topic() {
        let members = members(&[("b", &["t", "u"]), ("a", &["t"]), ("c", &["t"])]);
        let topics = [("t".into(), 7), ("u".into(), 2), ("v".into(), 5)].into();
        let spread = spread(&members, &topics);
        let of =
            |id: &str| -> Vec<(&str, u32)> { spread[id].iter().map(|(t, p)| (&**t, *p)).collect() };
        assert_eq!(of("a"), [("t", 0), ("t", 1), ("t", 2)]);
        assert_eq!(of("b"), [("t", 3), ("t", 4), ("u", 0), ("u", 1)]);
        assert_eq!(of("c"), [("t", 5), ("t", 6)]);
    }

    #[test]
    fn a_member_that_is_left_over_gets_nothing_and_is_told_so() {
        let members = members(&[("a", &["t"]), ("b", &["t"])]);
        let spread = spread(&members, &[("t".into(), 1)].into());
        assert_eq!(spread["a"].len(), 1);
        assert_eq!(spread["b"], []);
    }
}
