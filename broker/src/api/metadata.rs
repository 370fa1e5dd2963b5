//! Metadata: which topics there are, and where. On this broker everything is here.

use outbox_log_broker::TopicOptions;

use super::Call;
use super::authorized::{NOT_ASKED, allowed_on_cluster, allowed_on_topic};
use super::error::topic_error;
use crate::codec::messages::metadata_request::MetadataRequestTopic;
use crate::codec::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::codec::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};
use crate::security::{Operation, Resource};

/// The first version that can ask for no topic at all: before, an empty list meant all of them.
const EMPTY_MEANS_NONE: i16 = 1;
/// The first version that can say that topics are not to be created.
const SAYS_WHETHER_TO_CREATE: i16 = 4;

/// What is to be done about each topic.
#[derive(Clone, Copy)]
struct How {
    /// It is created if it is not there.
    create: bool,
    /// What the client may do with it is told.
    authorized: bool,
}

pub(super) async fn handle(call: &Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let how = How {
        create: call.shared.options.auto_create_topics
            && (request.allow_auto_topic_creation || call.version < SAYS_WHETHER_TO_CREATE),
        authorized: request.include_topic_authorized_operations,
    };
    let named = request.topics.filter(|topics| {
        // Version 0 has no null.
        call.version >= EMPTY_MEANS_NONE || !topics.is_empty()
    });
    let topics = match named {
        None => every_topic(call, how.authorized),
        Some(named) => {
            let mut topics = Vec::with_capacity(named.len());
            for topic in named {
                topics.push(one_topic(call, topic, how).await);
            }
            topics
        }
    };
    let node = BrokerId(call.shared.options.node_id);
    MetadataResponse::default()
        .with_brokers(vec![this_broker(call)])
        .with_cluster_id(Some(call.shared.cluster_id.clone()))
        .with_controller_id(node)
        .with_cluster_authorized_operations(match request.include_cluster_authorized_operations {
            true => allowed_on_cluster(call),
            false => NOT_ASKED,
        })
        .with_topics(topics)
}

fn this_broker(call: &Call<'_>) -> MetadataResponseBroker {
    let advertised = &call.shared.advertised;
    MetadataResponseBroker::default()
        .with_node_id(BrokerId(call.shared.options.node_id))
        .with_host(StrBytes::from_string(advertised.host.clone()))
        .with_port(i32::from(advertised.port))
}

fn every_topic(call: &Call<'_>, authorized: bool) -> Vec<MetadataResponseTopic> {
    let topics = call.shared.log.topics().into_iter();
    topics
        .filter(|(name, _)| call.authorize(Operation::Describe, Resource::Topic(name)))
        .map(|(name, options)| {
            let name = StrBytes::from_string(name.to_string());
            describe(call, TopicName(name), &options, authorized)
        })
        .collect()
}

async fn one_topic(
    call: &Call<'_>,
    topic: MetadataRequestTopic,
    how: How,
) -> MetadataResponseTopic {
    let Some(name) = topic.name else {
        // By id only: not before version 12.
        return failed(TopicName::default(), ErrorCode::InvalidRequest);
    };
    if !call.authorize(Operation::Describe, Resource::Topic(&name)) {
        return failed(name, ErrorCode::TopicAuthorizationFailed);
    }
    if let Some(options) = call.shared.log.topic(&name) {
        return describe(call, name, &options, how.authorized);
    }
    if !how.create || !call.authorize(Operation::Create, Resource::Topic(&name)) {
        return failed(name, ErrorCode::UnknownTopicOrPartition);
    }
    let wanted = call.shared.options.topic.clone();
    match call.shared.log.create_topic(&name, wanted).await {
        Ok(options) => {
            tracing::info!(topic = &**name, "created a topic that a client asked for");
            describe(call, name, &options, how.authorized)
        }
        Err(error) => {
            tracing::warn!(%error, "a topic that a client asked for was not created");
            failed(name, topic_error(&error))
        }
    }
}

fn describe(
    call: &Call<'_>,
    name: TopicName,
    options: &TopicOptions,
    authorized: bool,
) -> MetadataResponseTopic {
    let node = BrokerId(call.shared.options.node_id);
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(node)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_error_code(NO_ERROR)
        .with_topic_id(call.shared.log.topic_id(&name).unwrap_or_default())
        .with_topic_authorized_operations(match authorized {
            true => allowed_on_topic(call, &name),
            false => NOT_ASKED,
        })
        .with_name(Some(name))
        .with_partitions((0..options.partitions).map(partition).collect())
}

fn failed(name: TopicName, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name))
}
