//! LeaveGroup: members leave, or are sent away.

use super::Call;
use super::group::{check_access, code, group_error, member, name};
use crate::codec::ErrorCode;
use crate::codec::messages::leave_group_response::MemberResponse;
use crate::codec::messages::{LeaveGroupRequest, LeaveGroupResponse};
use crate::group::Leaver;
use crate::security::Operation;

/// The first version that names several members, each with an answer of its own.
const SEVERAL: i16 = 3;

pub(super) async fn handle(call: &Call<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error) = check_access(call, Operation::Read, &request.group_id) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let group = name(&request.group_id);
    let leave = |leaver: &Leaver| -> Result<(), ErrorCode> {
        let left = call.shared.groups.leave(&group, leaver);
        left.map_err(group_error)
    };
    if call.version < SEVERAL {
        let left = leave(&member(&request.member_id, None));
        return LeaveGroupResponse::default().with_error_code(code(left));
    }
    let members = request.members.into_iter().map(|m| {
        let left = leave(&member(&m.member_id, m.group_instance_id.as_ref()));
        MemberResponse::default()
            .with_member_id(m.member_id)
            .with_group_instance_id(m.group_instance_id)
            .with_error_code(code(left))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
