//! CreateTopics.

use std::collections::HashMap;

use outbox_log_broker::{TopicOptions, check_topic_name};

use super::Call;
use super::error::topic_error;
use crate::codec::messages::create_topics_request::CreatableTopic;
use crate::codec::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use crate::codec::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};
use crate::security::{Operation, Resource};
use crate::topic_config::{self, TopicConfig};

/// Why a topic is not created.
type Refusal = (ErrorCode, String);

pub(super) async fn handle(call: &Call<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: HashMap<TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(named.len());
    for topic in &request.topics {
        // One that is named twice is answered once, with an error.
        let result = match named.remove(&topic.name) {
            None => continue,
            Some(1) => create(call, topic, request.validate_only).await,
            Some(_) => Err((
                ErrorCode::InvalidRequest,
                "the topic is named twice".to_owned(),
            )),
        };
        results.push(match result {
            Ok(created) => created,
            Err((error, text)) => failed(topic, error, text),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(
    call: &Call<'_>,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refusal> {
    let name = &topic.name;
    let allowed = call.authorize(Operation::Create, Resource::Topic(name))
        || call.authorize(Operation::Create, Resource::Cluster);
    if !allowed {
        let text = "no right to create this topic".to_owned();
        return Err((ErrorCode::TopicAuthorizationFailed, text));
    }
    let refuse = |e| (topic_error(&e), e.to_string());
    check_topic_name(name).map_err(refuse)?;
    let options = options(call, topic)?;
    options.check().map_err(refuse)?;
    if call.shared.log.topic(name).is_some() {
        let text = "there is a topic of this name".to_owned();
        return Err((ErrorCode::TopicAlreadyExists, text));
    }
    let mut result = created(call, topic, &options);
    if !validate_only {
        let log = &call.shared.log;
        let id = log.create_new_topic(name, options).await;
        result.topic_id = id.map_err(refuse)?;
        tracing::info!(topic = &***name, "created a topic");
    }
    Ok(result)
}

/// What is asked for, over the broker's defaults.
fn options(call: &Call<'_>, topic: &CreatableTopic) -> Result<TopicOptions, Refusal> {
    let defaults = &call.shared.options.topic;
    let mut options = defaults.clone();
    options.partitions = partitions(call, topic)?.unwrap_or(defaults.partitions);
    for config in &topic.configs {
        let value = config.value.as_deref();
        topic_config::set(&mut options, defaults, &config.name, value)
            .map_err(|text| (ErrorCode::InvalidConfig, text))?;
    }
    Ok(options)
}

/// The number of partitions; `None` for the default. Everything has its one replica here.
fn partitions(call: &Call<'_>, topic: &CreatableTopic) -> Result<Option<u32>, Refusal> {
    let refuse = |code, text: &str| Err((code, text.to_owned()));
    if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            let text = "there is one broker: the replication factor must be 1 or -1";
            return refuse(ErrorCode::InvalidReplicationFactor, text);
        }
        return match topic.num_partitions {
            -1 => Ok(None),
            count @ 1.. => Ok(Some(count as u32)),
            _ => refuse(
                ErrorCode::InvalidPartitions,
                "the number of partitions must be at least 1, or -1 for the default",
            ),
        };
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let text = "with assignments, the number of partitions and replicas must be -1";
        return refuse(ErrorCode::InvalidRequest, text);
    }
    let mut indexes: Vec<i32> = topic
        .assignments
        .iter()
        .map(|a| a.partition_index)
        .collect();
    indexes.sort_unstable();
    let here = |ids: &[crate::codec::messages::BrokerId]| matches!(ids, [id] if id.0 == call.shared.options.node_id);
    let whole = indexes.iter().zip(0..).all(|(index, due)| *index == due);
    if !whole || !topic.assignments.iter().all(|a| here(&a.broker_ids)) {
        let text = "assignments must be of partitions 0 to n, each to this broker alone";
        return refuse(ErrorCode::InvalidReplicaAssignment, text);
    }
    Ok(Some(indexes.len() as u32))
}

fn created(
    call: &Call<'_>,
    topic: &CreatableTopic,
    options: &TopicOptions,
) -> CreatableTopicResult {
    let defaults = &call.shared.options.topic;
    let configs = TopicConfig::ALL.iter().map(|config| {
        let value = config.get(options);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(config.name()))
            .with_config_source(super::describe_configs::source(*config, options, defaults))
            .with_value(Some(StrBytes::from_string(value)))
    });
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(NO_ERROR)
        .with_num_partitions(options.partitions as i32)
        .with_replication_factor(1)
        .with_configs(Some(configs.collect()))
}

fn failed(topic: &CreatableTopic, error: ErrorCode, text: String) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(text)))
}
