//! What members of a consumer group tell each other through the coordinator, which does not look.
//!
//! Version 0 of both: a version number, the topics or the partitions, and data that we do not use.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto_kafka::messages::consumer_protocol_assignment::TopicPartition;
use proto_kafka::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
use proto_kafka::protocol::{Decodable, Encodable};

use super::{ApiKey, CodecError, StrBytes};

const VERSION: i16 = 0;

/// Topics that a member wants.
pub(crate) type Subscription = Vec<Arc<str>>;

/// Writes a subscription.
pub(crate) fn write_subscription(topics: &[Arc<str>]) -> Result<Bytes, CodecError> {
    let topics = topics.iter().map(|t| StrBytes::from_string(t.to_string()));
    let subscription = ConsumerProtocolSubscription::default().with_topics(topics.collect());
    write(&subscription)
}

/// Reads a subscription of any version: later ones begin as this one does.
pub(crate) fn read_subscription(bytes: Bytes) -> Result<Subscription, CodecError> {
    let subscription: ConsumerProtocolSubscription = read(bytes)?;
    let topics = subscription.topics.iter();
    Ok(topics.map(|t| t.as_str().into()).collect())
}

/// Writes an assignment; the partitions must be sorted.
pub(crate) fn write_assignment(partitions: &[(Arc<str>, u32)]) -> Result<Bytes, CodecError> {
    let topics = partitions.chunk_by(|a, b| a.0 == b.0).map(|same| {
        TopicPartition::default()
            .with_topic(TopicName(StrBytes::from_string(same[0].0.to_string())))
            .with_partitions(same.iter().map(|(_, p)| *p as i32).collect())
    });
    write(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// Reads an assignment. No bytes at all are an empty one: so a coordinator tells a member of which
/// the leader did not know.
pub(crate) fn read_assignment(bytes: Bytes) -> Result<Vec<(Arc<str>, u32)>, CodecError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment: ConsumerProtocolAssignment = read(bytes)?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = topic.topic.0.as_str().into();
        for partition in topic.partitions {
            let partition = u32::try_from(partition).map_err(|_| CodecError::Field {
                field: "partition",
                value: i64::from(partition),
            })?;
            partitions.push((name.clone(), partition));
        }
    }
    partitions.sort();
    Ok(partitions)
}

fn write(message: &impl Encodable) -> Result<Bytes, CodecError> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    let written = message.encode(&mut bytes, VERSION);
    written.map_err(CodecError::Encode)?;
    Ok(bytes.freeze())
}

fn read<M: Decodable>(mut bytes: Bytes) -> Result<M, CodecError> {
    if bytes.len() < 2 {
        return Err(CodecError::Short {
            field: "group member's data",
        });
    }
    bytes.advance(2);
    M::decode(&mut bytes, VERSION).map_err(|source| CodecError::Decode {
        api: ApiKey::SyncGroup,
        version: VERSION,
        source,
    })
}
