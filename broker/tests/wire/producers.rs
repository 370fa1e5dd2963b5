//! Idempotent producers, and who is known of them.

use bytes::Bytes;
use proto_kafka::messages::describe_producers_request::TopicRequest;
use proto_kafka::messages::{
    DescribeProducersRequest, InitProducerIdRequest, InitProducerIdResponse,
};

use crate::rig::{Client, Rig, TOPIC, altered, batch, topic_name};

const OUT_OF_ORDER_SEQUENCE: i16 = 45;
const DUPLICATE_SEQUENCE: i16 = 46;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// What a producer writes into its batches.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub transactional: bool,
}

/// One batch of values, with its producer.
pub fn stamped(stamp: Stamp, values: &[&str]) -> Bytes {
    let attributes: i16 = if stamp.transactional { 0x10 } else { 0 };
    let batch = altered(&batch(values), 21, &attributes.to_be_bytes());
    let mut producer = Vec::new();
    producer.extend(stamp.id.to_be_bytes());
    producer.extend(stamp.epoch.to_be_bytes());
    producer.extend(stamp.sequence.to_be_bytes());
    altered(&batch, 43, &producer)
}

async fn init(client: &mut Client, version: i16) -> InitProducerIdResponse {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX);
    client.call(version, &request).await
}

#[tokio::test]
async fn every_version_of_init_producer_id_gives_out_an_id_of_its_own() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let mut last = -1;
    for version in 0..=4 {
        let answer = init(&mut client, version).await;
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        assert!(answer.producer_id.0 > last, "version {version}");
        last = answer.producer_id.0;
    }
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_answered_with_its_first_offset() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let id = init(&mut client, 4).await.producer_id.0;
    let stamp = |sequence| Stamp {
        id,
        epoch: 0,
        sequence,
        transactional: false,
    };
    for n in 0..6 {
        let answer = client.produce(0, stamped(stamp(2 * n), &["a", "b"])).await;
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (0, i64::from(2 * n))
        );
    }
    let again = client.produce(0, stamped(stamp(4), &["a", "b"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, 4));
    let old = client.produce(0, stamped(stamp(0), &["a", "b"])).await;
    assert_eq!(old.error_code, DUPLICATE_SEQUENCE);
    let gap = client.produce(0, stamped(stamp(14), &["a"])).await;
    assert_eq!(gap.error_code, OUT_OF_ORDER_SEQUENCE);

    let newer = Stamp {
        epoch: 1,
        ..stamp(0)
    };
    let answer = client.produce(0, stamped(newer, &["c"])).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 12));
    let stale = client.produce(0, stamped(stamp(12), &["d"])).await;
    assert_eq!(stale.error_code, INVALID_PRODUCER_EPOCH);
    let foreign = Stamp {
        id: id + 1000,
        ..stamp(7)
    };
    let unknown = client.produce(0, stamped(foreign, &["e"])).await;
    assert_eq!(unknown.error_code, UNKNOWN_PRODUCER_ID);
}

#[tokio::test]
async fn the_producers_of_a_partition_are_described() {
    let rig = Rig::with_topic(2).await;
    let mut client = rig.connect().await;
    let id = init(&mut client, 4).await.producer_id.0;
    let stamp = Stamp {
        id,
        epoch: 0,
        sequence: 0,
        transactional: false,
    };
    client.produce(0, stamped(stamp, &["a", "b", "c"])).await;
    let request = DescribeProducersRequest::default().with_topics(vec![
        TopicRequest::default()
            .with_name(topic_name(TOPIC))
            .with_partition_indexes(vec![0, 1, 2]),
    ]);
    let answer = client.call(0, &request).await;
    let partitions = &answer.topics[0].partitions;
    let known = &partitions[0].active_producers;
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].producer_id.0, known[0].producer_epoch), (id, 0));
    assert_eq!(
        (known[0].last_sequence, known[0].current_txn_start_offset),
        (2, -1)
    );
    assert!(partitions[1].active_producers.is_empty());
    assert_eq!(partitions[2].error_code, UNKNOWN_TOPIC_OR_PARTITION);
}
