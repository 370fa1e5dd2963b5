//! OffsetDelete: offsets that a group has committed, unless its members read the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Call;
use super::group::{check_access, code, group_error, name, offsets_error, text};
use crate::codec::ErrorCode;
use crate::codec::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::codec::messages::{OffsetDeleteRequest, OffsetDeleteResponse, TopicName};
use crate::group::Subscribed;
use crate::security::{Operation, Resource};

pub(super) async fn handle(call: &Call<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let group = name(&request.group_id);
    let subscribed = match check(call, &group) {
        Ok(subscribed) => subscribed,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let mut wanted: BTreeMap<Arc<str>, BTreeSet<i32>> = BTreeMap::new();
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|p| p.partition_index);
        wanted
            .entry(name(&topic.name))
            .or_default()
            .extend(partitions);
    }
    let mut deleted = Vec::new();
    for (topic, partitions) in &wanted {
        if check_topic(call, &subscribed, topic).is_ok() {
            let known = partitions.iter().filter(|p| exists(call, topic, **p));
            deleted.extend(known.map(|p| (topic.clone(), *p as u32)));
        }
    }
    let stored = call.shared.log.delete_group_offsets(&group, &deleted).await;
    let stored = stored.map_err(|error| offsets_error(&error));
    let topics = wanted.into_iter().map(|(topic, partitions)| {
        let allowed = check_topic(call, &subscribed, &topic);
        let partitions = partitions.into_iter().map(|partition| {
            let known = exists(call, &topic, partition);
            let known = known
                .then_some(())
                .ok_or(ErrorCode::UnknownTopicOrPartition);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(code(allowed.and(known).and(stored)))
        });
        OffsetDeleteResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(TopicName(text(&topic)))
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

fn check(call: &Call<'_>, group: &Arc<str>) -> Result<Subscribed, ErrorCode> {
    check_access(call, Operation::Delete, group)?;
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let groups = &call.shared.groups;
    let known = groups.state(group).is_some();
    if !known && call.shared.log.group_offsets(group).is_empty() {
        return Err(ErrorCode::GroupIdNotFound);
    }
    groups.subscribed(group).map_err(group_error)
}

fn check_topic(call: &Call<'_>, subscribed: &Subscribed, topic: &str) -> Result<(), ErrorCode> {
    if !call.authorize(Operation::Read, Resource::Topic(topic)) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    match subscribed.contains(topic) {
        true => Err(ErrorCode::GroupSubscribedToTopic),
        false => Ok(()),
    }
}

fn exists(call: &Call<'_>, topic: &str, partition: i32) -> bool {
    call.shared.log.offsets(topic, partition as u32).is_ok()
}
