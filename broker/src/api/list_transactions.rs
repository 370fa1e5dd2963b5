//! ListTransactions: the transactional ids, or some of them.

use std::time::{SystemTime, UNIX_EPOCH};

use outbox_log_broker::TransactionDescription;

use super::Call;
use super::group::text;
use super::transaction::{STATES, check_id, state};
use crate::codec::StrBytes;
use crate::codec::messages::list_transactions_response::TransactionState;
use crate::codec::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use crate::security::Operation;

pub(super) async fn handle(
    call: &Call<'_>,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now_ms.map_or(0, |d| d.as_millis() as i64);
    let all = call.shared.log.transactions();
    let wanted = all.iter().filter(|t| {
        is_wanted(&request, t, now_ms)
            && check_id(call, Operation::Describe, &t.transactional_id).is_ok()
    });
    let states = wanted.map(|t| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(&t.transactional_id)))
            .with_producer_id(ProducerId(t.producer.id))
            .with_transaction_state(StrBytes::from_static_str(state(t)))
    });
    let states = states.collect();
    let filters = request.state_filters.into_iter();
    let unknown = filters.filter(|state| !STATES.contains(&&**state));
    ListTransactionsResponse::default()
        .with_transaction_states(states)
        .with_unknown_state_filters(unknown.collect())
}

/// Whether a transactional id passes every filter that is set.
fn is_wanted(
    request: &ListTransactionsRequest,
    transaction: &TransactionDescription,
    now_ms: i64,
) -> bool {
    let states = &request.state_filters;
    let producers = &request.producer_id_filters;
    let longer = request.duration_filter;
    let open_ms = transaction.started_ms.map(|started| now_ms - started);
    (states.is_empty() || states.iter().any(|s| **s == *state(transaction)))
        && (producers.is_empty() || producers.contains(&ProducerId(transaction.producer.id)))
        && (longer < 0 || open_ms.is_some_and(|open_ms| open_ms > longer))
}
