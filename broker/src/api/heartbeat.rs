//! Heartbeat: a member says that it lives, and is told when to join again.

use super::Call;
use super::group::{check_access, code, group_error, member, name};
use crate::codec::ErrorCode;
use crate::codec::messages::{HeartbeatRequest, HeartbeatResponse};
use crate::security::Operation;

pub(super) async fn handle(call: &Call<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    HeartbeatResponse::default().with_error_code(code(heartbeat(call, &request)))
}

fn heartbeat(call: &Call<'_>, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
    check_access(call, Operation::Read, &request.group_id)?;
    let group = name(&request.group_id);
    let who = member(&request.member_id, request.group_instance_id.as_ref());
    let groups = &call.shared.groups;
    let told = groups.heartbeat(&group, &who, request.generation_id);
    told.map_err(group_error)
}
