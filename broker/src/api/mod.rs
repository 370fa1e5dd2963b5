//! The requests that are served, one file for each, and the one table that says so.
//!
//! To add one: a line in the table, and a module with
//! `pub async fn handle(call: &Call<'_>, request: XRequest) -> XResponse`. Its first act is to ask
//! [`Call::authorize`]; its errors are fields of the answer. It runs alone on its connection, may
//! be dropped at any `await` when the broker stops, and runs to its end when the client goes away,
//! unless [`Api::ends_with_its_client`].

pub(crate) mod error;
pub(crate) mod produce;
pub(crate) mod publish;

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod api_versions;
mod authorized;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod group;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod transaction;
mod txn_offset_commit;

use bytes::Bytes;

use crate::codec::{self, Answer, ApiKey, Reply, RequestHead, messages};
use crate::error::ConnectionError;
use crate::security::{Operation, Resource};
use crate::session::Session;
use crate::shared::Shared;

/// One kind of request, and the versions of it that are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    pub key: ApiKey,
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// How the head of a request of this version is laid out.
    header_version: fn(i16) -> i16,
}

impl Api {
    /// Whether a client may ask before it has logged in.
    fn is_for_everybody(self) -> bool {
        use ApiKey::{ApiVersions, SaslAuthenticate, SaslHandshake};
        matches!(self.key, ApiVersions | SaslHandshake | SaslAuthenticate)
    }

    /// Whether a request is given up when its client is gone.
    pub fn ends_with_its_client(self) -> bool {
        matches!(self.key, ApiKey::JoinGroup | ApiKey::SyncGroup)
    }
}

/// What a handler is told beside the request.
pub(crate) struct Call<'a> {
    pub shared: &'a Shared,
    pub session: &'a Session,
    pub head: &'a RequestHead,
    /// Of the request, and so of the answer.
    pub version: i16,
}

impl<'a> Call<'a> {
    pub fn new(shared: &'a Shared, session: &'a Session, head: &'a RequestHead) -> Self {
        let version = head.version;
        shared.meters.request(head.api_key);
        tracing::trace!(
            peer = %session.peer,
            client = head.client_id.as_deref(),
            api = head.api_key,
            version,
            "request"
        );
        Self {
            shared,
            session,
            head,
            version,
        }
    }

    /// Whether this client may.
    pub fn authorize(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let who = self.session.principal();
        who.is_some_and(|who| self.shared.security.allows(who, operation, resource))
    }
}

/// What is to be done with a request.
pub(crate) enum Opened {
    /// Starts, and is answered later.
    Produce(RequestHead, Bytes),
    /// Runs to its end.
    Other(Api, RequestHead, Bytes),
    /// Has been answered already.
    Refused(Reply),
}

/// Finds out what a frame asks for.
///
/// # Errors
/// When it asks for nothing that is served.
pub(crate) fn open(frame: Bytes, session: &Session) -> Result<Opened, ConnectionError> {
    let opened = RequestHead::open(frame)?;
    let (key, version) = (opened.api_key, opened.version);
    let api = APIS.iter().find(|api| api.key as i16 == key);
    let api = *api.ok_or(ConnectionError::UnknownApi { key })?;
    if !(api.min..=api.max).contains(&version) {
        if api.key == ApiKey::ApiVersions {
            let answer = api_versions::unsupported().reply(opened.correlation_id, 0)?;
            return Ok(Opened::Refused(answer));
        }
        return Err(ConnectionError::UnknownVersion {
            api: api.name,
            version,
            min: api.min,
            max: api.max,
        });
    }
    if session.principal().is_none() && !api.is_for_everybody() {
        return Err(ConnectionError::NotLoggedIn { api: api.name });
    }
    let (head, body) = opened.finish((api.header_version)(version))?;
    Ok(match api.key {
        ApiKey::Produce => Opened::Produce(head, body),
        _ => Opened::Other(api, head, body),
    })
}

