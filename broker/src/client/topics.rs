//! Topics, as an operator sees them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Admin, ClientError};
use crate::codec::StrBytes;
use crate::codec::messages::create_partitions_request::CreatePartitionsTopic;
use crate::codec::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::codec::messages::describe_configs_request::DescribeConfigsResource;
use crate::codec::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use crate::codec::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::codec::messages::metadata_request::MetadataRequestTopic;
use crate::codec::messages::metadata_response::MetadataResponseTopic;
use crate::codec::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest,
    TopicName,
};

/// A resource of the configuration requests that is a topic.
const TOPIC: i8 = 2;
/// A configuration entry that nobody has set.
const DEFAULT_SOURCE: i8 = 5;
/// How long a change may take, in ms.
const CHANGE_MS: i32 = 30_000;

/// Stands for the offset behind the last record.
pub(super) const LATEST: i64 = -1;
/// Stands for the first record held.
pub(super) const EARLIEST: i64 = -2;

/// One topic in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
}

/// One topic, looked at closely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicDetail {
    /// Its name.
    pub name: String,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionDetail>,
    /// How it is configured.
    pub configs: Vec<ConfigEntry>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionDetail {
    /// Its number.
    pub partition: i32,
    /// The first offset held.
    pub first: i64,
    /// The offset behind the last record.
    pub end: i64,
}

/// One entry of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` when it is not to be shown.
    pub value: Option<String>,
    /// Whether nobody has set it.
    pub default: bool,
}

impl Admin {
    /// Every topic, by name.
    ///
    /// # Errors
    /// As all requests: [`ClientError`].
    pub async fn topics(&mut self) -> Result<Vec<TopicSummary>, ClientError> {
        let mut topics: Vec<TopicSummary> = self
            .metadata(None)
            .await?
            .iter()
            .map(|topic| TopicSummary {
                name: name_of(topic),
                partitions: topic.partitions.len(),
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, with its offsets and its configuration.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and as all requests.
    pub async fn describe_topic(&mut self, name: &str) -> Result<TopicDetail, ClientError> {
        let partitions = self.partitions(name).await?;
        let first = self.offsets(name, &partitions, EARLIEST).await?;
        let end = self.offsets(name, &partitions, LATEST).await?;
        let at = |offsets: &BTreeMap<i32, i64>, p: &i32| offsets.get(p).copied().unwrap_or(-1);
        let partitions = partitions.iter().map(|p| PartitionDetail {
            partition: *p,
            first: at(&first, p),
            end: at(&end, p),
        });
        Ok(TopicDetail {
            name: name.to_owned(),
            partitions: partitions.collect(),
            configs: self.configs(name).await?,
        })
    }

    /// Creates a topic; `partitions` is `None` for the broker's default.
    ///
    /// # Errors
    /// When it is there already, or a name or value cannot be.
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: Option<i32>,
        configs: &[(String, String)],
    ) -> Result<(), ClientError> {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions.unwrap_or(-1))
            .with_replication_factor(-1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(CHANGE_MS);
        let answer = self.connection.call(4, &request).await?;
        let what = format!("create topic {name:?}");
        for topic in &answer.topics {
            ClientError::check(&what, topic.error_code, topic.error_message.as_deref())?;
        }
        Ok(())
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and as all requests.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(name)])
            .with_timeout_ms(CHANGE_MS);
        let answer = self.connection.call(3, &request).await?;
        let what = format!("delete topic {name:?}");
        for topic in &answer.responses {
            ClientError::check(&what, topic.error_code, None)?;
        }
        Ok(())
    }

    /// Changes a topic's configuration: a value of `None` goes back to the default.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], when a key or value cannot be, and as all requests.
    pub async fn alter_topic(
        &mut self,
        name: &str,
        configs: &[(String, Option<String>)],
    ) -> Result<(), ClientError> {
        const SET: i8 = 0;
        const DELETE: i8 = 1;
        let entries = configs.iter().map(|(key, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(if value.is_some() { SET } else { DELETE })
                .with_value(value.as_deref().map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configs(entries.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.connection.call(0, &request).await?;
        let what = format!("configure topic {name:?}");
        for resource in &answer.responses {
            let message = resource.error_message.as_deref();
            ClientError::check(&what, resource.error_code, message)?;
        }
        Ok(())
    }

    /// Gives a topic more partitions. Keys go to other partitions from then on.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], when it has as many already, and as all requests.
    pub async fn grow_topic(&mut self, name: &str, partitions: i32) -> Result<(), ClientError> {
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(partitions)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(CHANGE_MS);
        let answer = self.connection.call(1, &request).await?;
        let what = format!("give topic {name:?} {partitions} partitions");
        for topic in &answer.results {
            ClientError::check(&what, topic.error_code, topic.error_message.as_deref())?;
        }
        Ok(())
    }

    /// The numbers of a topic's partitions, in order.
    pub(super) async fn partitions(&mut self, name: &str) -> Result<Vec<i32>, ClientError> {
        let what = format!("find topic {name:?}");
        let topics = self.metadata(Some(name)).await?;
        let topic = topics
            .first()
            .ok_or_else(|| ClientError::NotFound { what: what.clone() })?;
        ClientError::check(&what, topic.error_code, None)?;
        let mut partitions: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    async fn metadata(
        &mut self,
        topic: Option<&str>,
    ) -> Result<Vec<MetadataResponseTopic>, ClientError> {
        let named = |name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))];
        let request = MetadataRequest::default()
            .with_topics(topic.map(named))
            .with_allow_auto_topic_creation(false);
        Ok(self.connection.call(4, &request).await?.topics)
    }

    /// The offset of each partition at a time, or at its beginning or end. Partitions without a
    /// record of that time or later are left out.
    pub(super) async fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        timestamp: i64,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let wanted = partitions.iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_timestamp(timestamp)
        });
        let wanted = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(wanted.collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![wanted]);
        let answer = self.connection.call(1, &request).await?;
        let what = format!("find offsets of topic {topic:?}");
        let mut found = BTreeMap::new();
        for partition in answer.topics.iter().flat_map(|t| &t.partitions) {
            ClientError::check(&what, partition.error_code, None)?;
            if partition.offset >= 0 {
                found.insert(partition.partition_index, partition.offset);
            }
        }
        Ok(found)
    }

    async fn configs(&mut self, topic: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.connection.call(1, &request).await?;
        let what = format!("find the configuration of topic {topic:?}");
        let mut entries = Vec::new();
        for resource in answer.results {
            let message = resource.error_message.as_deref();
            ClientError::check(&what, resource.error_code, message)?;
            entries.extend(resource.configs.into_iter().map(|entry| ConfigEntry {
                name: entry.name.to_string(),
                value: entry.value.map(|v| v.to_string()),
                default: entry.config_source == DEFAULT_SOURCE,
            }));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

fn name_of(topic: &MetadataResponseTopic) -> String {
    topic
        .name
        .as_ref()
        .map(|name| name.to_string())
        .unwrap_or_default()
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
