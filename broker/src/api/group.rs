//! What the requests about groups share: names, and the one mapping from the coordinator's errors.

use std::sync::Arc;

use outbox_log_broker::AppendError;

use super::Call;
use super::error::append_error;
use crate::codec::{ErrorCode, StrBytes};
use crate::group::{GroupError, MemberRef};
use crate::security::{Operation, Resource};

/// Why the coordinator says no.
pub(super) fn group_error(error: GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::InvalidRequest => ErrorCode::InvalidRequest,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
        // Clients try this again.
        GroupError::NoRoom => ErrorCode::CoordinatorNotAvailable,
        GroupError::AssignmentTooLarge => ErrorCode::UnknownServerError,
        GroupError::NonEmpty => ErrorCode::NonEmptyGroup,
        GroupError::NotFound => ErrorCode::GroupIdNotFound,
    }
}

/// Why the log did not take a group's offsets, in the words that clients expect of a coordinator.
pub(super) fn offsets_error(error: &AppendError) -> ErrorCode {
    match append_error(error) {
        ErrorCode::KafkaStorageError => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower => ErrorCode::NotCoordinator,
        other => other,
    }
}

/// Whether this client may.
pub(super) fn check_access(
    call: &Call<'_>,
    operation: Operation,
    group: &str,
) -> Result<(), ErrorCode> {
    match call.authorize(operation, Resource::Group(group)) {
        true => Ok(()),
        false => Err(ErrorCode::GroupAuthorizationFailed),
    }
}

/// A copy, for a slice of a request would keep all of it in memory.
pub(super) fn name(text: &StrBytes) -> Arc<str> {
    Arc::from(&**text)
}

/// As it goes onto the wire.
pub(super) fn text(name: &Arc<str>) -> StrBytes {
    StrBytes::from_string(name.to_string())
}

/// How a request names a member.
pub(super) fn member(id: &StrBytes, instance: Option<&StrBytes>) -> MemberRef {
    MemberRef {
        id: name(id),
        instance: instance.map(name),
    }
}

/// The error of an outcome, on the wire.
pub(super) fn code(outcome: Result<(), ErrorCode>) -> i16 {
    outcome.err().map_or(crate::codec::NO_ERROR, |e| e.code())
}
