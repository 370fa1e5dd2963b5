//! What the requests about producers and transactions share: who may, and the one mapping from the
//! log's errors.

use outbox_log_broker::{Producer, TransactionDescription, TransactionError, TransactionState};

use super::Call;
use super::group::offsets_error;
use crate::codec::ErrorCode;
use crate::codec::messages::ProducerId;
use crate::security::{Operation, Resource};

/// Why a step was not done. A producer that is shut out is told so by `fenced`, for older versions
/// know only that its epoch is of no use.
pub(super) fn transaction_error(error: &TransactionError, fenced: ErrorCode) -> ErrorCode {
    match error {
        TransactionError::Fenced { .. } => fenced,
        TransactionError::Id { .. } => ErrorCode::InvalidRequest,
        TransactionError::Timeout { .. } => ErrorCode::InvalidTransactionTimeout,
        TransactionError::UnknownProducer { .. } => ErrorCode::InvalidProducerIdMapping,
        TransactionError::State { .. } => ErrorCode::InvalidTxnState,
        TransactionError::UnknownPartition { .. } => ErrorCode::UnknownTopicOrPartition,
        TransactionError::TooManyIds
        | TransactionError::TooManyPartitions { .. }
        | TransactionError::TooManyOffsets { .. } => ErrorCode::PolicyViolation,
        TransactionError::Append(error) => offsets_error(error),
        _ => ErrorCode::UnknownServerError,
    }
}

/// How a producer is told that it is shut out, from the version on that has a word for it.
pub(super) fn fenced(version: i16, known_from: i16) -> ErrorCode {
    if version < known_from {
        ErrorCode::InvalidProducerEpoch
    } else {
        ErrorCode::ProducerFenced
    }
}

/// Whether this client may use a transactional id.
pub(super) fn check_id(call: &Call<'_>, operation: Operation, id: &str) -> Result<(), ErrorCode> {
    match call.authorize(operation, Resource::TransactionalId(id)) {
        true => Ok(()),
        false => Err(ErrorCode::TransactionalIdAuthorizationFailed),
    }
}

/// A producer as requests name it.
pub(super) fn producer(id: ProducerId, epoch: i16) -> Producer {
    Producer { id: id.0, epoch }
}

/// Where a transactional id stands, in Apache Kafka's words.
pub(super) fn state(transaction: &TransactionDescription) -> &'static str {
    match transaction.state {
        TransactionState::Empty => "Empty",
        TransactionState::Ongoing => "Ongoing",
        TransactionState::Committed => "CompleteCommit",
        TransactionState::Aborted => "CompleteAbort",
    }
}

/// The states that Apache Kafka has. The log is never in those between.
pub(super) const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];
