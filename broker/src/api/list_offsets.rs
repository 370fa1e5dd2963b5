//! ListOffsets: the first, the last, or the one at a time.

use outbox_log_broker::{FetchError, Log};

use super::Call;
use super::error::fetch_error;
use super::fetch::READ_COMMITTED;
use crate::codec::ErrorCode;
use crate::codec::messages::list_offsets_request::ListOffsetsPartition;
use crate::codec::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use crate::codec::messages::{ListOffsetsRequest, ListOffsetsResponse};
use crate::security::{Operation, Resource};

/// Stands for the offset behind the last record.
const LATEST: i64 = -1;
/// Stands for the first record held.
const EARLIEST: i64 = -2;
/// Stands for the record with the latest time, from version 7 on.
const MAX_TIMESTAMP: i64 = -3;
/// No such record.
const NOTHING: (i64, i64) = (-1, -1);

pub(super) async fn handle(call: &Call<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let committed = request.isolation_level == READ_COMMITTED;
    let topics = request.topics.into_iter().map(|topic| {
        let allowed = call.authorize(Operation::Describe, Resource::Topic(&topic.name));
        let partitions = topic.partitions.iter().map(|wanted| match allowed {
            true => partition(call, &topic.name, wanted, committed),
            false => failed(wanted, ErrorCode::TopicAuthorizationFailed),
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn partition(
    call: &Call<'_>,
    topic: &str,
    wanted: &ListOffsetsPartition,
    committed: bool,
) -> ListOffsetsPartitionResponse {
    if wanted.current_leader_epoch > 0 {
        return failed(wanted, ErrorCode::UnknownLeaderEpoch);
    }
    let log = &call.shared.log;
    let index = wanted.partition_index as u32;
    let found = log.offsets(topic, index).and_then(|(first, end)| {
        // A reader of committed records sees none behind the last stable offset.
        let end = match committed {
            true => log.last_stable_offset(topic, index)?,
            false => end,
        };
        let seen = |found: (i64, i64)| if found.0 < end { found } else { NOTHING };
        Ok(match wanted.timestamp {
            LATEST => (end, -1),
            EARLIEST => (first, -1),
            MAX_TIMESTAMP if call.version >= 7 => match log.latest_timestamp(topic, index)? {
                Some(latest) => seen(at_time(log, topic, index, latest)?),
                None => NOTHING,
            },
            timestamp => seen(at_time(log, topic, index, timestamp)?),
        })
    });
    match found {
        Ok((offset, timestamp)) => ListOffsetsPartitionResponse::default()
            .with_partition_index(wanted.partition_index)
            .with_offset(offset)
            .with_timestamp(timestamp)
            .with_leader_epoch(if call.version >= 4 { 0 } else { -1 }),
        Err(error) => failed(wanted, fetch_error(&error)),
    }
}

/// Offset and time of the first record that is not older; nothing when everything is.
fn at_time(log: &Log, topic: &str, index: u32, timestamp: i64) -> Result<(i64, i64), FetchError> {
    let found = log.offset_at_time(topic, index, timestamp)?;
    Ok(found.map_or(NOTHING, |found| (found.offset, found.timestamp)))
}

fn failed(wanted: &ListOffsetsPartition, error: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(wanted.partition_index)
        .with_error_code(error.code())
        .with_offset(-1)
        .with_timestamp(-1)
}
