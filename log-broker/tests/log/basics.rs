//! What a log does while nothing goes wrong.

use std::sync::Arc;

use crate::disk::SimDisk;
use crate::rig::{
    TOPIC, append, append_of, create_topic, encode, open, options, publish, run, values,
};
use outbox_log_broker::{
    AppendError, FetchError, Log, LogOptions, OffsetCommit, OpenError, TopicError, TopicOptions,
};

fn texts(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("value-{n}")).collect()
}

#[test]
fn records_are_read_back_over_segments_and_after_a_reopen() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    for n in 0..200 {
        let parts = [(0, texts(3 * n, 3)), (1, texts(n, 1))];
        let appended = append(&log, &parts).expect("appended");
        assert_eq!(appended.first_offsets, [3 * n as i64, n as i64]);
    }
    assert!(disk.paths("/0/").len() > 5, "several segments");
    assert_eq!(values(&log, 0).expect("reads"), texts(0, 600));
    log.close();
    let again = open(&disk).expect("opens");
    assert_eq!(again.offsets(TOPIC, 0).expect("there"), (0, 600));
    assert_eq!(values(&again, 0).expect("reads"), texts(0, 600));
    assert_eq!(values(&again, 1).expect("reads"), texts(0, 200));
    append(&again, &[(1, texts(200, 1))]).expect("appended");
    assert_eq!(values(&again, 1).expect("reads"), texts(0, 201));
}

#[test]
fn a_fetch_gives_whole_batches_from_the_one_that_holds_the_offset() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    for n in 0..10 {
        append(&log, &[(0, texts(10 * n, 10))]).expect("appended");
    }
    let one = log.fetch(TOPIC, 0, 35, 1).expect("reads").batches;
    let both = log
        .fetch(TOPIC, 0, 35, 2 * one.len())
        .expect("reads")
        .batches;
    assert_eq!(&both[..one.len()], &one[..]);
    assert_eq!(both.len(), 2 * one.len());
    assert_eq!(&one[..8], &30i64.to_be_bytes());
    let end = log.fetch(TOPIC, 0, 100, 1000).expect("reads");
    assert!(end.batches.is_empty());
    assert_eq!((end.first_offset, end.end_offset), (0, 100));
    let beyond = log.fetch(TOPIC, 0, 101, 1000);
    assert!(matches!(
        beyond,
        Err(FetchError::OffsetOutOfRange {
            offset: 101,
            first: 0,
            end: 100,
            ..
        })
    ));
    assert!(matches!(
        log.fetch(TOPIC, 1, 0, 1),
        Err(FetchError::Unknown { .. })
    ));
}

#[test]
fn an_offset_is_found_by_time_with_and_without_index_files() {
    let disk = SimDisk::default();
    let mut log = open(&disk).expect("opens");
    create_topic(&log, 1).expect("created");
    for n in 0..100i64 {
        let mut one = append_of(&[]);
        let bytes = encode(&mut one.buffer, &texts(n as usize, 2), 1000 + 10 * n);
        one.slices = append_of(&[(0, texts(0, 1))]).slices;
        one.slices[0].bytes = bytes;
        run(log.append(one)).expect("appended");
    }
    for round in 0..3 {
        for (time, offset) in [(0, 0), (1000, 0), (1001, 2), (1500, 100), (1990, 198)] {
            let found = log
                .offset_at_time(TOPIC, 0, time)
                .expect("reads")
                .expect("found");
            assert_eq!(found.offset, offset, "time {time}, round {round}");
        }
        assert_eq!(log.offset_at_time(TOPIC, 0, 1991).expect("reads"), None);
        log.close();
        assert!(!disk.paths(".index").is_empty());
        if round == 1 {
            disk.paths(".index").iter().for_each(|p| disk.delete(p));
        }
        log = open(&disk).expect("opens");
    }
    assert!(!disk.paths(".index").is_empty(), "built again");
}

