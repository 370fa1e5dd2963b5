//! DescribeTransactions: where transactional ids stand.

use std::collections::{BTreeMap, BTreeSet};

use outbox_log_broker::TransactionDescription;

use super::Call;
use super::group::{code, text};
use super::transaction::{check_id, state};
use crate::codec::messages::describe_transactions_response::{TopicData, TransactionState};
use crate::codec::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    // Each of them once, so that an answer is not many times its request.
    let ids: BTreeSet<TransactionalId> = request.transactional_ids.into_iter().collect();
    let states = ids.into_iter().map(|id| match find(call, &id) {
        Ok(found) => described(call, id, &found),
        Err(error) => TransactionState::default()
            .with_error_code(code(Err(error)))
            .with_transactional_id(id),
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn find(call: &Call<'_>, id: &str) -> Result<TransactionDescription, ErrorCode> {
    check_id(call, Operation::Describe, id)?;
    let found = call.shared.log.transaction(id);
    found.ok_or(ErrorCode::TransactionalIdNotFound)
}

fn described(
    call: &Call<'_>,
    id: TransactionalId,
    found: &TransactionDescription,
) -> TransactionState {
    let mut topics = BTreeMap::<_, Vec<i32>>::new();
    for (topic, partition) in &found.partitions {
        if call.authorize(Operation::Describe, Resource::Topic(topic)) {
            topics.entry(topic).or_default().push(*partition as i32);
        }
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    TransactionState::default()
        .with_transactional_id(id)
        .with_transaction_state(StrBytes::from_static_str(state(found)))
        .with_transaction_timeout_ms(i32::try_from(found.timeout_ms).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(found.started_ms.unwrap_or(-1))
        .with_producer_id(ProducerId(found.producer.id))
        .with_producer_epoch(found.producer.epoch)
        .with_topics(topics.collect())
}
