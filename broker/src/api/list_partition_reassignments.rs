//! ListPartitionReassignments: there are none, for there is one broker.

use super::Call;
use crate::codec::ErrorCode;
use crate::codec::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let response = ListPartitionReassignmentsResponse::default();
    match call.authorize(Operation::Describe, Resource::Cluster) {
        true => response,
        false => response.with_error_code(ErrorCode::ClusterAuthorizationFailed.code()),
    }
}
