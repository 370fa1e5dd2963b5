//! What an acknowledgement means, by topic, and whose clock timestamps are of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_log_broker::batch::Records;
use outbox_log_broker::{Flush, Log, LogOptions, Timestamps, TopicOptions};

use crate::disk::{Chance, SimDisk};
use crate::rig::{append_to, open, options, run, seed, values_of};

const SYNC: &str = "sync";
const ASYNC: &str = "async";

fn create(log: &Log, name: &str, change: impl FnOnce(&mut TopicOptions)) -> bool {
    let mut options = TopicOptions {
        partitions: 1,
        segment_bytes: 3000,
        ..TopicOptions::default()
    };
    change(&mut options);
    run(log.create_topic(name, options)).is_ok()
}

/// Both topics; whether they are there.
fn create_both(log: &Log) -> bool {
    create(log, SYNC, |_| {}) && create(log, ASYNC, |o| o.flush = Flush::Async)
}

/// What a user knows of a topic.
#[derive(Default)]
struct Known {
    tried: Vec<String>,
    /// How many of those are acknowledged.
    acknowledged: usize,
    /// How many of those must survive the loss of power.
    durable: usize,
}

impl Known {
    /// Of a log that was opened: at least `least` of what was tried, in order; then all of it
    /// stays.
    fn check(&mut self, log: &Log, topic: &str, least: usize, what: &str) {
        let found = match log.topic(topic) {
            Some(_) => values_of(log, topic, 0).unwrap_or_else(|e| panic!("{what}: {e}")),
            None => Vec::new(),
        };
        assert!(
            found.len() >= least,
            "{what}: {topic} lost {:?} of {:?}",
            &self.tried[found.len()..],
            self.tried
        );
        assert_eq!(found[..], self.tried[..found.len()], "{what}: {topic}");
        (self.acknowledged, self.durable) = (found.len(), found.len());
        self.tried = found;
    }
}

/// Appends to either topic until the power goes.
fn work(log: &Log, sync: &mut Known, lazy: &mut Known, name: &str, chance: &mut Chance) {
    for n in 0..60 {
        let value = format!("{name}-{n}-{}", "x".repeat(chance.below(900) as usize));
        let is_sync = chance.below(3) == 0;
        let (known, topic) = match is_sync {
            true => (&mut *sync, SYNC),
            false => (&mut *lazy, ASYNC),
        };
        known.tried.push(value.clone());
        if append_to(log, topic, 0, &[value]).is_err() {
            return;
        }
        known.acknowledged = known.tried.len();
        let checkpoint = chance.below(12) == 0;
        if checkpoint && log.checkpoint().is_err() {
            return;
        }
        // Whatever makes something durable makes all before it durable.
        if is_sync || checkpoint {
            sync.durable = sync.acknowledged;
            lazy.durable = lazy.acknowledged;
        }
    }
}

#[test]
fn a_power_loss_takes_only_the_end_of_async_topics_and_a_kill_takes_nothing() {
    let seed = seed();
    for operation in 1..160 {
        let mut chance = Chance::new(seed.wrapping_mul(13).wrapping_add(operation));
        let mut disk = SimDisk::default();
        let (mut sync, mut lazy) = (Known::default(), Known::default());
        for life in 0..5 {
            let what = format!("LOG_SEED={seed}, operation {operation}, life {life}");
            disk.power_off_after(match life {
                0 => operation,
                _ => 1 + chance.below(80),
            });
            if let Ok(log) = open(&disk) {
                assert_eq!(log.damage(), None, "{what}");
                if create_both(&log) {
                    work(&log, &mut sync, &mut lazy, &format!("{life}"), &mut chance);
                }
            }
            // Sometimes only the process goes.
            let killed = chance.below(3) == 0;
            disk = match killed {
                true => disk.after_kill(),
                false => disk.after_power_loss(&mut chance),
            };
            let log = open(&disk.after_kill()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(log.damage(), None, "{what}");
            let least = if killed {
                lazy.acknowledged
            } else {
                lazy.durable
            };
            let all = sync.acknowledged;
            sync.check(&log, SYNC, all, &what);
            lazy.check(&log, ASYNC, least, &what);
        }
    }
}

#[test]
fn what_was_acknowledged_early_is_synced_soon_although_nothing_follows() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    assert!(create_both(&log));
    append_to(&log, ASYNC, 0, &["a".to_owned()]).expect("appended");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = 0;
    loop {
        assert!(Instant::now() < deadline, "never synced");
        if disk.syncs() == seen {
            std::thread::yield_now();
            continue;
        }
        // Something was synced: perhaps a file that is made ahead.
        seen = disk.syncs();
        let log = open(&disk.after_worst_power_loss()).expect("opens");
        if values_of(&log, ASYNC, 0).expect("reads") == ["a"] {
            return;
        }
    }
}

#[test]
fn a_topic_that_says_so_stamps_the_time_of_the_append() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    assert!(create(&log, SYNC, |o| o.timestamps = Timestamps::Append));
    let start = now_ms();
    append_to(&log, SYNC, 0, &["a".to_owned(), "b".to_owned()]).expect("appended");
    let fetched = log
        .fetch(SYNC, 0, 0, 1000)
        .expect("reads, so its checksum is right");
    let records = Records::new(&fetched.batches).expect("a batch");
    assert!(records.header().is_append_time());
    for record in records {
        let timestamp = record.expect("a record").timestamp;
        assert!((start..=now_ms()).contains(&timestamp), "{timestamp}");
    }
    let found = log.offset_at_time(SYNC, 0, start).expect("reads");
    assert_eq!(found.expect("found").offset, 0);
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

#[test]
fn retention_and_a_full_wal_do_not_wait_for_each_other() {
    // The keeper trims all the time, through the writer; the writer is short of WAL all the time,
    // and a checkpoint makes room.
    let restless = LogOptions {
        interval: Duration::from_micros(1),
        wal_bytes_max: 32 * 1024,
        ..options()
    };
    let log = Log::open_on(Arc::new(SimDisk::default()), restless).expect("opens");
    assert!(create(&log, SYNC, |o| o.retention_bytes = Some(1)));
    for n in 0..400 {
        append_to(&log, SYNC, 0, &[format!("{n}-{}", "x".repeat(2000))]).expect("appended");
    }
    log.retain(now_ms()).expect("runs");
    assert!(log.offsets(SYNC, 0).expect("there").0 > 300);
}