#[test]
fn what_is_not_a_batch_is_refused_and_named() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    let good = append_of(&[(0, texts(0, 3))]);
    for bit in 0..good.buffer.len() * 8 {
        // The base offset and the leader's epoch are stamped anyway.
        if (0..64).contains(&bit) || (96..128).contains(&bit) {
            continue;
        }
        let mut bad = good.clone();
        bad.buffer[bit / 8] ^= 1 << (bit % 8);
        let refused = run(log.append(bad));
        assert!(
            matches!(refused, Err(AppendError::Batch { .. })),
            "bit {bit}"
        );
    }
    let mut short = good.clone();
    short.slices[0].bytes -= 1;
    assert!(run(log.append(short)).is_err());
    let mut nowhere = good.clone();
    nowhere.slices[0].partition = 1;
    let refused = run(log.append(nowhere));
    assert!(matches!(
        refused,
        Err(AppendError::Unknown { partition: 1, .. })
    ));
    let large = append(&log, &[(0, vec!["x".repeat(16 * 1024)])]);
    assert!(
        matches!(large, Err(AppendError::TooLarge { .. })),
        "{large:?}"
    );
    assert_eq!(
        log.offsets(TOPIC, 0).expect("there"),
        (0, 0),
        "nothing was stored"
    );
}

#[test]
fn group_offsets_last() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    let topic: Arc<str> = TOPIC.into();
    let of = |partition, next| OffsetCommit::new(topic.clone(), partition, next);
    run(log.commit("g", &[of(0, 5), of(1, 7)])).expect("committed");
    run(log.commit("g", &[of(0, 6)])).expect("committed");
    let unknown = run(log.commit("g", &[of(0, 9), of(2, 1)]));
    assert!(matches!(unknown, Err(AppendError::Unknown { .. })));
    assert!(run(log.commit("", &[of(0, 1)])).is_err());
    // Once from the WAL, once from a checkpoint.
    let killed = disk.after_kill();
    log.close();
    for disk in [killed, disk] {
        let log = open(&disk).expect("opens");
        assert_eq!(log.committed("g", TOPIC, 0).map(|c| c.next_offset), Some(6));
        assert_eq!(log.committed("g", TOPIC, 1).map(|c| c.next_offset), Some(7));
        assert_eq!(log.committed("h", TOPIC, 0), None);
    }
}

#[test]
fn a_publishers_records_are_stored_once_over_crash_and_checkpoint() {
    let mut disk = SimDisk::default();
    let mut log = open(&disk).expect("opens");
    create_topic(&log, 1).expect("created");
    publish(&log, 3, &[1, 2, 4], Some((1, 5))).expect("published");
    for round in 0..3 {
        let again = publish(&log, 3, &[4, 6, 5], None);
        assert!(
            matches!(&again, Err(AppendError::Duplicates { indexes }) if *indexes == [0, 2]),
            "round {round}: {again:?}"
        );
        let stale = publish(&log, 2, &[9], None);
        assert!(
            matches!(
                stale,
                Err(AppendError::Fenced {
                    epoch: 2,
                    newer: 3,
                    ..
                })
            ),
            "round {round}"
        );
        assert_eq!(values(&log, 0).expect("reads"), ["seq-1", "seq-2", "seq-4"]);
        if round == 0 {
            disk = disk.after_kill();
        } else {
            log.close();
        }
        log = open(&disk).expect("opens");
    }
    publish(&log, 3, &[6], None).expect("a new one passes");
    publish(&log, 4, &[], Some((7, 9))).expect("nothing but a range");
    assert_eq!(log.publisher_epoch("system/orders"), Some(4));
    let done = publish(&log, 4, &[8], None);
    assert!(matches!(done, Err(AppendError::Duplicates { .. })));
}

#[test]
fn appends_of_one_publisher_in_one_go_see_each_other() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    // All of them wait together, so that they would share a sync.
    let tries = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| publish(&log, 1, &[1], None).is_ok()))
            .collect();
        tries
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    assert_eq!(tries.iter().filter(|&&stored| stored).count(), 1);
    assert_eq!(values(&log, 0).expect("reads"), ["seq-1"]);
}

