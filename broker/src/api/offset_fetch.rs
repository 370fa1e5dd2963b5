//! OffsetFetch: what groups have committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outbox_log_broker::CommittedOffset;

use super::Call;
use super::group::{check_access, code, name, text};
use crate::codec::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::codec::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};

/// The first version whose answer has an error of its own.
const OWN_ERROR: i16 = 2;
/// The first version that tells the leader's epoch.
const LEADER_EPOCH: i16 = 5;
/// The first version that asks for several groups.
const SEVERAL: i16 = 8;

/// The partitions asked for, each once, so that an answer is not many times its request; none for
/// all that the group has committed.
type Wanted = Option<BTreeMap<Arc<str>, BTreeSet<i32>>>;
/// What was found, by topic.
type Found = BTreeMap<Arc<str>, Vec<FoundOffset>>;

struct FoundOffset {
    partition: i32,
    result: Result<Option<CommittedOffset>, ErrorCode>,
}

pub(super) async fn handle(call: &Call<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version < SEVERAL {
        let topics = request.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| (topic.name, topic.partition_indexes))
        });
        let (found, error) = fetch(
            call,
            &request.group_id,
            wanted(topics),
            request.require_stable,
        );
        let topics = found.into_iter().map(|(topic, offsets)| {
            let partitions = offsets.into_iter().map(|offset| partition(call, offset));
            OffsetFetchResponseTopic::default()
                .with_name(TopicName(text(&topic)))
                .with_partitions(partitions.collect())
        });
        let own = if call.version >= OWN_ERROR {
            code(error)
        } else {
            0
        };
        return OffsetFetchResponse::default()
            .with_topics(topics.collect())
            .with_error_code(own);
    }
    let mut seen = BTreeSet::new();
    let groups = request.groups.into_iter();
    let groups = groups
        .filter(|group| seen.insert(name(&group.group_id)))
        .map(|group| {
            let topics = group.topics.map(|topics| {
                topics
                    .into_iter()
                    .map(|topic| (topic.name, topic.partition_indexes))
            });
            let (found, error) = fetch(
                call,
                &group.group_id,
                wanted(topics),
                request.require_stable,
            );
            let topics = found.into_iter().map(|(topic, offsets)| {
                OffsetFetchResponseTopics::default()
                    .with_name(TopicName(text(&topic)))
                    .with_partitions(offsets.into_iter().map(partition_of_group).collect())
            });
            OffsetFetchResponseGroup::default()
                .with_topics(topics.collect())
                .with_error_code(code(error))
                .with_group_id(group.group_id)
        });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

fn wanted(topics: Option<impl Iterator<Item = (TopicName, Vec<i32>)>>) -> Wanted {
    let topics = topics?;
    let mut wanted: BTreeMap<Arc<str>, BTreeSet<i32>> = BTreeMap::new();
    for (topic, partitions) in topics {
        wanted.entry(name(&topic)).or_default().extend(partitions);
    }
    Some(wanted)
}

/// Looks up what is wanted. When the group may not be looked at, that is every partition's answer
/// too, for the first version has no other place to say so.
fn fetch(
    call: &Call<'_>,
    group: &str,
    wanted: Wanted,
    stable: bool,
) -> (Found, Result<(), ErrorCode>) {
    let allowed = check_access(call, Operation::Describe, group);
    let may_see = |topic: &str| call.authorize(Operation::Describe, Resource::Topic(topic));
    let log = &call.shared.log;
    // Whoever wants stable offsets waits for open transactions.
    let pending = if stable {
        log.pending_offsets(group)
    } else {
        BTreeSet::new()
    };
    let unstable = |topic: &Arc<str>, partition: u32| pending.contains(&(topic.clone(), partition));
    let mut found = Found::new();
    let Some(wanted) = wanted else {
        let all = if allowed.is_ok() {
            log.group_offsets(group)
        } else {
            Vec::new()
        };
        for (topic, partition, offset) in all {
            if may_see(&topic) {
                let result = match unstable(&topic, partition) {
                    true => Err(ErrorCode::UnstableOffsetCommit),
                    false => Ok(Some(offset)),
                };
                let partition = partition as i32;
                let offsets = found.entry(topic).or_default();
                offsets.push(FoundOffset { partition, result });
            }
        }
        return (found, allowed);
    };
    for (topic, partitions) in wanted {
        let visible = may_see(&topic).then_some(());
        let visible = visible.ok_or(ErrorCode::TopicAuthorizationFailed);
        let offsets = partitions.into_iter().map(|partition| FoundOffset {
            partition,
            result: allowed
                .and(visible)
                .and_then(|()| match unstable(&topic, partition as u32) {
                    true => Err(ErrorCode::UnstableOffsetCommit),
                    false => Ok(log.committed(group, &topic, partition as u32)),
                }),
        });
        found.insert(topic.clone(), offsets.collect());
    }
    (found, allowed)
}

/// Offset, leader's epoch, metadata and error, on the wire.
fn fields(offset: FoundOffset) -> (i64, i32, StrBytes, i16) {
    match offset.result {
        Ok(Some(found)) => {
            let epoch = found.leader_epoch.unwrap_or(-1);
            (found.next_offset, epoch, text(&found.metadata), 0)
        }
        Ok(None) => (-1, -1, StrBytes::default(), 0),
        Err(error) => (-1, -1, StrBytes::default(), error.code()),
    }
}

fn partition(call: &Call<'_>, offset: FoundOffset) -> OffsetFetchResponsePartition {
    let index = offset.partition;
    let (next, epoch, metadata, error) = fields(offset);
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(next)
        .with_committed_leader_epoch(if call.version >= LEADER_EPOCH {
            epoch
        } else {
            -1
        })
        .with_metadata(Some(metadata))
        .with_error_code(error)
}

fn partition_of_group(offset: FoundOffset) -> OffsetFetchResponsePartitions {
    let index = offset.partition;
    let (next, epoch, metadata, error) = fields(offset);
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(next)
        .with_committed_leader_epoch(epoch)
        .with_metadata(Some(metadata))
        .with_error_code(error)
}
