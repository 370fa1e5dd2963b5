//! DeleteRecords: gives up what stands before an offset.

use outbox_log_broker::Cleanup;

use super::Call;
use super::error::append_error;
use crate::codec::messages::delete_records_request::DeleteRecordsPartition;
use crate::codec::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use crate::codec::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use crate::codec::{ErrorCode, NO_ERROR};
use crate::security::{Operation, Resource};

/// Stands for everything that is there.
const EVERYTHING: i64 = -1;

pub(super) async fn handle(
    call: &Call<'_>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let allowed = call.authorize(Operation::Delete, Resource::Topic(&topic.name));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let deleted = match allowed {
                true => delete(call, &topic.name, partition).await,
                false => Err(ErrorCode::TopicAuthorizationFailed),
            };
            partitions.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(partition.partition_index)
                    .with_low_watermark(deleted.unwrap_or(-1))
                    .with_error_code(deleted.map_or_else(|error| error.code(), |_| NO_ERROR)),
            );
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Answers the first offset that is held now.
async fn delete(
    call: &Call<'_>,
    topic: &str,
    partition: &DeleteRecordsPartition,
) -> Result<i64, ErrorCode> {
    let log = &call.shared.log;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let options = log.topic(topic).ok_or(unknown)?;
    if options.cleanup == Cleanup::Compact {
        // The newest record of each key is kept: that is what such a topic is for.
        return Err(ErrorCode::PolicyViolation);
    }
    let index = u32::try_from(partition.partition_index).map_err(|_| unknown)?;
    let (_, end) = log.offsets(topic, index).map_err(|_| unknown)?;
    let offset = match partition.offset {
        EVERYTHING => end,
        offset => offset,
    };
    let trimmed = log.trim(topic, index, offset).await;
    trimmed.map_err(|error| append_error(&error))
}
