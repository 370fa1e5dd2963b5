//! Compaction by key and by expiry.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{
    Append, AppendError, Cleanup, EXPIRY_HEADER, Log, Slice, TopicOptions, verify_on,
};

use crate::disk::{Chance, SimDisk};
use crate::rig::{As, Client, TOPIC, as_producer, open, run, seed};

/// Far enough in the future that every segment is old enough.
const LATER: i64 = 10_000_000_000_000;
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A record: its key, its value unless it is a tombstone, and when it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keyed {
    key: Option<String>,
    value: Option<String>,
    expires: Option<&'static str>,
}

fn keyed(key: &str, value: &str) -> Keyed {
    Keyed {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
        expires: None,
    }
}

fn tombstone(key: &str) -> Keyed {
    Keyed {
        value: None,
        ..keyed(key, "")
    }
}

fn create(log: &Log, change: impl FnOnce(&mut TopicOptions)) -> bool {
    let mut options = TopicOptions {
        partitions: 1,
        segment_bytes: 1200,
        cleanup: Cleanup::Compact,
        ..TopicOptions::default()
    };
    change(&mut options);
    run(log.create_topic(TOPIC, options)).is_ok()
}

fn append(log: &Log, records: &[Keyed]) -> Result<i64, AppendError> {
    run(log.append(encode(records))).map(|appended| appended.first_offsets[0])
}

/// An append of one batch.
fn encode(records: &[Keyed]) -> Append {
    let mut append = Append::default();
    let none = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(&mut append.buffer);
    for record in records {
        let mut own = HeaderBlock::default();
        if let Some(expires) = record.expires {
            own.push(EXPIRY_HEADER, expires.as_bytes());
        }
        encoder.record(&RecordFields {
            timestamp: 1000,
            key: record.key.as_deref().map(str::as_bytes),
            value: record.value.as_deref().map(str::as_bytes),
            shared: &none,
            own: &own,
        });
    }
    let bytes = encoder.finish().bytes;
    append.slices.push(Slice {
        topic: TOPIC.into(),
        partition: 0,
        bytes,
    });
    append
}

/// Every record that the log holds, by offset.
fn held(log: &Log, from: i64, what: &str) -> BTreeMap<i64, Keyed> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut records = BTreeMap::new();
    let scanned = log.scan::<()>(TOPIC, 0, from, |record| {
        let known = Keyed {
            key: record.key.map(text),
            value: record.value.map(text),
            expires: None,
        };
        assert!(
            records.insert(record.offset, known).is_none(),
            "{what}: shown twice"
        );
        ControlFlow::Continue(())
    });
    scanned.unwrap_or_else(|e| panic!("{what}: {e}"));
    records
}

/// The newest record of each key, and what has no key.
fn newest(records: &BTreeMap<i64, Keyed>) -> BTreeMap<i64, Keyed> {
    let mut by_key = BTreeMap::new();
    for (offset, record) in records {
        by_key.insert(record.key.clone(), *offset);
    }
    let stays =
        |(offset, record): &(&i64, &Keyed)| record.key.is_none() || by_key[&record.key] == **offset;
    let kept = records.iter().filter(stays);
    kept.map(|(offset, record)| (*offset, record.clone()))
        .collect()
}

/// Some records with keys of a few.
fn some(chance: &mut Chance, n: usize) -> Vec<Keyed> {
    let count = 1 + chance.below(5);
    let one = |i: u64| {
        let key = format!("key-{}", chance.below(8));
        match chance.below(6) {
            0 => tombstone(&key),
            1 => Keyed {
                key: None,
                ..keyed("", &format!("{n}-{i}"))
            },
            _ => keyed(
                &key,
                &format!("{n}-{i}-{}", "x".repeat(chance.below(200) as usize)),
            ),
        }
    };
    (0..count).map(one).collect()
}

