//! DescribeProducers: who appends to a partition, and whose transaction is open there.

use outbox_log_broker::ProducerDescription;

use super::Call;
use super::error::fetch_error;
use super::group::code;
use crate::codec::ErrorCode;
use crate::codec::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use crate::codec::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = call.authorize(Operation::Read, Resource::Topic(&topic.name));
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let found = match allowed {
                true => call.shared.log.producers(&topic.name, index as u32),
                false => return failed(index, ErrorCode::TopicAuthorizationFailed),
            };
            match found {
                Ok(found) => PartitionResponse::default()
                    .with_partition_index(index)
                    .with_active_producers(found.iter().map(producer).collect()),
                Err(error) => failed(index, fetch_error(&error)),
            }
        });
        TopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producer(found: &ProducerDescription) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(found.producer.id))
        .with_producer_epoch(i32::from(found.producer.epoch))
        .with_last_sequence(found.last_sequence.unwrap_or(-1))
        .with_last_timestamp(found.appended_ms)
        // There is one coordinator, and never another.
        .with_coordinator_epoch(0)
        .with_current_txn_start_offset(found.transaction_first_offset.unwrap_or(-1))
}

fn failed(index: i32, error: ErrorCode) -> PartitionResponse {
    PartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code(Err(error)))
}
