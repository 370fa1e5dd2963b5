//! Topics that are created, changed, trimmed and deleted, and what groups leave in the log.

use std::sync::Arc;

use outbox_log_broker::{
    AppendError, Cleanup, FetchError, Flush, Log, OffsetCommit, TopicError, TopicOptions, limits,
};

use crate::disk::{Chance, SimDisk};
use crate::rig::{TOPIC, append, create_topic, open, run, seed, values};

fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

/// The same log twice: as a killed process left it, and after a clean stop.
fn both_ways(disk: &SimDisk, log: &Log) -> [Arc<Log>; 2] {
    let killed = disk.after_kill();
    log.close();
    [killed, disk.clone()].map(|disk| open(&disk).expect("opens"))
}

#[test]
fn a_topic_that_is_created_again_is_another_one_and_starts_empty() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    append(&log, &[(0, texts("old", 100)), (1, texts("old", 1))]).expect("appended");
    run(log.commit("g", &[OffsetCommit::new(TOPIC.into(), 0, 7)])).expect("committed");
    let (id, before) = (log.topic_id(TOPIC), disk.paths("/topics/"));
    assert_eq!(log.topic_name(id.expect("there")).as_deref(), Some(TOPIC));

    run(log.delete_topic(TOPIC)).expect("deleted");
    assert_eq!(log.topic(TOPIC), None);
    assert!(
        log.groups().is_empty(),
        "what it committed went with the topic"
    );
    let gone = log.fetch(TOPIC, 0, 0, 1000);
    assert!(matches!(gone, Err(FetchError::Unknown { .. })), "{gone:?}");
    let refused = append(&log, &[(0, texts("new", 1))]);
    assert!(matches!(refused, Err(AppendError::Unknown { .. })));
    let again = run(log.delete_topic(TOPIC));
    assert!(matches!(again, Err(TopicError::Unknown { .. })));

    create_topic(&log, 1).expect("created");
    assert_ne!(log.topic_id(TOPIC), id);
    append(&log, &[(0, texts("new", 3))]).expect("appended");
    let id = log.topic_id(TOPIC);
    for log in both_ways(&disk, &log) {
        assert_eq!(log.topic_id(TOPIC), id);
        assert_eq!(values(&log, 0).expect("reads"), texts("new", 3));
        assert!(matches!(
            log.offsets(TOPIC, 1),
            Err(FetchError::Unknown { .. })
        ));
    }
    let left = disk.paths("/topics/");
    assert!(before.iter().all(|p| !left.contains(p)), "{left:?}");
}

#[test]
fn the_options_of_a_topic_change_and_its_partitions_only_grow() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    append(&log, &[(1, texts("a", 2))]).expect("appended");
    run(log.create_partitions(TOPIC, 4)).expect("grown");
    for wanted in [4, 3] {
        let refused = run(log.create_partitions(TOPIC, wanted));
        assert!(matches!(
            refused,
            Err(TopicError::Partitions { partitions: 4, .. })
        ));
    }
    let shrunk = run(log.alter_topic(TOPIC, |o| o.partitions = 1));
    assert!(matches!(shrunk, Err(TopicError::Partitions { .. })));
    let changed = run(log.alter_topic(TOPIC, |o| {
        o.cleanup = Cleanup::CompactAndDelete;
        o.flush = Flush::Async;
        o.retention_ms = Some(5);
    }));
    append(&log, &[(3, texts("b", 2))]).expect("appended");
    let changed = changed.expect("changed");
    assert_eq!(changed.segment_bytes, 3000, "the others stay");
    for log in both_ways(&disk, &log) {
        assert_eq!(log.topic(TOPIC), Some(changed.clone()));
        assert_eq!(values(&log, 1).expect("reads"), texts("a", 2));
        assert_eq!(values(&log, 2).expect("reads"), texts("", 0));
        assert_eq!(values(&log, 3).expect("reads"), texts("b", 2));
    }
}

#[test]
fn a_topic_that_cannot_be_is_refused_and_named() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 2).expect("created");
    let options = TopicOptions::default;
    let taken = run(log.create_new_topic(TOPIC, options()));
    assert!(matches!(taken, Err(TopicError::Exists { .. })), "{taken:?}");
    let unknown = run(log.alter_topic("u", |_| {}));
    assert!(matches!(unknown, Err(TopicError::Unknown { .. })));
    let large = TopicOptions {
        max_message_bytes: limits::BATCH_BYTES_MAX as u32 + 1,
        ..options()
    };
    let error = run(log.create_new_topic("u", large)).expect_err("refused");
    assert!(error.to_string().contains("max_message_bytes"), "{error}");
    let many = TopicOptions {
        partitions: limits::PARTITIONS_MAX - 1,
        ..options()
    };
    let full = run(log.create_new_topic("u", many.clone()));
    assert!(
        matches!(full, Err(TopicError::Full { partitions: 2, .. })),
        "{full:?}"
    );
    run(log.delete_topic(TOPIC)).expect("deleted");
    run(log.create_new_topic("u", many)).expect("there is room now");
}

#[test]
fn a_batch_larger_than_its_topic_takes_is_refused_alone() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    let large = [(0, vec!["x".repeat(500)])];
    append(&log, &large).expect("fits");
    run(log.alter_topic(TOPIC, |o| o.max_message_bytes = 500)).expect("changed");
    let refused = append(&log, &large);
    assert!(
        matches!(refused, Err(AppendError::BatchTooLarge { limit: 500, .. })),
        "{refused:?}"
    );
    append(&log, &[(0, texts("small", 1))]).expect("fits");
}

