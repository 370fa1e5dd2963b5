//! InitProducerId: an id for a producer, and a new epoch for a transactional one.

use outbox_log_broker::Producer;

use super::Call;
use super::transaction::{check_id, fenced, transaction_error};
use crate::codec::ErrorCode;
use crate::codec::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use crate::security::Operation;

/// The first version that knows [`ErrorCode::ProducerFenced`].
const FENCED_FROM: i16 = 4;
/// Stands for no producer.
const NONE: i64 = -1;

pub(super) async fn handle(
    call: &Call<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    match init(call, &request).await {
        Ok(producer) => response
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(error) => response
            .with_error_code(error.code())
            .with_producer_id(ProducerId(NONE))
            .with_producer_epoch(-1),
    }
}

async fn init(call: &Call<'_>, request: &InitProducerIdRequest) -> Result<Producer, ErrorCode> {
    let id = request.transactional_id.as_deref();
    if let Some(id) = id {
        check_id(call, Operation::Write, id)?;
    }
    let current = current(request)?;
    let timeout_ms = match (u32::try_from(request.transaction_timeout_ms), id) {
        (Ok(timeout_ms), _) => timeout_ms,
        // Of no meaning then.
        (Err(_), None) => 0,
        (Err(_), Some(_)) => return Err(ErrorCode::InvalidTransactionTimeout),
    };
    let log = &call.shared.log;
    log.init_producer(id.map(|id| &**id), timeout_ms, current)
        .await
        .map_err(|error| {
            tracing::warn!(%error, "no id for a producer");
            transaction_error(&error, fenced(call.version, FENCED_FROM))
        })
}

/// Who the client is, if it says so.
fn current(request: &InitProducerIdRequest) -> Result<Option<Producer>, ErrorCode> {
    match (request.producer_id.0, request.producer_epoch) {
        (NONE, -1) => Ok(None),
        (id @ 0.., epoch @ 0..) => Ok(Some(Producer { id, epoch })),
        _ => Err(ErrorCode::InvalidRequest),
    }
}
