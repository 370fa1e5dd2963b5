//! AddOffsetsToTxn: a group's offsets become part of a transaction.

use super::Call;
use super::group::{check_access, code};
use super::transaction::{check_id, fenced, producer, transaction_error};
use crate::codec::ErrorCode;
use crate::codec::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use crate::security::Operation;

/// The first version that knows [`ErrorCode::ProducerFenced`].
const FENCED_FROM: i16 = 2;

pub(super) async fn handle(
    call: &Call<'_>,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let added = add(call, &request).await;
    AddOffsetsToTxnResponse::default().with_error_code(code(added))
}

async fn add(call: &Call<'_>, request: &AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    let (id, group) = (&*request.transactional_id, &*request.group_id);
    check_id(call, Operation::Write, id)?;
    check_access(call, Operation::Read, group)?;
    let producer = producer(request.producer_id, request.producer_epoch);
    let added = call.shared.log.transaction_add_group(id, producer, group);
    added.await.map_err(|error| {
        tracing::warn!(%error, "a transaction did not get its group");
        transaction_error(&error, fenced(call.version, FENCED_FROM))
    })
}
