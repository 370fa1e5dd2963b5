//! AddPartitionsToTxn: partitions become part of a transaction, all of them or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Call;
use super::group::{code, name};
use super::transaction::{check_id, fenced, producer, transaction_error};
use crate::codec::ErrorCode;
use crate::codec::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use crate::codec::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use crate::codec::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use crate::security::{Operation, Resource};

/// The first version that knows [`ErrorCode::ProducerFenced`].
const FENCED_FROM: i16 = 2;

type Partition = (Arc<str>, u32);

pub(super) async fn handle(
    call: &Call<'_>,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let partitions: Vec<Partition> = partitions(&request.v3_and_below_topics).collect();
    let refused = refused(call, &partitions);
    let added = match refused.is_empty() {
        true => add(call, &request, &partitions).await,
        // The others are left as they were.
        false => Err(ErrorCode::OperationNotAttempted),
    };
    let results = request.v3_and_below_topics.iter().map(|topic| {
        let topic_name = name(&topic.name);
        let results = topic.partitions.iter().map(|&index| {
            let own = refused.get(&(topic_name.clone(), index as u32));
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code(own.map_or(added, |error| Err(*error))))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_results_by_partition(results.collect())
            .with_name(topic.name.clone())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

fn partitions(topics: &[AddPartitionsToTxnTopic]) -> impl Iterator<Item = Partition> + '_ {
    topics.iter().flat_map(|topic| {
        let name = name(&topic.name);
        let indexes = topic.partitions.iter();
        indexes.map(move |&index| (name.clone(), index as u32))
    })
}

/// The partitions that cannot be added, and why.
fn refused(call: &Call<'_>, partitions: &[Partition]) -> BTreeMap<Partition, ErrorCode> {
    let log = &call.shared.log;
    let why = |(topic, partition): &Partition| {
        if !call.authorize(Operation::Write, Resource::Topic(topic)) {
            Some(ErrorCode::TopicAuthorizationFailed)
        } else if log.offsets(topic, *partition).is_err() {
            Some(ErrorCode::UnknownTopicOrPartition)
        } else {
            None
        }
    };
    let refused = partitions.iter().filter_map(|p| Some((p.clone(), why(p)?)));
    refused.collect()
}

async fn add(
    call: &Call<'_>,
    request: &AddPartitionsToTxnRequest,
    partitions: &[Partition],
) -> Result<(), ErrorCode> {
    let id = &*request.v3_and_below_transactional_id;
    check_id(call, Operation::Write, id)?;
    let producer = producer(
        request.v3_and_below_producer_id,
        request.v3_and_below_producer_epoch,
    );
    let log = &call.shared.log;
    let added = log.transaction_add_partitions(id, producer, partitions);
    added.await.map_err(|error| {
        tracing::warn!(%error, "a transaction did not get its partitions");
        transaction_error(&error, fenced(call.version, FENCED_FROM))
    })
}
