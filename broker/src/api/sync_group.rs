//! SyncGroup: a member asks for its share; the leader brings everybody's.

use bytes::Bytes;

use super::Call;
use super::group::{check_access, group_error, member, name, text};
use crate::codec::ErrorCode;
use crate::codec::messages::{SyncGroupRequest, SyncGroupResponse};
use crate::group::{Sync, Ticket};
use crate::security::Operation;

/// The first version that names the protocol.
const NAMES_PROTOCOL: i16 = 5;

pub(super) async fn handle(call: &Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    if let Err(error) = check_access(call, Operation::Read, &request.group_id) {
        return refused(error);
    }
    let group = name(&request.group_id);
    let shares = request.assignments.iter().map(|share| {
        // A copy, for a slice of the request would keep all of it in memory.
        let bytes = Bytes::copy_from_slice(&share.assignment);
        (name(&share.member_id), bytes)
    });
    let sync = Sync {
        ticket: Ticket(0),
        member: member(&request.member_id, request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_ref().map(name),
        protocol: request.protocol_name.as_ref().map(name),
        assignments: shares.collect(),
    };
    // Nothing of the request is kept while its member waits.
    drop(request);
    match call.shared.groups.sync(&group, sync).await {
        Ok(share) => {
            let response = SyncGroupResponse::default().with_assignment(share.assignment);
            match call.version >= NAMES_PROTOCOL {
                true => response
                    .with_protocol_type(Some(text(&share.protocol_type)))
                    .with_protocol_name(Some(text(&share.protocol))),
                false => response,
            }
        }
        Err(error) => refused(group_error(error)),
    }
}

fn refused(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}
