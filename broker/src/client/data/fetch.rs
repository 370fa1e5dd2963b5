//! Reading: offsets and records.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Client;
use super::topics::topic_name;
use crate::client::{ClientError, PartitionOffsets};
use crate::codec::ErrorCode;
use crate::codec::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::codec::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::codec::messages::{BrokerId, FetchRequest, ListOffsetsRequest};

const FETCH_VERSION: i16 = 12;
const OFFSETS_VERSION: i16 = 7;
/// Not a broker that copies.
const CONSUMER: BrokerId = BrokerId(-1);
/// Records of committed transactions only.
const READ_COMMITTED: i8 = 1;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What is to be read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchWish {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// From which offset on.
    pub offset: i64,
    /// At most about so many bytes; at least one batch if there is one.
    pub bytes_max: usize,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRange {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Whole record batches; the first may begin before the offset asked for.
    pub batches: Bytes,
    /// (producer id, first offset) of aborted transactions with records among the batches.
    pub aborted: Vec<(i64, i64)>,
    /// Kafka's error code, 0 for none.
    pub code: i16,
}

impl Client {
    /// Reads several partitions, committed records only. When there is nothing in any of them the
    /// broker holds the answer back for up to `wait`.
    ///
    /// # Errors
    /// [`ClientError`]; what is wrong with one partition stands in its range.
    pub async fn fetch(
        &self,
        wishes: &[FetchWish],
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<FetchedRange>, ClientError> {
        let request = FetchRequest::default()
            .with_replica_id(CONSUMER)
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(i32::try_from(bytes_max).unwrap_or(i32::MAX))
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(-1)
            .with_topics(topics(wishes));
        let answer = self.call(FETCH_VERSION, &request, wait).await?;
        ClientError::check("fetch", answer.error_code, None)?;
        let mut ranges = Vec::with_capacity(wishes.len());
        for topic in answer.responses {
            let name: Arc<str> = topic.topic.0.as_str().into();
            for partition in topic.partitions {
                let aborted = partition.aborted_transactions.unwrap_or_default();
                ranges.push(FetchedRange {
                    topic: name.clone(),
                    partition: partition.partition_index as u32,
                    batches: partition.records.unwrap_or_default(),
                    aborted: aborted
                        .iter()
                        .map(|a| (a.producer_id.0, a.first_offset))
                        .collect(),
                    code: partition.error_code,
                });
            }
        }
        Ok(ranges)
    }

    /// First and end offset of a partition; `None` when there is no such partition.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn offsets(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Option<PartitionOffsets>, ClientError> {
        let Some(first) = self.offset_at(topic, partition, EARLIEST).await? else {
            return Ok(None);
        };
        let end = self.offset_at(topic, partition, LATEST).await?;
        Ok(end.map(|end| PartitionOffsets { first, end }))
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: u32,
        timestamp: i64,
    ) -> Result<Option<i64>, ClientError> {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition as i32)
            .with_timestamp(timestamp);
        let wanted = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(CONSUMER)
            .with_topics(vec![wanted]);
        let answer = self.call(OFFSETS_VERSION, &request, Duration::ZERO).await?;
        let found = answer.topics.iter().flat_map(|t| &t.partitions).next();
        let Some(found) = found else {
            return Ok(None);
        };
        if found.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            return Ok(None);
        }
        let what = format!("look up the offsets of {topic:?} partition {partition}");
        ClientError::check(&what, found.error_code, None)?;
        Ok(Some(found.offset))
    }
}

fn topics(wishes: &[FetchWish]) -> Vec<FetchTopic> {
    let same = wishes.chunk_by(|a, b| a.topic == b.topic);
    same.map(|wishes| {
        let partitions = wishes.iter().map(|wish| {
            FetchPartition::default()
                .with_partition(wish.partition as i32)
                .with_fetch_offset(wish.offset)
                .with_partition_max_bytes(i32::try_from(wish.bytes_max).unwrap_or(i32::MAX))
        });
        FetchTopic::default()
            .with_topic(topic_name(&wishes[0].topic))
            .with_partitions(partitions.collect())
    })
    .collect()
}
