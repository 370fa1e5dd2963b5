//! AlterConfigs: replaces the whole configuration of topics. What is not named gets its default.

use outbox_log_broker::TopicOptions;

use super::Call;
use super::describe_configs::{BROKER, TOPIC, check_node};
use super::error::topic_error;
use crate::codec::messages::alter_configs_response::AlterConfigsResourceResponse;
use crate::codec::messages::{AlterConfigsRequest, AlterConfigsResponse};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};
use crate::security::{Operation, Resource};
use crate::topic_config::{self, Invalid, TopicConfig};

pub(super) async fn handle(call: &Call<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let defaults = &call.shared.options.topic;
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let change = |options: &mut TopicOptions| {
            for config in TopicConfig::ALL {
                config.reset(options, defaults);
            }
            for config in &resource.configs {
                let value = config.value.as_deref();
                topic_config::set(options, defaults, &config.name, value)?;
            }
            Ok(())
        };
        let name = &resource.resource_name;
        let validate_only = request.validate_only;
        let altered = alter(call, resource.resource_type, name, validate_only, change).await;
        let (code, text) = outcome(altered);
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(text)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Code and text of an answer.
pub(super) fn outcome(altered: Result<(), (ErrorCode, String)>) -> (i16, Option<StrBytes>) {
    match altered {
        Ok(()) => (NO_ERROR, None),
        Err((error, text)) => (error.code(), Some(StrBytes::from_string(text))),
    }
}

/// Changes the options of one topic, or says why not.
pub(super) async fn alter(
    call: &Call<'_>,
    resource_type: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(&mut TopicOptions) -> Result<(), Invalid>,
) -> Result<(), (ErrorCode, String)> {
    match resource_type {
        TOPIC if call.authorize(Operation::AlterConfigs, Resource::Topic(name)) => {}
        TOPIC => {
            let text = "no right to change how this topic is configured".to_owned();
            return Err((ErrorCode::TopicAuthorizationFailed, text));
        }
        BROKER => {
            check_node(call, name)?;
            let text = "the broker is configured where it is started, not by clients".to_owned();
            return Err((ErrorCode::PolicyViolation, text));
        }
        other => {
            let text = format!("resources of type {other} have no configuration here");
            return Err((ErrorCode::InvalidRequest, text));
        }
    }
    let log = &call.shared.log;
    let unknown = || {
        (
            ErrorCode::UnknownTopicOrPartition,
            "no such topic".to_owned(),
        )
    };
    // Checked on a copy first: the log is not asked to change anything that is wrong.
    let mut wanted = log.topic(name).ok_or_else(unknown)?;
    change(&mut wanted).map_err(|text| (ErrorCode::InvalidConfig, text))?;
    let refuse = |e| (topic_error(&e), format!("{e}"));
    wanted.check().map_err(refuse)?;
    if validate_only {
        return Ok(());
    }
    let partitions_may_have_grown = |options: &mut TopicOptions| {
        let partitions = options.partitions;
        *options = wanted;
        options.partitions = partitions;
    };
    log.alter_topic(name, partitions_may_have_grown)
        .await
        .map_err(refuse)?;
    tracing::info!(topic = name, "changed how a topic is configured");
    Ok(())
}
