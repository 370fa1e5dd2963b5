//! DescribeCluster: this broker, alone.

use super::Call;
use super::authorized::{NOT_ASKED, allowed_on_cluster};
use crate::codec::messages::describe_cluster_response::DescribeClusterBroker;
use crate::codec::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use crate::codec::{ErrorCode, StrBytes};

/// The client asks for brokers, not for controllers.
const BROKERS: i8 = 1;

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default()
        .with_cluster_id(call.shared.cluster_id.clone())
        .with_cluster_authorized_operations(NOT_ASKED);
    if request.endpoint_type != BROKERS {
        return response.with_error_code(ErrorCode::MismatchedEndpointType.code());
    }
    let node = BrokerId(call.shared.options.node_id);
    let advertised = &call.shared.advertised;
    let broker = DescribeClusterBroker::default()
        .with_broker_id(node)
        .with_host(StrBytes::from_string(advertised.host.clone()))
        .with_port(i32::from(advertised.port));
    response
        .with_controller_id(node)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(match request.include_cluster_authorized_operations {
            true => allowed_on_cluster(call),
            false => NOT_ASKED,
        })
}
