//! DeleteGroups: groups without members, with all that they committed.

use std::collections::BTreeSet;

use super::Call;
use super::group::{check_access, code, group_error, name, offsets_error};
use crate::codec::ErrorCode;
use crate::codec::messages::delete_groups_response::DeletableGroupResult;
use crate::codec::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use crate::group::GroupError;
use crate::security::Operation;

pub(super) async fn handle(call: &Call<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut seen = BTreeSet::new();
    let mut results = Vec::new();
    for group in request.groups_names {
        if !seen.insert(name(&group)) {
            continue;
        }
        let deleted = delete(call, &group).await;
        let result = DeletableGroupResult::default().with_error_code(code(deleted));
        results.push(result.with_group_id(group));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(call: &Call<'_>, group: &str) -> Result<(), ErrorCode> {
    check_access(call, Operation::Delete, group)?;
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let known = match call.shared.groups.delete(group) {
        Ok(()) => true,
        Err(GroupError::NotFound) => false,
        Err(error) => return Err(group_error(error)),
    };
    let had_offsets = call.shared.log.delete_group(group).await;
    let had_offsets = had_offsets.map_err(|error| offsets_error(&error))?;
    match known || had_offsets {
        true => Ok(()),
        false => Err(ErrorCode::GroupIdNotFound),
    }
}