#[test]
fn the_newest_record_of_each_key_stays_at_its_offset_and_the_others_go() {
    let seed = seed();
    for round in 0..40 {
        let what = format!("LOG_SEED={seed}, round {round}");
        let mut chance = Chance::new(seed.wrapping_mul(17).wrapping_add(round));
        let mut disk = SimDisk::default();
        let mut log = open(&disk).expect("opens");
        assert!(create(&log, |_| {}));
        let mut all = BTreeMap::new();
        for n in 0..120 {
            let records = some(&mut chance, n);
            let first = append(&log, &records).expect("appended");
            all.extend((first..).zip(records));
            if chance.below(15) == 0 {
                let before = log.partition_bytes(TOPIC, 0).expect("there");
                let freed = log.compact(LATER).unwrap_or_else(|e| panic!("{what}: {e}"));
                let after = log.partition_bytes(TOPIC, 0).expect("there");
                assert_eq!(before - after, freed, "{what}");
            }
            if chance.below(40) == 0 {
                disk = disk.after_kill();
                log = open(&disk).expect("opens");
                assert_eq!(log.damage(), None, "{what}");
            }
            let (first, end) = log.offsets(TOPIC, 0).expect("there");
            assert_eq!((first, end), (0, all.len() as i64), "{what}");
            let from = chance.below(end as u64) as i64;
            let found = held(&log, from, &what);
            let expected = newest(&all);
            assert!(
                found.iter().all(|(n, r)| all[n] == *r && *n >= from),
                "{what}"
            );
            let missing = expected.range(from..).find(|(n, _)| !found.contains_key(n));
            assert_eq!(missing, None, "{what}: from {from}");
        }
        log.compact(LATER).expect("runs");
        let found = held(&log, 0, &what);
        assert!(
            found.len() < all.len() * 2 / 3,
            "{what}: {} of {}",
            found.len(),
            all.len()
        );
        log.close();
        let verified = verify_on(&disk, "/log".as_ref()).expect("readable");
        assert_eq!(verified.damage, [], "{what}");
        assert_eq!(verified.records, found.len() as u64, "{what}");
    }
}

#[test]
fn a_tombstone_stays_for_its_time_after_what_it_replaces_has_gone() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    assert!(create(&log, |o| o.tombstone_retention_ms = DAY as u64));
    append(&log, &[keyed("a", "1"), keyed("b", "1")]).expect("appended");
    append(&log, &[tombstone("a")]).expect("appended");
    // Closes the segment of both.
    append(&log, &[keyed("c", &"x".repeat(1200))]).expect("appended");
    let offsets = |log: &Log| held(log, 0, "").into_keys().collect::<Vec<_>>();
    log.compact(LATER).expect("runs");
    assert_eq!(offsets(&log), [1, 2, 3]);
    assert_eq!(log.compact(LATER + DAY - 1).expect("runs"), 0);
    assert_eq!(offsets(&log), [1, 2, 3], "not yet");
    // It is known when it was compacted, over a crash and over a checkpoint.
    let killed = disk.after_kill();
    log.close();
    for disk in [killed, disk] {
        let log = open(&disk).expect("opens");
        assert!(log.compact(LATER + DAY).expect("runs") > 0);
        assert_eq!(offsets(&log), [1, 3]);
        let hole = log.fetch(TOPIC, 0, 2, 1).expect("a hole is no error");
        assert_eq!(hole.batches[..8], 3i64.to_be_bytes());
    }
}

#[test]
fn records_whose_time_is_over_go_and_the_others_stay() {
    let (soon, late) = ("2100-01-01T00:00:00Z", "2200-01-01T00:00:00Z");
    let (soon_ms, late_ms) = (4_102_444_800_000, 7_258_118_400_000);
    let expiring = |value, expires| Keyed {
        expires: Some(expires),
        ..keyed("k", value)
    };
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    assert!(create(&log, |o| {
        o.cleanup = Cleanup::Delete;
        o.expire = true;
    }));
    let odd = Keyed {
        expires: Some("tomorrow"),
        ..keyed("k", "4")
    };
    append(
        &log,
        &[expiring("0", soon), expiring("1", late), keyed("k", "2")],
    )
    .expect("appended");
    append(&log, &[expiring("3", soon)]).expect("appended");
    append(&log, &[odd, keyed("k", &"x".repeat(1200))]).expect("appended");
    append(&log, &[keyed("k", "6")]).expect("appended");
    let offsets = |log: &Log| held(log, 0, "").into_keys().collect::<Vec<_>>();
    assert!(log.compact(soon_ms).expect("runs") > 0);
    assert_eq!(
        offsets(&log),
        [1, 2, 4, 5, 6],
        "of one key, and not compacted by it"
    );
    assert_eq!(log.compact(late_ms - 1).expect("runs"), 0);
    assert!(log.compact(late_ms).expect("runs") > 0);
    assert_eq!(offsets(&log), [2, 4, 5, 6]);
}

