//! EndTxn: the transaction is committed or aborted, in one sync.

use super::Call;
use super::group::code;
use super::transaction::{check_id, fenced, producer, transaction_error};
use crate::codec::ErrorCode;
use crate::codec::messages::{EndTxnRequest, EndTxnResponse};
use crate::security::Operation;

/// The first version that knows [`ErrorCode::ProducerFenced`].
const FENCED_FROM: i16 = 2;

pub(super) async fn handle(call: &Call<'_>, request: EndTxnRequest) -> EndTxnResponse {
    let ended = end(call, &request).await;
    EndTxnResponse::default().with_error_code(code(ended))
}

async fn end(call: &Call<'_>, request: &EndTxnRequest) -> Result<(), ErrorCode> {
    let id = &*request.transactional_id;
    check_id(call, Operation::Write, id)?;
    let producer = producer(request.producer_id, request.producer_epoch);
    let log = &call.shared.log;
    let ended = log.transaction_end(id, producer, request.committed);
    ended.await.map_err(|error| {
        tracing::warn!(%error, "a transaction was not ended");
        transaction_error(&error, fenced(call.version, FENCED_FROM))
    })
}
