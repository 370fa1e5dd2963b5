//! CreatePartitions: more of them for topics that exist.

use outbox_log_broker::TopicError;

use super::Call;
use super::error::topic_error;
use crate::codec::messages::create_partitions_request::CreatePartitionsTopic;
use crate::codec::messages::create_partitions_response::CreatePartitionsTopicResult;
use crate::codec::messages::{BrokerId, CreatePartitionsRequest, CreatePartitionsResponse};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let grown = grow(call, &topic, request.validate_only).await;
        let (code, text) = match grown {
            Ok(()) => (NO_ERROR, None),
            Err((error, text)) => (error.code(), Some(StrBytes::from_string(text))),
        };
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code)
                .with_error_message(text),
        );
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    call: &Call<'_>,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), (ErrorCode, String)> {
    let name = &topic.name;
    if !call.authorize(Operation::Alter, Resource::Topic(name)) {
        let text = "no right to change this topic".to_owned();
        return Err((ErrorCode::TopicAuthorizationFailed, text));
    }
    let refuse = |e: TopicError| (topic_error(&e), e.to_string());
    let log = &call.shared.log;
    let held = log.topic(name).ok_or_else(|| {
        refuse(TopicError::Unknown {
            name: (&***name).into(),
        })
    })?;
    let wanted = u32::try_from(topic.count).unwrap_or(0);
    if wanted <= held.partitions {
        return Err(refuse(TopicError::Partitions {
            name: (&***name).into(),
            partitions: held.partitions,
            wanted,
        }));
    }
    if let Some(assignments) = &topic.assignments {
        let here = [BrokerId(call.shared.options.node_id)];
        let well = assignments.iter().all(|a| a.broker_ids == here);
        if !well || assignments.len() != (wanted - held.partitions) as usize {
            let text = "each new partition must be assigned to this broker alone".to_owned();
            return Err((ErrorCode::InvalidReplicaAssignment, text));
        }
    }
    if validate_only {
        return Ok(());
    }
    log.create_partitions(name, wanted).await.map_err(refuse)?;
    tracing::info!(
        topic = &***name,
        partitions = wanted,
        "gave a topic more partitions"
    );
    Ok(())
}
