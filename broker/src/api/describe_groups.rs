//! DescribeGroups: groups, looked at closely.

use std::collections::BTreeSet;

use super::Call;
use super::group::{check_access, name, text};
use crate::codec::StrBytes;
use crate::codec::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use crate::codec::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use crate::group::{Described, DescribedMember, GroupState};
use crate::security::Operation;

/// The first version with lasting names.
const INSTANCES: i16 = 4;

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    // Each of them once, so that an answer is not many times its request.
    let mut seen = BTreeSet::new();
    let groups = request.groups.into_iter();
    let groups = groups
        .filter(|group| seen.insert(name(group)))
        .map(|group| describe(call, group));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(call: &Call<'_>, group: GroupId) -> DescribedGroup {
    if let Err(error) = check_access(call, Operation::Describe, &group) {
        return DescribedGroup::default()
            .with_error_code(error.code())
            .with_group_id(group);
    }
    let known = call.shared.groups.describe(&group);
    let described = known.unwrap_or_else(|| {
        let has_offsets = !call.shared.log.group_offsets(&group).is_empty();
        Described::without_members(match has_offsets {
            true => GroupState::Empty,
            false => GroupState::Dead,
        })
    });
    let members = described.members.into_iter();
    DescribedGroup::default()
        .with_group_id(group)
        .with_group_state(StrBytes::from_static_str(described.state.name()))
        .with_protocol_type(text(&described.protocol_type))
        .with_protocol_data(text(&described.protocol))
        .with_members(members.map(|m| member(call, m)).collect())
}

fn member(call: &Call<'_>, member: DescribedMember) -> DescribedGroupMember {
    let instance = member.instance.filter(|_| call.version >= INSTANCES);
    DescribedGroupMember::default()
        .with_member_id(text(&member.id))
        .with_group_instance_id(instance.as_ref().map(text))
        .with_client_id(text(&member.client.id))
        .with_client_host(text(&member.client.host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
