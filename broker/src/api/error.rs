//! The one mapping from the log's errors to those of the protocol.

use outbox_log_broker::batch::BatchError;
use outbox_log_broker::{AppendError, FetchError, TopicError};

use crate::codec::ErrorCode;

/// Why records were not stored, or a change not made.
pub(crate) fn append_error(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Batch { source, .. } => batch_error(source),
        AppendError::Invalid(_) => ErrorCode::InvalidRequest,
        AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        AppendError::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
        AppendError::Fenced { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
        // Clients take this for success.
        AppendError::OldDuplicate { .. } => ErrorCode::DuplicateSequenceNumber,
        AppendError::StaleProducer { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::UnknownProducer { .. } => ErrorCode::UnknownProducerId,
        AppendError::NotInTransaction { .. } => ErrorCode::InvalidTxnState,
        AppendError::NoTransactionalId { .. } => ErrorCode::InvalidProducerIdMapping,
        // Clients try these again: there may be room then, or another process.
        AppendError::Full(_) | AppendError::ReadOnly(_) | AppendError::Failed(_) => {
            ErrorCode::KafkaStorageError
        }
        AppendError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        AppendError::Closed => ErrorCode::NotLeaderOrFollower,
        _ => ErrorCode::UnknownServerError,
    }
}

/// Why bytes are no record batch.
pub(crate) fn batch_error(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Short { .. } | BatchError::Checksum { .. } => ErrorCode::CorruptMessage,
        BatchError::Magic { .. } => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Length { length, limit } if *length > *limit as i32 => {
            ErrorCode::MessageTooLarge
        }
        BatchError::Length { .. } => ErrorCode::CorruptMessage,
        _ => ErrorCode::InvalidRecord,
    }
}

/// Why nothing was read.
pub(crate) fn fetch_error(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
        FetchError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::Corrupt { .. } => ErrorCode::CorruptMessage,
        FetchError::Disk(_) => ErrorCode::KafkaStorageError,
        _ => ErrorCode::UnknownServerError,
    }
}

/// Why a topic was not created or changed.
pub(crate) fn topic_error(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::Name { .. } => ErrorCode::InvalidTopicException,
        TopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        TopicError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
        TopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
        TopicError::Full { .. } => ErrorCode::PolicyViolation,
        TopicError::Option { option, .. } if *option == "partitions" => {
            ErrorCode::InvalidPartitions
        }
        TopicError::Option { .. } => ErrorCode::InvalidConfig,
        TopicError::Append(error) => append_error(error),
        _ => ErrorCode::UnknownServerError,
    }
}
