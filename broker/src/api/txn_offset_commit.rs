//! TxnOffsetCommit: the offsets that a group has from the transaction's commit on.

use super::Call;
use super::group::{check_access, code, group_error, member, name};
use super::offset_commit::wanted_commit;
use super::transaction::{check_id, producer, transaction_error};
use crate::codec::ErrorCode;
use crate::codec::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use crate::codec::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use crate::group::Commit;
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let admitted = check(call, &request);
    let (mut commits, mut outcomes) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let allowed = call.authorize(Operation::Read, Resource::Topic(&topic.name));
        let topic_name = name(&topic.name);
        for wanted in &topic.partitions {
            let outcome = match (admitted, allowed) {
                (Err(error), _) => Err(error),
                (Ok(()), false) => Err(ErrorCode::TopicAuthorizationFailed),
                (Ok(()), true) => wanted_commit(
                    call,
                    &topic_name,
                    wanted.partition_index,
                    wanted.committed_offset,
                    wanted.committed_leader_epoch,
                    wanted.committed_metadata.as_deref().unwrap_or_default(),
                ),
            };
            outcomes.push(outcome.map(|commit| commits.push(commit)));
        }
    }
    let stored = match commits.is_empty() {
        true => Ok(()),
        false => store(call, &request, &commits).await,
    };
    answer(request, outcomes, stored)
}

/// Whether anything may be committed at all.
fn check(call: &Call<'_>, request: &TxnOffsetCommitRequest) -> Result<(), ErrorCode> {
    check_id(call, Operation::Write, &request.transactional_id)?;
    check_access(call, Operation::Read, &request.group_id)?;
    let commit = Commit {
        member: member(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        transactional: true,
    };
    let groups = &call.shared.groups;
    let checked = groups.check_commit(&name(&request.group_id), &commit);
    checked.map_err(group_error)
}

async fn store(
    call: &Call<'_>,
    request: &TxnOffsetCommitRequest,
    commits: &[outbox_log_broker::OffsetCommit],
) -> Result<(), ErrorCode> {
    let (id, group) = (&*request.transactional_id, &*request.group_id);
    let producer = producer(request.producer_id, request.producer_epoch);
    let log = &call.shared.log;
    let stored = log.transaction_commit_offsets(id, producer, group, commits);
    stored.await.map_err(|error| {
        tracing::warn!(%error, "a transaction did not get its offsets");
        // No version of this request has another word for a producer that is shut out.
        transaction_error(&error, ErrorCode::InvalidProducerEpoch)
    })
}

fn answer(
    request: TxnOffsetCommitRequest,
    outcomes: Vec<Result<(), ErrorCode>>,
    stored: Result<(), ErrorCode>,
) -> TxnOffsetCommitResponse {
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let outcomes = topic.partitions.iter().zip(outcomes.by_ref());
        let partitions = outcomes.map(|(partition, outcome)| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(outcome.and(stored)))
        });
        TxnOffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}
