//! Batches that stay in their file, on the machine's own disk: the same as those that are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use outbox_log_broker::batch::BatchHeader;
use outbox_log_broker::{
    Batches, FetchError, Fetched, FileRange, Isolation, Log, LogOptions, TopicOptions,
};

use crate::disk::Chance;
use crate::rig::{Client, TOPIC, append_of, run, seed};

const MOST: usize = 1 << 20;

fn open(dir: &Path) -> Arc<Log> {
    Log::open(LogOptions::new(dir)).expect("opens")
}

/// A log with some segments of batches of all sizes; answers the offset behind them.
fn fill(log: &Log, chance: &mut Chance) -> i64 {
    let options = TopicOptions {
        partitions: 1,
        segment_bytes: 300_000,
        ..TopicOptions::default()
    };
    run(log.create_topic(TOPIC, options)).expect("created");
    let mut end = 0;
    for _ in 0..150 {
        let records = 1 + chance.below(5);
        let size = |chance: &mut Chance| 1 + chance.below(6_000) as usize;
        let values: Vec<String> = (0..records).map(|_| "v".repeat(size(chance))).collect();
        run(log.append(append_of(&[(0, values)]))).expect("appended");
        end += records as i64;
    }
    end
}

fn in_file(log: &Log, offset: i64, most: usize, isolation: Isolation) -> Fetched<Batches> {
    log.fetch_in_file(TOPIC, 0, offset, most, isolation)
        .expect("fetched")
}

fn range(fetched: Fetched<Batches>) -> Option<FileRange> {
    match fetched.batches {
        Batches::InFile(range) => Some(range),
        Batches::Read(_) => None,
    }
}

fn bytes(batches: &Batches) -> Bytes {
    match batches {
        Batches::Read(bytes) => bytes.clone(),
        Batches::InFile(range) => range.read(range.len()).expect("read"),
    }
}

/// Both ways to fetch answer the same; says how often the batches stayed where they are.
fn compare(log: &Log, end: i64, (seed, chance): (u64, &mut Chance), isolation: Isolation) -> usize {
    let mut stayed = 0;
    for _ in 0..300 {
        let offset = chance.below(end as u64 + 1) as i64;
        let most = 1 + chance.below(400_000) as usize;
        let read = log.fetch_isolated(TOPIC, 0, offset, most, isolation);
        let read = read.expect("fetched");
        let found = in_file(log, offset, most, isolation);
        let what = format!("LOG_SEED={seed}, from {offset}, at most {most} bytes");
        assert!(bytes(&found.batches) == read.batches, "{what}");
        assert_eq!(
            (found.first_offset, found.end_offset, &found.aborted),
            (read.first_offset, read.end_offset, &read.aborted),
            "{what}"
        );
        stayed += usize::from(range(found).is_some());
    }
    stayed
}

#[test]
fn what_stays_in_its_file_is_what_would_be_read() {
    let seed = seed();
    let (dir, mut chance) = (tempfile::tempdir().expect("a folder"), Chance::new(seed));
    let log = open(dir.path());
    let end = fill(&log, &mut chance);
    let stayed = compare(&log, end, (seed, &mut chance), Isolation::Uncommitted);
    assert!(stayed > 100, "{stayed} of 300 stayed in their file");
    // An open transaction ends what readers of committed records get, in the midst of a segment.
    let mut client = Client::begin(&log, "payments");
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "undecided").expect("sent");
    run(log.append(append_of(&[(0, vec!["v".repeat(70_000)])]))).expect("appended");
    compare(&log, end, (seed, &mut chance), Isolation::Committed);
}

#[test]
fn what_this_process_has_not_checked_is_read_once_and_checked_then() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut chance = Chance::new(1);
    let log = open(dir.path());
    fill(&log, &mut chance);
    log.close();
    drop(log);
    let log = open(dir.path());
    let all = Isolation::Uncommitted;
    let first = in_file(&log, 0, MOST, all);
    let read = bytes(&first.batches);
    assert!(range(first).is_none(), "nobody has checked it");
    let second = range(in_file(&log, 0, MOST, all)).expect("it has been checked");
    assert!(second.read(MOST).expect("read") == read);
    assert!(
        range(in_file(&log, 0, 1_000, all)).is_none(),
        "it is little"
    );
}

#[test]
fn damage_that_is_there_before_the_first_look_is_never_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut chance = Chance::new(2);
    let log = open(dir.path());
    fill(&log, &mut chance);
    log.close();
    drop(log);
    flip(&first_segment(dir.path()), 100_000);
    let log = open(dir.path());
    let fetch = |offset, most| log.fetch_in_file(TOPIC, 0, offset, most, Isolation::Uncommitted);
    let corrupt = |error| assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    corrupt(fetch(0, MOST).expect_err("it is damaged"));
    // What stands before the damage is fine, and its being checked says nothing of the rest.
    fetch(0, 70_000).expect("it is whole");
    let front = range(fetch(0, MOST).expect("it is whole")).expect("it has been checked");
    assert!(front.len() <= 70_000);
    let read = front.read(MOST).expect("read");
    let mut next = 0;
    let mut rest = &read[..];
    while let Ok(header) = BatchHeader::parse(rest) {
        next = header.next_offset();
        rest = &rest[header.bytes..];
    }
    corrupt(fetch(next, MOST).expect_err("the damage is there"));
}

#[test]
fn what_is_held_stays_when_its_segment_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut chance = Chance::new(3);
    let log = open(dir.path());
    let end = fill(&log, &mut chance);
    let all = Isolation::Uncommitted;
    let mut held = range(in_file(&log, 0, MOST, all)).expect("it was just appended");
    let before = held.read(MOST).expect("read");
    let segment = first_segment(dir.path());
    run(log.trim(TOPIC, 0, end)).expect("trimmed");
    log.checkpoint().expect("a checkpoint");
    assert!(!segment.exists(), "it is gone");
    held.advance(7);
    assert!(held.read(MOST).expect("read") == before[7..]);
}

/// The oldest segment of the only partition.
fn first_segment(dir: &Path) -> PathBuf {
    let topics = std::fs::read_dir(dir.join("topics")).expect("a folder");
    let topic = topics.flatten().next().expect("a topic").path();
    topic.join("0/00000000000000000000.log")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}
