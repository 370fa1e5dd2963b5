//! DescribeLogDirs: the one folder, and what each partition takes of it.

use super::Call;
use crate::codec::messages::describe_log_dirs_request::DescribableLogDirTopic;
use crate::codec::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::codec::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::{Operation, Resource};

pub(super) async fn handle(
    call: &Call<'_>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if !call.authorize(Operation::Describe, Resource::Cluster) {
        let error = ErrorCode::ClusterAuthorizationFailed.code();
        return DescribeLogDirsResponse::default().with_error_code(error);
    }
    let topics = request.topics.unwrap_or_else(|| every_topic(call));
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().filter_map(|index| {
            let log = &call.shared.log;
            let bytes = log.partition_bytes(&topic.topic, u32::try_from(index).ok()?);
            let described = DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(bytes.ok()? as i64);
            Some(described)
        });
        DescribeLogDirsTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.topic.clone())
    });
    let dir = call.shared.options.log.dir.display().to_string();
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(dir))
        .with_topics(topics.collect());
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn every_topic(call: &Call<'_>) -> Vec<DescribableLogDirTopic> {
    let topics = call.shared.log.topics().into_iter();
    topics
        .map(|(name, options)| {
            DescribableLogDirTopic::default()
                .with_topic(TopicName(StrBytes::from_string(name.to_string())))
                .with_partitions((0..options.partitions as i32).collect())
        })
        .collect()
}
