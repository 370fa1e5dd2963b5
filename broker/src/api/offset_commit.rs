//! OffsetCommit: a group's next offsets to read, durably.

use std::sync::Arc;

use outbox_log_broker::{OffsetCommit, limits};

use super::Call;
use super::group::{check_access, code, group_error, member, name, offsets_error};
use crate::codec::ErrorCode;
use crate::codec::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::codec::messages::{OffsetCommitRequest, OffsetCommitResponse};
use crate::group::Commit;
use crate::security::{Operation, Resource};

pub(super) async fn handle(call: &Call<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let admitted = check(call, &request);
    let mut commits = Vec::new();
    // For each partition of each topic: why not, so far.
    let mut outcomes = Vec::new();
    for topic in &request.topics {
        let allowed = call.authorize(Operation::Read, Resource::Topic(&topic.name));
        let allowed = allowed
            .then_some(())
            .ok_or(ErrorCode::TopicAuthorizationFailed);
        let topic_name = name(&topic.name);
        outcomes.push(
            topic
                .partitions
                .iter()
                .map(|partition| {
                    admitted.and(allowed)?;
                    commits.push(wanted_commit(
                        call,
                        &topic_name,
                        partition.partition_index,
                        partition.committed_offset,
                        partition.committed_leader_epoch,
                        partition.committed_metadata.as_deref().unwrap_or_default(),
                    )?);
                    Ok(())
                })
                .collect::<Vec<Result<(), ErrorCode>>>(),
        );
    }
    let stored = match commits.is_empty() {
        true => Ok(()),
        false => call.shared.log.commit(&request.group_id, &commits).await,
    };
    let stored = stored.map_err(|error| {
        tracing::warn!(group = %&*request.group_id, %error, "a group's offsets were not stored");
        offsets_error(&error)
    });
    let topics = request
        .topics
        .into_iter()
        .zip(outcomes)
        .map(|(topic, outcomes)| {
            let partitions = topic
                .partitions
                .iter()
                .zip(outcomes)
                .map(|(partition, outcome)| {
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code(outcome.and(stored)))
                });
            OffsetCommitResponseTopic::default()
                .with_partitions(partitions.collect())
                .with_name(topic.name)
        });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Whether anything may be committed at all.
fn check(call: &Call<'_>, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    check_access(call, Operation::Read, &request.group_id)?;
    let commit = Commit {
        member: member(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        transactional: false,
    };
    let checked = call
        .shared
        .groups
        .check_commit(&name(&request.group_id), &commit);
    checked.map_err(group_error)
}

/// A commit that a request asks for, if it makes sense.
pub(super) fn wanted_commit(
    call: &Call<'_>,
    topic: &Arc<str>,
    partition: i32,
    next_offset: i64,
    leader_epoch: i32,
    metadata: &str,
) -> Result<OffsetCommit, ErrorCode> {
    let partition = partition as u32;
    if call.shared.log.offsets(topic, partition).is_err() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    if next_offset < 0 {
        return Err(ErrorCode::InvalidRequest);
    }
    if metadata.len() > limits::OFFSET_METADATA_BYTES_MAX {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    Ok(OffsetCommit {
        topic: topic.clone(),
        partition,
        next_offset,
        leader_epoch: (leader_epoch >= 0).then_some(leader_epoch),
        metadata: metadata.into(),
    })
}
