//! Transactions: all or nothing, for records and offsets, and one owner for each id.

use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::clients::Client;
use crate::consumers::Group;
use crate::driver::{Driver, next, until};
use crate::producer::Producer;
use crate::records::{Read, Record, numbered};
use crate::server::{Server, rounds, unique};
use crate::wire;

pub fn only_committed_records_are_read_by_who_wants_only_those(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic) = (server.bootstrap(), unique("committed"));
    wire::create_topic(&bootstrap, &topic, 1);
    let settings = json!({"transactional_id": unique("transactional")});
    let mut producer = Producer::start(client, &bootstrap, &topic, settings);
    for (records, end) in [
        ("first", "commit"),
        ("aborted", "abort"),
        ("second", "commit"),
    ] {
        producer.transaction("begin").expect("begun");
        producer.send_all(&numbered(records, 10, 3));
        producer.transaction(end).expect("ended");
    }
    producer.transaction("begin").expect("begun");
    producer.send_all(&numbered("open", 10, 3));

    let mut all = reader(client, &bootstrap, &topic, "read_uncommitted");
    all.until_read(40);
    let mut committed = reader(client, &bootstrap, &topic, "read_committed");
    committed.until_read(20);
    producer.transaction("commit").expect("committed");
    // The records come in order: had an aborted or an open one been served, it would be here.
    committed.until_read(30);
    let values: Vec<String> = committed.close().into_iter().map(|it| it.value).collect();
    let wanted: Vec<String> = ["first", "second", "open"]
        .into_iter()
        .flat_map(|prefix| numbered(prefix, 10, 3))
        .map(|record| record.value)
        .collect();
    assert_eq!(values, wanted);
    assert_eq!(all.close().len(), 40);
    producer.close();
}

fn reader<'a>(client: &'a Client, bootstrap: &str, topic: &str, isolation: &str) -> Group<'a> {
    let settings = json!({"isolation": isolation});
    let mut group = Group::new(client, bootstrap, topic, &unique(isolation), settings);
    group.join();
    group
}

pub fn offsets_are_committed_with_the_records_or_not_at_all(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic, group) = (server.bootstrap(), unique("both"), unique("group"));
    wire::create_topic(&bootstrap, &topic, 1);
    let settings = json!({"transactional_id": unique("transactional")});
    let mut producer = Producer::start(client, &bootstrap, &topic, settings);
    let mut before = -1;
    for (aborted, committed) in [(3, 5), (9, 11)] {
        for (offset, end) in [(aborted, "abort"), (committed, "commit")] {
            producer.transaction("begin").expect("begun");
            producer.send_all(&[Record::keyed("key", format!("{end} {offset}"))]);
            producer.offsets(&group, &topic, offset).expect("sent");
            producer.transaction(end).expect("ended");
        }
        // Kafka answers the commit before the group knows of it.
        until("a committed offset", || {
            let now = wire::committed(&bootstrap, &group, &topic, 0);
            assert!(
                now == before || now == committed,
                "{now} was never committed"
            );
            now == committed
        });
        before = committed;
    }
    producer.close();
}

pub fn a_second_producer_with_the_same_id_fences_the_first(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic, id) = (
        server.bootstrap(),
        unique("fenced"),
        unique("transactional"),
    );
    wire::create_topic(&bootstrap, &topic, 1);
    let settings = json!({"transactional_id": id});
    let mut first = Producer::start(client, &bootstrap, &topic, settings.clone());
    first.transaction("begin").expect("begun");
    first.send_all(&[Record::keyed("key", "of the first")]);

    let mut second = Producer::start(client, &bootstrap, &topic, settings);
    second.transaction("begin").expect("begun");
    first
        .transaction("commit")
        .expect_err("a fenced producer commits nothing");
    second.send_all(&[Record::keyed("key", "of the second")]);
    second.transaction("commit").expect("committed");
    second.close();
    first.kill9();

    let mut reader = reader(client, &bootstrap, &topic, "read_committed");
    reader.until_read(1);
    let values: Vec<String> = reader.close().into_iter().map(|it| it.value).collect();
    assert_eq!(values, ["of the second"]);
}

/// Reads, writes and commits in transactions, is killed on the way, and goes on: each record is
/// copied exactly once.
pub fn a_copy_that_is_killed_and_started_again_copies_each_record_once(client: &Client) {
    let server = Server::start();
    let (bootstrap, source, target) = (server.bootstrap(), unique("source"), unique("target"));
    wire::create_topic(&bootstrap, &source, 2);
    wire::create_topic(&bootstrap, &target, 2);
    let mut producer = Producer::start(client, &bootstrap, &source, json!({}));
    let records = numbered("value", 300 * rounds(), 20);
    // In small batches: some clients take a whole batch at a time.
    for part in records.chunks(10) {
        producer.send_all(part);
    }
    producer.close();

    let job = json!({
        "job": "copy", "bootstrap": bootstrap, "source": source, "target": target,
        "group": unique("copiers"), "transactional_id": unique("copier"),
        "session_timeout_ms": 6_000,
    });
    let mut copied = 0;
    for kill in 0..rounds() {
        let mut killed = Copier::start(client, &job);
        killed.until(&mut copied, 300 * kill + 100);
        killed.driver.kill9();
    }
    let mut last = Copier::start(client, &job);

    let mut reader = reader(client, &bootstrap, &target, "read_committed");
    reader.until_read(records.len());
    last.driver.ended_well();
    let mut read: Vec<Read> = reader.close();
    read.sort_by_key(|it| it.value.clone());
    let mut wanted: Vec<&String> = records.iter().map(|it| &it.value).collect();
    wanted.sort();
    assert!(
        read.iter().map(|it| &it.value).eq(wanted),
        "copied twice, or not at all"
    );
}

struct Copier {
    driver: Driver,
    events: Receiver<(usize, Value)>,
}

impl Copier {
    fn start(client: &Client, job: &Value) -> Self {
        let (sender, events) = channel();
        let command = client.driver(job).expect("it was here a moment ago");
        let name = format!("{}'s copier", client.name);
        Self {
            driver: Driver::start(name, command, 0, sender),
            events,
        }
    }

    fn until(&mut self, copied: &mut usize, count: usize) {
        while *copied < count {
            let (_, event) = next(&self.events, "copies");
            assert!(!event.is_null(), "the copier ended");
            let more = event["copied"].as_u64().unwrap_or(0);
            *copied += usize::try_from(more).expect("few");
        }
    }
}
