//! What all connections of one broker share.

use std::sync::Arc;

use outbox_log_broker::Log;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::api::APIS;
use crate::codec::{StrBytes, frame_room};
use crate::group::Coordinator;
use crate::limits;
use crate::options::{Advertised, BrokerOptions};
use crate::security::Security;
use crate::telemetry::Meters;

/// One broker.
pub(crate) struct Shared {
    pub log: Arc<Log>,
    pub options: BrokerOptions,
    /// What clients are told to connect to.
    pub advertised: Advertised,
    /// The log's id: what tells clients this cluster from another.
    pub cluster_id: StrBytes,
    /// Consumer groups.
    pub groups: Arc<Coordinator>,
    /// Who clients are, and what they may do.
    pub security: Security,
    /// Cancelled when the broker is to stop.
    pub stop: CancellationToken,
    /// Room for requests in reception; see [`limits::RECEIVE_BYTES_MAX`].
    pub receive_room: Arc<Semaphore>,
    /// Room for records on their way out, in bytes; see [`limits::FETCH_BYTES_MAX`].
    pub fetch_room: Arc<Semaphore>,
    /// Files that may be held open for answers; see [`limits::FETCH_FILES_MAX`].
    pub fetch_files: Arc<Semaphore>,
    pub meters: Meters,
}

impl Shared {
    pub fn new(
        log: Arc<Log>,
        security: Security,
        options: BrokerOptions,
        advertised: Advertised,
    ) -> Self {
        let receive = limits::RECEIVE_BYTES_MAX.max(options.request_bytes_max);
        let cluster_id = StrBytes::from_string(log.id().simple().to_string());
        Self {
            log,
            cluster_id,
            security,
            groups: Arc::new(Coordinator::new(options.groups.clone())),
            options,
            advertised,
            stop: CancellationToken::new(),
            receive_room: Arc::new(Semaphore::new(frame_room(receive))),
            fetch_room: Arc::new(Semaphore::new(limits::FETCH_BYTES_MAX)),
            fetch_files: Arc::new(Semaphore::new(limits::FETCH_FILES_MAX)),
            meters: Meters::new(APIS.iter().map(|api| (api.key as i16, api.name))),
        }
    }
}
