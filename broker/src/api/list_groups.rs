//! ListGroups: every group that has members or committed offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Call;
use super::group::text;
use crate::codec::StrBytes;
use crate::codec::messages::list_groups_response::ListedGroup;
use crate::codec::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use crate::group::{GroupState, Listed};
use crate::security::{Operation, Resource};

/// The first version that tells where a group stands.
const STATES: i16 = 4;

pub(super) async fn handle(call: &Call<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let is_one = |of: &[StrBytes], name: &str| {
        of.is_empty() || of.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let sees_all = call.authorize(Operation::Describe, Resource::Cluster);
    let groups = every_group(call).into_values();
    let groups = groups
        .filter(|group| is_one(&request.states_filter, group.state.name()))
        .filter(|group| {
            sees_all || call.authorize(Operation::Describe, Resource::Group(&group.group))
        })
        .map(|group| listed(call, &group));
    ListGroupsResponse::default().with_groups(groups.collect())
}

fn every_group(call: &Call<'_>) -> BTreeMap<Arc<str>, Listed> {
    let only_offsets = call.shared.log.groups().into_iter().map(|group| Listed {
        group,
        protocol_type: "".into(),
        state: GroupState::Empty,
    });
    // The coordinator's word counts for those that both know.
    let both = only_offsets.chain(call.shared.groups.list());
    both.map(|listed| (listed.group.clone(), listed)).collect()
}

fn listed(call: &Call<'_>, group: &Listed) -> ListedGroup {
    let listed = ListedGroup::default()
        .with_group_id(GroupId(text(&group.group)))
        .with_protocol_type(text(&group.protocol_type));
    match call.version >= STATES {
        true => listed.with_group_state(StrBytes::from_static_str(group.state.name())),
        false => listed,
    }
}
