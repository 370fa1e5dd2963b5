//! DeleteTopics, by name or, from version 6 on, by id.

use super::Call;
use super::error::topic_error;
use crate::codec::messages::delete_topics_request::DeleteTopicState;
use crate::codec::messages::delete_topics_response::DeletableTopicResult;
use crate::codec::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};

pub(super) async fn handle(call: &Call<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter();
    let by_name = by_name.map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut results = Vec::new();
    for topic in by_name.chain(request.topics) {
        results.push(delete(call, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete(call: &Call<'_>, topic: DeleteTopicState) -> DeletableTopicResult {
    let log = &call.shared.log;
    let result = DeletableTopicResult::default().with_topic_id(topic.topic_id);
    let name = topic.name.or_else(|| {
        let name = log.topic_name(topic.topic_id)?;
        Some(TopicName(StrBytes::from_string(name.to_string())))
    });
    let Some(name) = name else {
        return result.with_error_code(ErrorCode::UnknownTopicId.code());
    };
    if !call.authorize(Operation::Delete, Resource::Topic(&name)) {
        let error = ErrorCode::TopicAuthorizationFailed.code();
        return result.with_name(Some(name)).with_error_code(error);
    }
    let deleted = log.delete_topic(&name).await;
    let result = result.with_name(Some(name.clone()));
    match deleted {
        Ok(()) => {
            tracing::info!(topic = &**name, "deleted a topic");
            result
        }
        Err(error) => result
            .with_error_code(topic_error(&error).code())
            .with_error_message(Some(StrBytes::from_string(error.to_string()))),
    }
}