#[test]
fn records_before_an_offset_are_given_up_for_good() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 1).expect("created");
    for n in 0..60 {
        append(&log, &[(0, texts(&format!("{n}"), 3))]).expect("appended");
    }
    let bytes = log.partition_bytes(TOPIC, 0).expect("there");
    assert_eq!(run(log.trim(TOPIC, 0, 100)).expect("trimmed"), 100);
    assert_eq!(run(log.trim(TOPIC, 0, 50)).expect("nothing to do"), 100);
    for wrong in [-1, 181] {
        let refused = run(log.trim(TOPIC, 0, wrong));
        assert!(
            matches!(refused, Err(AppendError::OffsetOutOfRange { .. })),
            "{refused:?}"
        );
    }
    assert!(log.partition_bytes(TOPIC, 0).expect("there") < bytes);
    for log in both_ways(&disk, &log) {
        assert_eq!(log.offsets(TOPIC, 0).expect("there"), (100, 180));
        assert_eq!(values(&log, 0).expect("reads")[0], "33-1");
        assert_eq!(run(log.trim(TOPIC, 0, 180)).expect("all of it"), 180);
        append(&log, &[(0, texts("next", 1))]).expect("appended");
        assert_eq!(log.offsets(TOPIC, 0).expect("there"), (180, 181));
    }
}

#[test]
fn a_group_keeps_its_words_and_is_forgotten_whole_in_part_or_with_time() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    let commit = OffsetCommit {
        leader_epoch: Some(4),
        metadata: "where I was".into(),
        ..OffsetCommit::new(TOPIC.into(), 1, 9)
    };
    for group in ["a", "b", "c", "d"] {
        let first = OffsetCommit::new(TOPIC.into(), 0, 3);
        run(log.commit(group, &[first, commit.clone()])).expect("committed");
    }
    let wordy = OffsetCommit {
        metadata: "x".repeat(limits::OFFSET_METADATA_BYTES_MAX + 1).into(),
        ..commit
    };
    assert!(run(log.commit("a", &[wordy])).is_err());
    assert!(run(log.delete_group("a")).expect("forgotten"));
    assert!(!run(log.delete_group("a")).expect("there is none"));
    run(log.delete_group_offsets("b", &[(TOPIC.into(), 0), (TOPIC.into(), 5)])).expect("forgotten");
    let now = log.committed("b", TOPIC, 1).expect("there").committed_ms;
    let none = run(log.expire_groups(now, |_| false)).expect("runs");
    assert!(none.is_empty(), "{none:?}");
    let idle = run(log.expire_groups(i64::MAX, |name| name != "d")).expect("runs");
    assert_eq!(idle, ["d".into()]);
    for log in both_ways(&disk, &log) {
        assert_eq!(log.groups(), ["b".into(), "c".into()]);
        let left = log.group_offsets("b");
        assert_eq!(left.len(), 1, "{left:?}");
        let (topic, partition, offset) = &left[0];
        assert_eq!((&**topic, *partition, offset.next_offset), (TOPIC, 1, 9));
        assert_eq!(offset.leader_epoch, Some(4));
        assert_eq!(&*offset.metadata, "where I was");
    }
}

/// All that can be seen of the topic: its first offset and its values.
type Seen = Option<(i64, Vec<String>)>;

fn seen(log: &Log, what: &str) -> Seen {
    let (first, _) = log.offsets(TOPIC, 0).ok()?;
    let found = values(log, 0).unwrap_or_else(|e| panic!("{what}: {e}"));
    Some((first, found))
}

/// Does one thing; answers what the topic is when it succeeds.
fn step(log: &Log, now: &Seen, name: &str, chance: &mut Chance) -> (Seen, bool) {
    let Some((first, held)) = now else {
        return (Some((0, Vec::new())), create_topic(log, 1).is_ok());
    };
    match chance.below(10) {
        0 => (None, run(log.delete_topic(TOPIC)).is_ok()),
        1 => {
            let skip = chance.below(held.len() as u64 + 1) as usize;
            let start = first + skip as i64;
            let after = (start, held[skip..].to_vec());
            (Some(after), run(log.trim(TOPIC, 0, start)).is_ok())
        }
        2 => (now.clone(), log.checkpoint().is_ok()),
        _ => {
            let count = 1 + chance.below(20) as usize;
            let more = texts(name, count);
            let after = (*first, [held.clone(), more.clone()].concat());
            (Some(after), append(log, &[(0, more)]).is_ok())
        }
    }
}

#[test]
fn a_deleted_topic_never_shows_again_wherever_the_power_goes() {
    let seed = seed();
    for operation in 1..160 {
        let mut chance = Chance::new(seed.wrapping_mul(7).wrapping_add(operation));
        let mut disk = SimDisk::default();
        let (mut now, mut tried): (Seen, Seen) = (None, None);
        for life in 0..5 {
            let what = format!("LOG_SEED={seed}, operation {operation}, life {life}");
            disk.power_off_after(match life {
                0 => operation,
                _ => 1 + chance.below(80),
            });
            if let Ok(log) = open(&disk) {
                assert_eq!(log.damage(), None, "{what}");
                for n in 0..60 {
                    let name = format!("{life}-{n}");
                    let (after, done) = step(&log, &now, &name, &mut chance);
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
            let found = seen(&log, &what);
            assert!(
                found == now || found == tried,
                "{what}: found {found:?}, acknowledged {now:?}, tried {tried:?}"
            );
            (now, tried) = (found.clone(), found);
        }
        let topics = disk.paths("/topics/");
        drop(open(&disk).expect("opens"));
        let folders: std::collections::BTreeSet<_> = disk
            .paths("/topics/")
            .iter()
            .map(|p| p.components().nth(3).map(|c| c.as_os_str().to_owned()))
            .collect();
        assert!(
            folders.len() <= 1,
            "files of deleted topics stay: {topics:?}"
        );
    }
}