#[test]
fn what_was_aborted_replaces_nothing_and_an_open_transaction_is_left_alone() {
    let log = open(&SimDisk::default()).expect("opens");
    assert!(create(&log, |_| {}));
    let mut client = Client::begin(&log, "a client");
    let mut sequence = 0;
    let mut transact = |record: Keyed, commits: Option<bool>| {
        client.add(&log, &[0]).expect("added");
        let who = As {
            producer: client.producer,
            sequence,
            transactional: true,
        };
        sequence += 1;
        run(log.append(as_producer(encode(&[record]), who))).expect("appended");
        if let Some(commits) = commits {
            client.end(&log, commits).expect("ended");
        }
    };
    let large = || [keyed("c", &"x".repeat(1200))];
    append(&log, &[keyed("a", "0"), keyed("b", "1")]).expect("appended");
    transact(keyed("a", "2, aborted"), Some(false));
    transact(keyed("b", "4, committed"), Some(true));
    append(&log, &large()).expect("appended");
    let offsets = || held(&log, 0, "").into_keys().collect::<Vec<_>>();
    assert_eq!(offsets(), [0, 1, 2, 4, 6]);
    log.compact(LATER).expect("runs");
    assert_eq!(offsets(), [0, 4, 6], "offsets 3 and 5 are markers");

    transact(keyed("a", "7, open"), None);
    append(&log, &large()).expect("appended");
    append(&log, &large()).expect("appended");
    log.compact(LATER).expect("runs");
    assert_eq!(offsets(), [0, 4, 6, 7, 8, 9], "nothing behind it is stable");
    client.end(&log, true).expect("committed");
    append(&log, &large()).expect("appended");
    log.compact(LATER).expect("runs");
    assert_eq!(offsets(), [4, 7, 9, 11], "it replaces what it replaced");
}

/// What a user knows of the topic.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    exists: bool,
    first: i64,
    records: BTreeMap<i64, Keyed>,
}

/// Does one thing; answers what is known when it succeeds.
fn step(log: &Log, now: &Known, n: usize, chance: &mut Chance) -> (Known, bool) {
    let mut after = now.clone();
    if !now.exists {
        after.exists = true;
        return (after, create(log, |_| {}));
    }
    let end = now
        .first
        .max(now.records.keys().last().map_or(0, |n| n + 1));
    let done = match chance.below(14) {
        0 => {
            after = Known::default();
            run(log.delete_topic(TOPIC)).is_ok()
        }
        1 if end > now.first => {
            after.first = now.first + chance.below((end - now.first) as u64) as i64;
            after.records = now.records.clone().split_off(&after.first);
            run(log.trim(TOPIC, 0, after.first)).is_ok()
        }
        2 => log.checkpoint().is_ok(),
        3 | 4 => log.compact(LATER).is_ok(),
        _ => {
            let records = some(chance, n);
            after.records.extend((end..).zip(records.clone()));
            append(log, &records).is_ok()
        }
    };
    (after, done)
}

/// Whether the log holds what is known: everything that it has is right, and of each key the
/// newest is there.
fn holds(log: &Log, known: &Known, what: &str) -> bool {
    let Ok((first, end)) = log.offsets(TOPIC, 0) else {
        return !known.exists;
    };
    let found = held(log, first, what);
    let right = |(n, r): (&i64, &Keyed)| known.records.get(n) == Some(r);
    let known_end = known
        .first
        .max(known.records.keys().last().map_or(0, |n| n + 1));
    known.exists
        && (first, end) == (known.first, known_end)
        && found.iter().all(right)
        && newest(&known.records).keys().all(|n| found.contains_key(n))
}

#[test]
fn compaction_loses_nothing_wherever_the_power_goes() {
    let seed = seed();
    for operation in 1..160 {
        let mut chance = Chance::new(seed.wrapping_mul(19).wrapping_add(operation));
        let mut disk = SimDisk::default();
        let (mut now, mut tried) = (Known::default(), Known::default());
        for life in 0..5 {
            let what = format!("LOG_SEED={seed}, operation {operation}, life {life}");
            disk.power_off_after(match life {
                0 => operation,
                _ => 1 + chance.below(120),
            });
            if let Ok(log) = open(&disk) {
                assert_eq!(log.damage(), None, "{what}");
                for n in 0..80 {
                    let (after, done) = step(&log, &now, life * 100 + n, &mut chance);
                    tried = after;
                    if !done {
                        break;
                    }
                    now = tried.clone();
                }
            }
            disk = disk.after_power_loss(&mut chance);
            let log = open(&disk.after_kill()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(log.damage(), None, "{what}");
            if holds(&log, &tried, &what) {
                now = tried.clone();
            }
            assert!(holds(&log, &now, &what), "{what}: {now:?} {tried:?}");
        }
    }
}
