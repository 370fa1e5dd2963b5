//! FindCoordinator: it is always this broker.

use std::collections::BTreeSet;

use super::Call;
use super::group::code;
use crate::codec::messages::find_coordinator_response::Coordinator;
use crate::codec::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};

/// The key is a group's id.
const GROUP: i8 = 0;
/// The key is a transactional id.
const TRANSACTION: i8 = 1;
/// The first version that asks for several at once.
const SEVERAL: i16 = 4;

pub(super) async fn handle(
    call: &Call<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let kind = request.key_type;
    if call.version < SEVERAL {
        let found = check(call, kind, &request.key);
        let (node, host, port) = place(call, found);
        return FindCoordinatorResponse::default()
            .with_error_code(code(found))
            .with_error_message(message(call.version, found))
            .with_node_id(node)
            .with_host(host)
            .with_port(port);
    }
    // Each of them once, so that an answer is not many times its request.
    let keys: BTreeSet<StrBytes> = request.coordinator_keys.into_iter().collect();
    let coordinators = keys.into_iter().map(|key| {
        let found = check(call, kind, &key);
        let (node, host, port) = place(call, found);
        Coordinator::default()
            .with_key(key)
            .with_error_code(code(found))
            .with_error_message(message(call.version, found))
            .with_node_id(node)
            .with_host(host)
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn check(call: &Call<'_>, kind: i8, key: &str) -> Result<(), ErrorCode> {
    let (resource, refused) = match kind {
        GROUP => (Resource::Group(key), ErrorCode::GroupAuthorizationFailed),
        TRANSACTION => (
            Resource::TransactionalId(key),
            ErrorCode::TransactionalIdAuthorizationFailed,
        ),
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let allowed = call.authorize(Operation::Describe, resource);
    allowed.then_some(()).ok_or(refused)
}

fn place(call: &Call<'_>, found: Result<(), ErrorCode>) -> (BrokerId, StrBytes, i32) {
    if found.is_err() {
        return (BrokerId(-1), StrBytes::default(), -1);
    }
    let advertised = &call.shared.advertised;
    let host = StrBytes::from_string(advertised.host.clone());
    let node = BrokerId(call.shared.options.node_id);
    (node, host, i32::from(advertised.port))
}

fn message(version: i16, found: Result<(), ErrorCode>) -> Option<StrBytes> {
    let text = found.err().map(|error| error.to_string());
    // Version 0 has no text.
    text.filter(|_| version >= 1).map(StrBytes::from_string)
}
