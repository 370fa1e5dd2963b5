//! Topics: which there are, and new ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use crate::client::ClientError;
use crate::codec::messages::create_topics_request::CreatableTopic;
use crate::codec::messages::metadata_request::MetadataRequestTopic;
use crate::codec::messages::{CreateTopicsRequest, MetadataRequest, TopicName};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};

const METADATA_VERSION: i16 = 9;
const CREATE_VERSION: i16 = 5;
/// Replicas of a topic that are asked for: as many as the broker makes of its own accord.
const REPLICAS_DEFAULT: i16 = -1;

/// Number of partitions of each topic.
pub type TopicPartitions = BTreeMap<Arc<str>, u32>;

impl Client {
    /// Every topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topics(&self) -> Result<TopicPartitions, ClientError> {
        self.metadata(None).await
    }

    /// The number of partitions of a topic, if there is one of that name. None is created.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topic(&self, name: &str) -> Result<Option<u32>, ClientError> {
        let topics = self.metadata(Some(name)).await?;
        Ok(topics.get(name).copied())
    }

    async fn metadata(&self, name: Option<&str>) -> Result<TopicPartitions, ClientError> {
        let wanted = name
            .map(|name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
        let request = MetadataRequest::default()
            .with_topics(wanted)
            .with_allow_auto_topic_creation(false);
        let answer = self
            .call(METADATA_VERSION, &request, Duration::ZERO)
            .await?;
        let mut topics = TopicPartitions::new();
        for topic in answer.topics {
            let found = topic.name.unwrap_or_default();
            if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                continue;
            }
            ClientError::check(
                &format!("look up topic {:?}", &*found.0),
                topic.error_code,
                None,
            )?;
            topics.insert(found.0.as_str().into(), topic.partitions.len() as u32);
        }
        Ok(topics)
    }

    /// Creates a topic unless there is one of that name. Answers its number of partitions.
    ///
    /// # Errors
    /// [`ClientError`]; with code 17 (invalid name) and the like when it can never be created.
    pub async fn create_topic(&self, name: &str, partitions: u32) -> Result<u32, ClientError> {
        if let Some(existing) = self.topic(name).await? {
            return Ok(existing);
        }
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
            .with_replication_factor(REPLICAS_DEFAULT);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        let answer = self.call(CREATE_VERSION, &request, Duration::ZERO).await?;
        let code = answer.topics.first().map_or(NO_ERROR, |t| t.error_code);
        if code == ErrorCode::TopicAlreadyExists.code() {
            // Somebody was faster.
            return Ok(self.topic(name).await?.unwrap_or(partitions));
        }
        let said = answer
            .topics
            .first()
            .and_then(|t| t.error_message.as_deref());
        ClientError::check(&format!("create topic {name:?}"), code, said)?;
        Ok(partitions)
    }

    pub(super) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
