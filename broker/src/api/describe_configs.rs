//! DescribeConfigs: how topics and this broker are configured.

use outbox_log_broker::TopicOptions;

use super::Call;
use crate::codec::messages::describe_configs_request::DescribeConfigsResource;
use crate::codec::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::codec::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};
use crate::topic_config::{Kind, TopicConfig, WITHOUT_EFFECT};

/// The kinds of resources that have a configuration here.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Where a value comes from: it was set for this topic, when the broker was started, or never.
const OF_TOPIC: i8 = 1;
const OF_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Why nothing is described.
type Refusal = (ErrorCode, String);

/// One setting.
struct Described {
    name: &'static str,
    value: String,
    kind: Kind,
    source: i8,
    read_only: bool,
}

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let results = request.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default().with_resource_type(resource.resource_type);
        let result = match describe(call, &resource) {
            Ok(configs) => {
                let wanted = resource.configuration_keys.as_deref();
                let wanted = configs.into_iter().filter(|config| {
                    wanted.is_none_or(|names| names.iter().any(|n| **n == *config.name))
                });
                result.with_configs(wanted.map(|config| config.answer(synonyms)).collect())
            }
            Err((error, text)) => result
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(text))),
        };
        result.with_resource_name(resource.resource_name)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    call: &Call<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            if !call.authorize(Operation::DescribeConfigs, Resource::Topic(name)) {
                let text = "no right to see how this topic is configured".to_owned();
                return Err((ErrorCode::TopicAuthorizationFailed, text));
            }
            let options = call.shared.log.topic(name);
            let unknown = || {
                (
                    ErrorCode::UnknownTopicOrPartition,
                    "no such topic".to_owned(),
                )
            };
            Ok(topic(&options.ok_or_else(unknown)?, call))
        }
        BROKER => {
            if !call.authorize(Operation::DescribeConfigs, Resource::Cluster) {
                let text = "no right to see how this broker is configured".to_owned();
                return Err((ErrorCode::ClusterAuthorizationFailed, text));
            }
            check_node(call, name)?;
            Ok(broker(call))
        }
        other => {
            let text = format!("resources of type {other} have no configuration here");
            Err((ErrorCode::InvalidRequest, text))
        }
    }
}

/// A broker's name is its id; an empty one stands for what all of them share.
pub(super) fn check_node(call: &Call<'_>, name: &str) -> Result<(), Refusal> {
    let node = call.shared.options.node_id.to_string();
    match name.is_empty() || name == node {
        true => Ok(()),
        false => {
            let text = format!("there is no broker {name:?}, this is {node}");
            Err((ErrorCode::InvalidRequest, text))
        }
    }
}

fn topic(options: &TopicOptions, call: &Call<'_>) -> Vec<Described> {
    let own = TopicConfig::ALL.into_iter().map(|config| Described {
        name: config.name(),
        value: config.get(options),
        kind: config.kind(),
        source: source(config, options, &call.shared.options.topic),
        read_only: false,
    });
    let fixed = WITHOUT_EFFECT.iter().map(|&(name, value, kind)| Described {
        name,
        value: value.to_owned(),
        kind,
        source: DEFAULT,
        read_only: true,
    });
    own.chain(fixed).collect()
}

/// Where a topic's setting comes from.
pub(super) fn source(config: TopicConfig, options: &TopicOptions, defaults: &TopicOptions) -> i8 {
    let value = config.get(options);
    if value == config.get(&TopicOptions::default()) {
        DEFAULT
    } else if value == config.get(defaults) {
        OF_BROKER
    } else {
        OF_TOPIC
    }
}

fn broker(call: &Call<'_>) -> Vec<Described> {
    let options = &call.shared.options;
    let described = |name, value: String, kind| Described {
        name,
        value,
        kind,
        source: OF_BROKER,
        read_only: true,
    };
    let topic = &options.topic;
    vec![
        described("broker.id", options.node_id.to_string(), Kind::Int),
        described("node.id", options.node_id.to_string(), Kind::Int),
        described(
            "log.dirs",
            options.log.dir.display().to_string(),
            Kind::List,
        ),
        described(
            "advertised.listeners",
            format!("PLAINTEXT://{}", call.shared.advertised),
            Kind::List,
        ),
        described(
            "auto.create.topics.enable",
            options.auto_create_topics.to_string(),
            Kind::Boolean,
        ),
        described("num.partitions", topic.partitions.to_string(), Kind::Int),
        described("default.replication.factor", "1".to_owned(), Kind::Int),
        described(
            "message.max.bytes",
            topic.max_message_bytes.to_string(),
            Kind::Int,
        ),
        described(
            "log.segment.bytes",
            topic.segment_bytes.to_string(),
            Kind::Int,
        ),
        described(
            "log.retention.ms",
            TopicConfig::RetentionMs.get(topic),
            Kind::Long,
        ),
        described(
            "log.cleanup.policy",
            TopicConfig::CleanupPolicy.get(topic),
            Kind::List,
        ),
        described(
            "socket.request.max.bytes",
            options.request_bytes_max.to_string(),
            Kind::Int,
        ),
        described(
            "max.connections",
            options.connections_max.to_string(),
            Kind::Int,
        ),
        described(
            "connections.max.idle.ms",
            options.idle_time.as_millis().to_string(),
            Kind::Long,
        ),
    ]
}

impl Described {
    fn answer(self, synonyms: bool) -> DescribeConfigsResourceResult {
        let name = StrBytes::from_static_str(self.name);
        let value = Some(StrBytes::from_string(self.value));
        let synonym = synonyms.then(|| {
            DescribeConfigsSynonym::default()
                .with_name(name.clone())
                .with_value(value.clone())
                .with_source(self.source)
        });
        DescribeConfigsResourceResult::default()
            .with_name(name)
            .with_value(value)
            .with_read_only(self.read_only)
            .with_config_source(self.source)
            .with_config_type(self.kind as i8)
            .with_synonyms(synonym.into_iter().collect())
    }
}
