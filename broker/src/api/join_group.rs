//! JoinGroup: a member wants to be part of a group's next generation.

use bytes::Bytes;

use super::Call;
use super::group::{check_access, group_error, name, text};
use crate::codec::messages::join_group_response::JoinGroupResponseMember;
use crate::codec::messages::{JoinGroupRequest, JoinGroupResponse};
use crate::codec::{ErrorCode, StrBytes};
use crate::group::{Client, Join, JoinedMember, Protocol, Ticket};
use crate::limits::CLIENT_ID_BYTES_MAX;
use crate::security::Operation;

/// The first version whose members must come again with the id that they are given.
const ID_REQUIRED: i16 = 4;
/// The first version with lasting names.
const INSTANCES: i16 = 5;
/// The first version that may leave the protocol out.
const NO_PROTOCOL: i16 = 7;

pub(super) async fn handle(call: &Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    if let Err(error) = check_access(call, Operation::Read, &request.group_id) {
        return refused(call, error, request.member_id);
    }
    let group = name(&request.group_id);
    let join = join(call, &request);
    // Nothing of the request is kept while its member waits.
    drop(request);
    let joined = match call.shared.groups.join(&group, join).await {
        Ok(joined) => joined,
        Err(no) => return refused(call, group_error(no.error), text(&no.member)),
    };
    let members = joined.members.into_iter();
    let kind = (call.version >= NO_PROTOCOL).then(|| text(&joined.protocol_type));
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(kind)
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member))
        .with_members(members.map(|m| member(call, m)).collect())
}

fn join(call: &Call<'_>, request: &JoinGroupRequest) -> Join {
    let client = client(call);
    let instance = request.group_instance_id.as_ref().map(name);
    let prefix = instance.as_ref().unwrap_or(&client.id);
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: name(&protocol.name),
        // A copy, for a slice of the request would keep all of it in memory.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    Join {
        ticket: Ticket(0),
        member: (!request.member_id.is_empty()).then(|| name(&request.member_id)),
        new_member: format!("{prefix}-{}", uuid::Uuid::now_v7()).into(),
        id_required: call.version >= ID_REQUIRED,
        session_timeout_ms: u64::try_from(request.session_timeout_ms).unwrap_or(0),
        // Version 0 has none: then the session's counts.
        rebalance_timeout_ms: u64::try_from(request.rebalance_timeout_ms)
            .or(u64::try_from(request.session_timeout_ms))
            .unwrap_or(0),
        protocol_type: name(&request.protocol_type),
        protocols: protocols.collect(),
        instance,
        client,
    }
}

fn client(call: &Call<'_>) -> Client {
    let id = call.head.client_id.as_deref().unwrap_or_default();
    let end = id.floor_char_boundary(CLIENT_ID_BYTES_MAX);
    Client {
        id: id[..end].into(),
        // As Kafka writes it: an address without a name.
        host: format!("/{}", call.session.peer.ip()).into(),
    }
}

fn member(call: &Call<'_>, member: JoinedMember) -> JoinGroupResponseMember {
    let instance = member.instance.filter(|_| call.version >= INSTANCES);
    JoinGroupResponseMember::default()
        .with_member_id(text(&member.id))
        .with_group_instance_id(instance.as_ref().map(text))
        .with_metadata(member.metadata)
}

fn refused(call: &Call<'_>, error: ErrorCode, member: StrBytes) -> JoinGroupResponse {
    let protocol = (call.version < NO_PROTOCOL).then(StrBytes::default);
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(member)
}
