//! Produce: what is stored, what is refused, and with which error.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{Cleanup, TopicOptions};
use proto_kafka::messages::ProduceRequest;
use proto_kafka::protocol::Encodable;

use crate::rig::{
    Rig, TOPIC, altered, batch, fetch_request, framed, only_fetched, only_partition,
    produce_request, values,
};

const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const PRODUCER_ID: usize = 43;

#[tokio::test]
async fn every_version_stores_and_tells_the_offset() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    for version in 3..=9 {
        let request = produce_request(-1, &[(0, batch(&["a", "b"]))]);
        let answer = only_partition(client.call(version, &request).await);
        assert_eq!(answer.error_code, 0, "version {version}");
        assert_eq!(answer.base_offset, i64::from(version - 3) * 2);
    }
    assert_eq!(rig.broker.log().offsets(TOPIC, 0).expect("there"), (0, 14));
}

#[tokio::test]
async fn what_is_acknowledged_with_acks_1_is_durable() {
    let rig = Rig::with_topic(1).await;
    let request = produce_request(1, &[(0, batch(&["a"]))]);
    let answer = only_partition(rig.connect().await.call(7, &request).await);
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    // Only what is durable is visible.
    assert_eq!(rig.broker.log().offsets(TOPIC, 0).expect("there"), (0, 1));
}

#[tokio::test]
async fn acks_0_is_stored_and_not_answered() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client
        .send(7, &produce_request(0, &[(0, batch(&["silent"]))]))
        .await;
    let answer = client.produce(0, batch(&["loud"])).await;
    assert_eq!(answer.base_offset, 1);
    let fetched = client.fetch(0, 0).await;
    let expected = [(0, "silent".to_owned()), (1, "loud".to_owned())];
    assert_eq!(values(&fetched), expected);
}

#[tokio::test]
async fn a_failure_with_acks_0_closes_the_connection() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client
        .send(7, &produce_request(0, &[(5, batch(&["nowhere"]))]))
        .await;
    client.expect_closed().await;
}

/// Versions 0 to 2 have no transactional id, and old formats of records.
fn old_request(version: i16) -> Bytes {
    let mut request = BytesMut::new();
    request.put_i16(0);
    request.put_i16(version);
    request.put_i32(9);
    request.put_i16(-1);
    request.put_i16(-1);
    request.put_i32(1000);
    request.put_i32(1);
    request.put_i16(TOPIC.len() as i16);
    request.put_slice(TOPIC.as_bytes());
    request.put_i32(1);
    request.put_i32(0);
    request.put_i32(3);
    request.put_slice(b"old");
    framed(&request)
}

#[tokio::test]
async fn versions_0_to_2_are_answered_with_error_35() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    for version in 0..3 {
        client.send_raw(&old_request(version)).await;
        let mut answer = client.receive_raw().await;
        assert_eq!(answer.get_i32(), 9);
        assert_eq!(answer.get_i32(), 1);
        answer.advance(2 + TOPIC.len());
        assert_eq!((answer.get_i32(), answer.get_i32()), (1, 0));
        assert_eq!((answer.get_i16(), answer.get_i64()), (35, -1));
        let rest = [0, 4, 12][version as usize];
        assert_eq!(answer.remaining(), rest, "version {version}");
    }
    assert_eq!(rig.broker.log().offsets(TOPIC, 0).expect("there"), (0, 0));
}

#[tokio::test]
async fn what_a_client_may_not_send_is_refused_with_its_error() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let good = batch(&["a", "b"]);
    let mut torn = good.to_vec();
    torn[70] ^= 1;
    let two = [good.clone(), good.clone()].concat();
    let id_without_sequence = altered(&good, PRODUCER_ID, &1_i64.to_be_bytes());
    let cases: [(&str, Bytes, i16); 10] = [
        ("no batch", Bytes::new(), 87),
        ("a wrong checksum", torn.into(), 2),
        ("half a batch", good.slice(..good.len() - 1), 2),
        ("two batches", two.into(), 87),
        (
            "a count that is not the last delta and one",
            { altered(&good, LAST_OFFSET_DELTA, &5_i32.to_be_bytes()) },
            87,
        ),
        (
            "a control batch",
            altered(&good, ATTRIBUTES, &[0, 0x20]),
            87,
        ),
        ("a producer id without a sequence", id_without_sequence, 87),
        (
            "a time from the log",
            altered(&good, ATTRIBUTES, &[0, 0x08]),
            32,
        ),
        (
            "a compression that is not known",
            altered(&good, ATTRIBUTES, &[0, 5]),
            76,
        ),
        (
            "an old format",
            {
                let mut old = good.to_vec();
                old[16] = 1;
                old.into()
            },
            43,
        ),
    ];
    for (what, records, code) in cases {
        let answer = client.produce(0, records).await;
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (code, -1),
            "{what}"
        );
        assert!(answer.error_message.is_some(), "{what}");
    }
    assert_eq!(
        client.produce(0, good).await.base_offset,
        0,
        "nothing was stored"
    );
}

#[tokio::test]
async fn zstd_is_refused_before_version_7() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let zstd = altered(&batch(&["not really"]), ATTRIBUTES, &[0, 4]);
    let request = produce_request(-1, &[(0, zstd)]);
    assert_eq!(
        only_partition(client.call(6, &request).await).error_code,
        76
    );
    assert_eq!(only_partition(client.call(7, &request).await).error_code, 0);
}

