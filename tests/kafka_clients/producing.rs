//! What a producer sends comes back whole: each codec, keys in order, large records.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::clients::Client;
use crate::consumers::Group;
use crate::producer::Producer;
use crate::records::{Acked, Read, Record, assert_in_order, assert_same, numbered};
use crate::server::{Server, rounds, unique};
use crate::wire;

/// Every codec of the protocol.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// As large as a record gets by default, but for its headers.
const LARGE: usize = 1_000_000;

/// More than `max.message.bytes` allows by default.
const TOO_LARGE: usize = 1_500_000;

/// A compressible text, another one for each `seed`.
pub fn body(seed: usize, length: usize) -> String {
    let line = format!("{seed} the quick brown fox jumps over the lazy dog; ");
    line.chars().cycle().take(length).collect()
}

/// A text that hardly compresses.
fn noise(length: usize) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[usize::try_from(state >> 58).unwrap_or(0)])
    };
    std::iter::repeat_with(&mut letter).take(length).collect()
}

/// Reads a topic in a new group until `count` records came.
pub fn read_all(client: &Client, server: &Server, topic: &str, count: usize) -> Vec<Read> {
    let bootstrap = server.bootstrap();
    let mut group = Group::new(client, &bootstrap, topic, &unique("reader"), json!({}));
    group.join();
    group.until_read(count);
    group.close()
}

pub fn each_codec_round_trips(client: &Client) {
    let server = Server::start();
    let bootstrap = server.bootstrap();
    for codec in CODECS {
        let topic = unique(codec);
        wire::create_topic(&bootstrap, &topic, 1);
        let mut producer = Producer::start(client, &bootstrap, &topic, json!({"codec": codec}));
        let acked = producer.send_all(&with_everything(codec));
        producer.close();
        // Some clients stop compressing, without a word, when they miss a version of Produce.
        let stored = wire::codecs(&bootstrap, &topic, 0);
        assert!(stored.contains(codec), "{codec} came to be {stored:?}");
        // librdkafka sends a batch as it is when the codec does not make it smaller, as is the case
        // for an empty record that went alone.
        assert!(
            stored.is_subset(&BTreeSet::from([codec, "none"])),
            "{codec} came to be {stored:?}"
        );
        assert_same(&acked, &read_all(client, &server, &topic, acked.len()));
    }
}

/// Null keys, empty values, headers, old timestamps.
fn with_everything(codec: &str) -> Vec<Record> {
    let mut records: Vec<Record> = (0..12)
        .map(|n| Record {
            key: (n % 4 > 0).then(|| format!("key {n}")),
            value: body(n, 500 * n),
            timestamp: Some(1_700_000_000_000 + i64::try_from(n).unwrap_or(0)),
            headers: BTreeMap::from([("codec".to_owned(), codec.to_owned())]),
            partition: None,
        })
        .collect();
    records.push(Record::keyed("naïve ключ 鍵", "payload ✓"));
    records
}

pub fn keys_keep_their_order(client: &Client) {
    in_order(client, json!({"idempotent": false}));
}

pub fn an_idempotent_producer_writes_each_record_once_in_order(client: &Client) {
    in_order(client, json!({"idempotent": true, "codec": "gzip"}));
}

fn in_order(client: &Client, settings: serde_json::Value) {
    let server = Server::start();
    let (bootstrap, topic) = (server.bootstrap(), unique("order"));
    wire::create_topic(&bootstrap, &topic, 4);
    let records = numbered("value", 1_000, 40);
    let mut producer = Producer::start(client, &bootstrap, &topic, settings);
    let mut acked = producer.send_all(&records[..500]);
    acked.extend(producer.send_all(&records[500..]));
    producer.close();
    assert_dense(&acked);
    let read = read_all(client, &server, &topic, acked.len());
    assert_same(&acked, &read);
    assert_in_order(&records, &read);
}

/// One partition for each key, and offsets from 0 on without holes.
fn assert_dense(acked: &[Acked]) {
    let mut homes: BTreeMap<&Option<String>, i32> = BTreeMap::new();
    let mut offsets: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for at in acked {
        let home = *homes.entry(&at.record.key).or_insert(at.partition);
        assert_eq!(home, at.partition, "{:?} moved", at.record.key);
        offsets.entry(at.partition).or_default().insert(at.offset);
    }
    assert!(offsets.len() > 1, "all keys went to one partition");
    for (partition, offsets) in offsets {
        let count = i64::try_from(offsets.len()).expect("few");
        assert!(
            offsets.into_iter().eq(0..count),
            "partition {partition} has holes"
        );
    }
}

pub fn a_megabyte_passes_and_more_is_refused(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic) = (server.bootstrap(), unique("large"));
    wire::create_topic(&bootstrap, &topic, 1);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    let large = [
        Record::keyed("a", noise(LARGE)),
        Record::keyed("b", body(1, LARGE)),
        Record::keyed("c", "small"),
    ];
    // One by one: together they would be one batch, which has the same bound as a record.
    let mut acked = Vec::new();
    for record in large {
        acked.extend(producer.send_all(&[record]));
    }
    producer.send(&[Record::keyed("d", noise(TOO_LARGE))]);
    let answers = producer.flush();
    assert!(answers[0].is_err(), "{TOO_LARGE} bytes were accepted");
    acked.extend(producer.send_all(&[Record::keyed("e", "the next one")]));
    producer.close();
    assert_same(&acked, &read_all(client, &server, &topic, acked.len()));
}

/// Only our own broker is killed: what it acknowledged is on disk, and what it did not is sent
/// again by the client and recognised.
pub fn an_idempotent_producer_outlives_kill_minus_9_of_the_broker(client: &Client) {
    let mut server = Server::start();
    if !server.is_ours() || !client.outlives_the_broker {
        return;
    }
    let (bootstrap, topic) = (server.bootstrap(), unique("kill"));
    wire::create_topic(&bootstrap, &topic, 2);
    let records = numbered("value", 3_000 * rounds(), 20);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({"idempotent": true}));
    for (round, part) in records.chunks(1_000).enumerate() {
        producer.send(part);
        producer.wait_for_answers(round * 1_000 + 100);
        server.crash();
    }
    let acked: Vec<Acked> = producer
        .flush()
        .into_iter()
        .map(|answer| answer.expect("acknowledged in the end"))
        .collect();
    producer.close();
    assert_dense(&acked);
    let read = read_all(client, &server, &topic, acked.len());
    assert_same(&acked, &read);
    assert_in_order(&records, &read);
}