macro_rules! apis {
    ($($key:ident $request:ident $min:literal ..= $max:literal $(=> $module:ident)?;)*) => {
        /// Everything that is served.
        pub(crate) const APIS: &[Api] = &[$(Api {
            key: ApiKey::$key,
            name: stringify!($key),
            min: $min,
            max: $max,
            header_version: <messages::$request as codec::HeaderVersion>::header_version,
        },)*];

        /// Runs a request to its end.
        pub(crate) async fn answer(
            call: &Call<'_>,
            api: Api,
            body: Bytes,
        ) -> Result<Reply, ConnectionError> {
            let (id, version) = (call.head.correlation_id, call.version);
            match api.key {
                $($(ApiKey::$key => {
                    let request = codec::decode::<messages::$request>(body, api.key, version)?;
                    Ok($module::handle(call, request).await.reply(id, version)?)
                })?)*
                key => Err(ConnectionError::UnknownApi { key: key as i16 }),
            }
        }

        /// Whether the body of a request can be read.
        #[cfg(fuzzing)]
        pub(crate) fn reads(api: Api, version: i16, body: &Bytes) -> bool {
            match api.key {
                ApiKey::Produce => codec::ProduceRequest::decode(body.clone(), version).is_ok(),
                $($(ApiKey::$key => {
                    let _ = stringify!($module);
                    codec::decode::<messages::$request>(body.clone(), api.key, version).is_ok()
                })?)*
                _ => false,
            }
        }
    };
}

apis! {
    // Versions 0 to 2 are answered with error 35. They are advertised nevertheless: without them
    // many versions of librdkafka silently stop compressing.
    Produce ProduceRequest 0..=9;
    Fetch FetchRequest 4..=12 => fetch;
    ListOffsets ListOffsetsRequest 1..=7 => list_offsets;
    Metadata MetadataRequest 0..=11 => metadata;
    OffsetCommit OffsetCommitRequest 2..=8 => offset_commit;
    OffsetFetch OffsetFetchRequest 1..=8 => offset_fetch;
    FindCoordinator FindCoordinatorRequest 0..=4 => find_coordinator;
    JoinGroup JoinGroupRequest 0..=7 => join_group;
    Heartbeat HeartbeatRequest 0..=4 => heartbeat;
    LeaveGroup LeaveGroupRequest 0..=4 => leave_group;
    SyncGroup SyncGroupRequest 0..=5 => sync_group;
    DescribeGroups DescribeGroupsRequest 0..=5 => describe_groups;
    ListGroups ListGroupsRequest 0..=4 => list_groups;
    // Version 0 is refused, but looked for by librdkafka.
    SaslHandshake SaslHandshakeRequest 0..=1 => sasl_handshake;
    ApiVersions ApiVersionsRequest 0..=4 => api_versions;
    InitProducerId InitProducerIdRequest 0..=4 => init_producer_id;
    AddPartitionsToTxn AddPartitionsToTxnRequest 0..=3 => add_partitions_to_txn;
    AddOffsetsToTxn AddOffsetsToTxnRequest 0..=3 => add_offsets_to_txn;
    EndTxn EndTxnRequest 0..=3 => end_txn;
    TxnOffsetCommit TxnOffsetCommitRequest 0..=3 => txn_offset_commit;
    SaslAuthenticate SaslAuthenticateRequest 0..=2 => sasl_authenticate;
    DeleteGroups DeleteGroupsRequest 0..=2 => delete_groups;
    OffsetDelete OffsetDeleteRequest 0..=0 => offset_delete;
    CreateTopics CreateTopicsRequest 2..=7 => create_topics;
    DeleteTopics DeleteTopicsRequest 1..=6 => delete_topics;
    DeleteRecords DeleteRecordsRequest 0..=2 => delete_records;
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest 2..=4 => offset_for_leader_epoch;
    DescribeConfigs DescribeConfigsRequest 1..=4 => describe_configs;
    AlterConfigs AlterConfigsRequest 0..=2 => alter_configs;
    DescribeLogDirs DescribeLogDirsRequest 1..=4 => describe_log_dirs;
    CreatePartitions CreatePartitionsRequest 0..=3 => create_partitions;
    IncrementalAlterConfigs IncrementalAlterConfigsRequest 0..=1 => incremental_alter_configs;
    ListPartitionReassignments ListPartitionReassignmentsRequest 0..=0
        => list_partition_reassignments;
    DescribeCluster DescribeClusterRequest 0..=1 => describe_cluster;
    DescribeProducers DescribeProducersRequest 0..=0 => describe_producers;
    DescribeTransactions DescribeTransactionsRequest 0..=0 => describe_transactions;
    ListTransactions ListTransactionsRequest 0..=1 => list_transactions;
}
