//! OffsetForLeaderEpoch: where the records of an epoch end. There is one epoch, 0.

use super::Call;
use super::error::fetch_error;
use crate::codec::ErrorCode;
use crate::codec::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use crate::codec::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use crate::codec::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use crate::security::{Operation, Resource};

/// Nothing is known about the epoch.
const UNDEFINED: (i32, i64) = (-1, -1);

pub(super) async fn handle(
    call: &Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = call.authorize(Operation::Describe, Resource::Topic(&topic.topic));
        let partitions = topic.partitions.iter().map(|partition| {
            let found = match allowed {
                true => end_of_epoch(call, &topic.topic, partition),
                false => Err(ErrorCode::TopicAuthorizationFailed),
            };
            let (epoch, end) = found.unwrap_or(UNDEFINED);
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(found.map_or_else(|error| error.code(), |_| 0))
                .with_leader_epoch(epoch)
                .with_end_offset(end)
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of_epoch(
    call: &Call<'_>,
    topic: &str,
    partition: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    if partition.current_leader_epoch > 0 {
        return Err(ErrorCode::UnknownLeaderEpoch);
    }
    let index = u32::try_from(partition.partition);
    let index = index.map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    let offsets = call.shared.log.offsets(topic, index);
    let (_, end) = offsets.map_err(|error| fetch_error(&error))?;
    Ok(match partition.leader_epoch {
        0 => (0, end),
        _ => UNDEFINED,
    })
}
