//! Where a consumer starts, and how a group shares its partitions.

use std::collections::BTreeSet;

use serde_json::json;

use crate::clients::Client;
use crate::consumers::Group;
use crate::producer::Producer;
use crate::records::{Acked, Record, assert_same, numbered};
use crate::server::{Server, unique};
use crate::wire;

/// The time of the first record.
const START: i64 = 1_700_000_000_000;

/// How soon a killed member counts as gone: what every broker allows by default.
const SESSION_TIMEOUT_MS: u64 = 6_000;

pub fn a_new_group_starts_at_the_earliest_or_latest_offset_or_at_a_time(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic) = (server.bootstrap(), unique("start"));
    wire::create_topic(&bootstrap, &topic, 2);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    let records: Vec<Record> = (0..20)
        .map(|n| Record {
            timestamp: Some(START + 1_000 * i64::from(n / 2)),
            partition: Some(n % 2),
            ..Record::keyed("key", format!("old {n}"))
        })
        .collect();
    let old = producer.send_all(&records);

    let mut earliest = Group::new(client, &bootstrap, &topic, &unique("earliest"), json!({}));
    earliest.join();
    earliest.until_read(old.len());
    assert_same(&old, &earliest.close());

    let at = START + 5_500;
    let mut timed = Group::new(
        client,
        &bootstrap,
        &topic,
        &unique("at"),
        json!({"from": at}),
    );
    timed.join();
    timed.until_read(8);
    let since: Vec<Acked> = old
        .iter()
        .filter(|it| it.record.timestamp >= Some(at))
        .cloned()
        .collect();
    assert_same(&since, &timed.close());

    let settings = json!({"reset": "latest"});
    let mut latest = Group::new(client, &bootstrap, &topic, &unique("latest"), settings);
    latest.join();
    latest.until_shared(2);
    // A consumer looks up the latest offset some time after it was given its partitions: from the
    // first record on that it reads it must read all.
    let mut new: Vec<Acked> = Vec::new();
    while seen(&latest).len() < 2 {
        new.extend(producer.send_all(&in_both("is it there?")));
        latest.listen();
    }
    let last = producer.send_all(&in_both("the last ones"));
    new.extend(last.iter().cloned());
    latest.until("the last records", |it| {
        last.iter().all(|last| {
            it.read
                .iter()
                .any(|read| read.value == last.record.value && read.partition == last.partition)
        })
    });
    let read = latest.close();
    for partition in 0..2 {
        let read: Vec<i64> = read
            .iter()
            .filter(|it| it.partition == partition)
            .map(|it| it.offset)
            .collect();
        let new: Vec<i64> = new
            .iter()
            .filter(|it| it.partition == partition)
            .map(|it| it.offset)
            .collect();
        assert!(
            new.ends_with(&read),
            "read {read:?} of {new:?} in partition {partition}"
        );
    }
    producer.close();
}

fn in_both(value: &str) -> Vec<Record> {
    [0, 1]
        .map(|partition| Record {
            partition: Some(partition),
            ..Record::keyed("key", value)
        })
        .to_vec()
}

fn seen(group: &Group<'_>) -> BTreeSet<i32> {
    group.read.iter().map(|it| it.partition).collect()
}

pub fn a_group_shares_its_partitions_while_members_join_leave_and_are_killed(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic, name) = (server.bootstrap(), unique("shared"), unique("group"));
    wire::create_topic(&bootstrap, &topic, 6);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    let mut acked = producer.send_all(&numbered("before", 200, 60));

    let settings = json!({"session_timeout_ms": SESSION_TIMEOUT_MS});
    let mut group = Group::new(client, &bootstrap, &topic, &name, settings);
    let first = group.join();
    group.until_shared(6);
    let second = group.join();
    group.until_shared(6);
    acked.extend(producer.send_all(&numbered("with two", 200, 60)));
    let third = group.join();
    group.until_shared(6);
    acked.extend(producer.send_all(&numbered("with three", 200, 60)));
    group.kill9(second);
    acked.extend(producer.send_all(&numbered("with a dead one", 200, 60)));
    group.until_shared(6);
    group.leave(first);
    group.until_shared(6);
    acked.extend(producer.send_all(&numbered("alone", 200, 60)));
    producer.close();

    let ends = |partition| acked.iter().filter(|it| it.partition == partition).count();
    group.until("all to be read and committed", |it| {
        (0..6).all(|partition| {
            let committed = it.committed.get(&partition).copied().unwrap_or(0);
            usize::try_from(committed).is_ok_and(|committed| committed == ends(partition))
        })
    });
    group.leave(third);
    for partition in 0..6 {
        let committed = wire::committed(&bootstrap, &name, &topic, partition);
        assert_eq!(
            usize::try_from(committed).ok(),
            Some(ends(partition)),
            "what the broker keeps"
        );
    }
    // At least once: what was read but not committed when somebody died is read again.
    let mut read = group.close();
    read.sort_by_key(|it| (it.partition, it.offset));
    read.dedup();
    assert_same(&acked, &read);
}

pub fn a_group_goes_on_where_it_committed(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic, name) = (server.bootstrap(), unique("resumed"), unique("group"));
    wire::create_topic(&bootstrap, &topic, 1);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    let first = producer.send_all(&numbered("first", 50, 5));
    let mut group = Group::new(client, &bootstrap, &topic, &name, json!({}));
    group.join();
    group.until("50 to be committed", |it| it.committed.get(&0) == Some(&50));
    assert_same(&first, &group.close());
    assert_eq!(wire::committed(&bootstrap, &name, &topic, 0), 50);

    let second = producer.send_all(&numbered("second", 50, 5));
    let mut group = Group::new(client, &bootstrap, &topic, &name, json!({}));
    group.join();
    group.until_read(50);
    assert_same(&second, &group.close());
    producer.close();
}