#[test]
fn retention_removes_whole_segments_by_age_and_by_size() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 1).expect("created");
    for n in 0..100 {
        append(&log, &[(0, texts(3 * n, 3))]).expect("appended");
    }
    let hour = 3_600_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis() as i64;
    assert_eq!(
        log.retain(now + hour as i64).expect("runs"),
        0,
        "kept for ever by default"
    );

    run(log.alter_topic(TOPIC, |o| o.retention_bytes = Some(4000))).expect("set");
    assert!(log.retain(now).expect("runs") > 0);
    let (first, end) = log.offsets(TOPIC, 0).expect("there");
    assert!(first > 0 && end == 300);
    assert_eq!(
        values(&log, 0).expect("reads"),
        texts(first as usize, (end - first) as usize)
    );
    let gone = log.fetch(TOPIC, 0, first - 1, 100);
    assert!(matches!(gone, Err(FetchError::OffsetOutOfRange { .. })));

    run(log.alter_topic(TOPIC, |o| {
        (o.retention_ms, o.retention_bytes) = (Some(hour), None);
    }))
    .expect("set");
    assert_eq!(log.retain(now).expect("runs"), 0, "not old enough");
    let killed = disk.after_kill();
    assert!(log.retain(now + 2 * hour as i64).expect("runs") > 0);
    assert_eq!(log.offsets(TOPIC, 0).expect("there"), (300, 300));
    assert!(disk.paths("/0/").is_empty(), "{:?}", disk.paths("/0/"));
    append(&log, &[(0, texts(300, 1))]).expect("appended");
    assert_eq!(values(&log, 0).expect("reads"), texts(300, 1));
    log.close();
    let log = open(&disk).expect("opens");
    assert_eq!(values(&log, 0).expect("reads"), texts(300, 1));
    // Trims and appends are replayed alike.
    let log_killed = open(&killed).expect("opens");
    assert_eq!(log_killed.offsets(TOPIC, 0).expect("there"), (first, 300));
}

#[test]
fn a_topic_that_exists_stays_as_it_is_and_a_bad_one_is_refused() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 2).expect("created");
    let options = run(log.create_topic(TOPIC, TopicOptions::default())).expect("there");
    assert_eq!(options.partitions, 2);
    for name in ["", ".", "..", "a/b", "ü", &"x".repeat(250)] {
        let refused = run(log.create_topic(name, TopicOptions::default()));
        assert!(matches!(refused, Err(TopicError::Name { .. })), "{name:?}");
    }
    let none = TopicOptions {
        partitions: 0,
        ..TopicOptions::default()
    };
    assert!(run(log.create_topic("u", none)).is_err());
}

#[test]
fn a_folder_is_opened_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = || LogOptions {
        dir: dir.path().join("log"),
        ..options()
    };
    let log = Log::open(small()).expect("opens");
    let second = Log::open(small());
    assert!(
        matches!(second, Err(OpenError::Locked { .. })),
        "{second:?}"
    );
    drop(log);
    Log::open(small()).expect("opens again");
}

#[test]
fn the_real_disk_keeps_what_was_appended() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = || LogOptions {
        dir: dir.path().join("deep/log"),
        ..options()
    };
    let log = Log::open(small()).expect("opens");
    create_topic(&log, 3).expect("created");
    for n in 0..100 {
        append(&log, &[(0, texts(5 * n, 5)), (2, texts(n, 1))]).expect("appended");
    }
    drop(log);
    let log = Log::open(small()).expect("opens");
    assert_eq!(values(&log, 0).expect("reads"), texts(0, 500));
    assert_eq!(values(&log, 2).expect("reads"), texts(0, 100));
}

#[test]
fn an_option_out_of_bounds_is_named() {
    let mut odd = options();
    odd.wal_file_bytes = 10_000;
    let error = Log::open_on(Arc::new(SimDisk::default()), odd).expect_err("refused");
    assert!(
        error.to_string().contains("wal_file_bytes is 10000"),
        "{error}"
    );
}
