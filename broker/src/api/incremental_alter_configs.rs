//! IncrementalAlterConfigs: changes single settings of topics.

use outbox_log_broker::TopicOptions;

use super::Call;
use super::alter_configs::{alter, outcome};
use crate::codec::messages::incremental_alter_configs_request::AlterableConfig;
use crate::codec::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use crate::codec::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use crate::topic_config::{self, Invalid, TopicConfig};

/// What is to be done with a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    call: &Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let defaults = &call.shared.options.topic;
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let change = |options: &mut TopicOptions| {
            let mut configs = resource.configs.iter();
            configs.try_for_each(|config| apply(options, defaults, config))
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
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn apply(
    options: &mut TopicOptions,
    defaults: &TopicOptions,
    config: &AlterableConfig,
) -> Result<(), Invalid> {
    let (name, value) = (&*config.name, config.value.as_deref());
    let given = || value.ok_or_else(|| format!("{name} has no value"));
    match config.config_operation {
        SET => topic_config::set(options, defaults, name, Some(given()?)),
        DELETE => topic_config::set(options, defaults, name, None),
        operation @ (APPEND | SUBTRACT) => match TopicConfig::find(name) {
            Some(found) => found.amend(options, given()?, operation == APPEND),
            None => topic_config::without_effect(name),
        },
        other => Err(format!("{name}: there is no operation {other}")),
    }
}