#[tokio::test]
async fn a_batch_comes_back_as_it_was_sent_but_for_offset_and_leader_epoch() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["first"])).await;
    for codec in 1..=4_u8 {
        // The log does not look into it, so that any bytes will do.
        let sent = altered(&batch(&["x"]), ATTRIBUTES, &[0, codec]);
        let sent = altered(&sent, 61, b"\xff\xfe");
        let sent = [&sent[..12], &77_i32.to_be_bytes(), &sent[16..]].concat();
        let offset = client.produce(0, sent.clone().into()).await.base_offset;
        let fetched = client.fetch(0, offset).await.records.expect("records");
        let mut expected = sent;
        expected[..8].copy_from_slice(&offset.to_be_bytes());
        expected[12..16].copy_from_slice(&0_i32.to_be_bytes());
        assert_eq!(fetched, expected, "codec {codec}");
    }
}

#[tokio::test]
async fn partitions_of_one_request_fail_alone() {
    let rig = Rig::with_topic(2).await;
    let good = batch(&["a"]);
    let parts = [(1, good.clone()), (7, good.clone()), (0, Bytes::new())];
    let answer = rig
        .connect()
        .await
        .call(8, &produce_request(-1, &parts))
        .await;
    let partitions = &answer.responses[0].partition_responses;
    let codes: Vec<_> = partitions.iter().map(|p| (p.index, p.error_code)).collect();
    assert_eq!(codes, [(1, 0), (7, 3), (0, 87)]);
}

#[tokio::test]
async fn acks_other_than_the_three_are_refused() {
    let rig = Rig::with_topic(1).await;
    let request = produce_request(2, &[(0, batch(&["a"]))]);
    let answer = only_partition(rig.connect().await.call(7, &request).await);
    assert_eq!(answer.error_code, 21);
}

#[tokio::test]
async fn a_megabyte_goes_through() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let value = "x".repeat(1_000_000);
    let answer = client.produce(0, batch(&[&value])).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    // Whole, although the reader allows less.
    let mut request = fetch_request(&[(0, 0)]);
    request.max_bytes = 1024;
    let fetched = only_fetched(client.call(11, &request).await);
    assert_eq!(values(&fetched), [(0, value)]);
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_read() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let mut body = BytesMut::new();
    body.put_slice(b"\0\0\0\x07\0\0\0\x05\xff\xff");
    let request: ProduceRequest = produce_request(-1, &[(0, batch(&["slow"]))]);
    request.encode(&mut body, 7).expect("a body");
    for byte in framed(&body).chunks(1) {
        client.send_raw(byte).await;
        tokio::task::yield_now().await;
    }
    let answer = only_partition(client.receive::<ProduceRequest>(7, 5).await);
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
}

#[tokio::test]
async fn the_time_that_the_log_stamped_is_told() {
    let rig = Rig::start().await;
    let options = outbox_log_broker::TopicOptions {
        partitions: 1,
        timestamps: outbox_log_broker::Timestamps::Append,
        ..outbox_log_broker::TopicOptions::default()
    };
    let created = rig.broker.log().create_topic(TOPIC, options).await;
    created.expect("a topic");
    let answer = rig.connect().await.produce(0, batch(&["a"])).await;
    assert_eq!(answer.error_code, 0);
    // The record said that it is of 1970.
    assert!(answer.log_append_time_ms > 1_000_000_000_000, "{answer:?}");
}

/// One batch with these keys.
fn batch_of_keys(keys: &[Option<&str>]) -> Bytes {
    let (headers, mut buffer) = (HeaderBlock::default(), Vec::new());
    let mut encoder = BatchEncoder::begin(&mut buffer);
    for key in keys {
        encoder.record(&RecordFields {
            timestamp: 1000,
            key: key.map(str::as_bytes),
            value: Some(b"value"),
            shared: &headers,
            own: &headers,
        });
    }
    encoder.finish();
    buffer.into()
}

#[tokio::test]
async fn a_compacted_topic_refuses_a_batch_with_records_without_a_key_and_names_them() {
    let rig = Rig::start().await;
    let options = TopicOptions {
        partitions: 1,
        cleanup: Cleanup::Compact,
        ..TopicOptions::default()
    };
    let created = rig.broker.log().create_topic(TOPIC, options).await;
    created.expect("a topic");
    let mut client = rig.connect().await;
    let some = batch_of_keys(&[Some("a"), None, Some(""), None]);
    for version in 3..=9 {
        let request = produce_request(-1, &[(0, some.clone())]);
        let answer = only_partition(client.call(version, &request).await);
        assert_eq!((answer.error_code, answer.base_offset), (87, -1));
        let blamed = answer.record_errors.iter().map(|r| r.batch_index);
        let blamed: Vec<i32> = blamed.collect();
        if version >= 8 {
            assert_eq!(blamed, [1, 3], "version {version}");
            let text = answer.error_message.expect("a text");
            assert!(text.contains("2 of the batch"), "{text}");
        }
    }
    let all = client
        .produce(0, batch_of_keys(&[Some("a"), Some("")]))
        .await;
    assert_eq!((all.error_code, all.base_offset), (0, 0));
}
