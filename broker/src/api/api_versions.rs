//! ApiVersions: what is served. The first thing that a client asks.

use super::{APIS, Api, Call};
use crate::codec::messages::api_versions_response::ApiVersion;
use crate::codec::messages::{ApiVersionsRequest, ApiVersionsResponse};
use crate::codec::{ApiKey, ErrorCode};

/// Answers the table. Without tagged fields: librdkafka up to 2.1 cannot read them here.
pub(super) async fn handle(_: &Call<'_>, _: ApiVersionsRequest) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(served).collect())
}

/// The answer to a version that is not served, in version 0, which every client can read: it tries
/// again with one that is.
pub(super) fn unsupported() -> ApiVersionsResponse {
    let own = APIS.iter().filter(|api| api.key == ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(own.map(served).collect())
}

fn served(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.min)
        .with_max_version(api.max)
}
