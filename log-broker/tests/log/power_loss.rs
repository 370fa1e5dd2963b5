//! The power goes at every operation in turn: no acknowledged record is lost, there is never a
//! hole, nothing that was cut comes back, and nothing is stored twice.

use std::collections::BTreeSet;

use outbox_log_broker::{AppendError, Log, OffsetCommit};

use crate::disk::{Chance, SimDisk};
use crate::rig::{Known, TOPIC, append, create_topic, open, publish, run, seed, values};

/// Appends until the power goes, at most `steps` times.
fn work(log: &Log, known: &mut Known, name: &str, steps: usize, chance: &mut Chance) {
    for n in 0..steps {
        let mut parts = vec![(chance.below(2) as u32, vec![format!("{name}-{n}")])];
        if chance.below(3) == 0 {
            let large = "x".repeat(chance.below(4000) as usize);
            parts.push((
                2,
                vec![format!("{name}-{n}-{large}"), format!("{name}-{n}-second")],
            ));
        }
        let result = append(log, &parts);
        known.note(&parts, result.is_ok());
        if result.is_err() {
            return;
        }
        if chance.below(8) == 0 && log.checkpoint().is_err() {
            return;
        }
    }
}

#[test]
fn no_acknowledged_record_is_lost_wherever_the_power_goes() {
    let seed = seed();
    for operation in 1..160 {
        let mut chance = Chance::new(seed.wrapping_add(operation));
        let what = format!("LOG_SEED={seed}, operation {operation}");
        let mut disk = SimDisk::default();
        let mut known = Known::default();
        // Several lives: each ends by a power loss, the second and later ones also in recovery.
        for life in 0..5 {
            let at = if life == 0 {
                operation
            } else {
                1 + chance.below(60)
            };
            disk.power_off_after(at);
            if let Ok(log) = open(&disk) {
                assert_eq!(log.damage(), None, "{what}, life {life}");
                if create_topic(&log, 3).is_ok() {
                    work(&log, &mut known, &format!("{life}"), 60, &mut chance);
                }
            }
            disk = disk.after_power_loss(&mut chance);
            check(&disk, &mut known, &format!("{what}, life {life}"));
        }
    }
}

/// Opens a copy of the disk, so that its recovery is not part of the next life, and settles what
/// is known by it: what was there once must be there for ever, what was cut must never be back.
fn check(disk: &SimDisk, known: &mut Known, what: &str) {
    let log = open(&disk.after_kill()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(log.damage(), None, "{what}");
    if log.topic(TOPIC).is_some() {
        known.check(&log, what);
        known.settle(&log);
    } else {
        assert!(
            known.tried.values().flatten().all(|(_, acked)| !acked),
            "{what}"
        );
    }
}

#[test]
fn a_publisher_that_tries_again_after_each_power_loss_is_stored_once_and_in_order() {
    let seed = seed();
    for round in 0..60 {
        let mut chance = Chance::new(seed.wrapping_mul(31).wrapping_add(round));
        let what = format!("LOG_SEED={seed}, round {round}");
        let mut disk = SimDisk::default();
        let mut next = 1;
        let mut epoch = 0;
        while next <= 60 {
            epoch += 1;
            disk.power_off_after(30 + chance.below(80));
            if let Ok(log) = open(&disk)
                && create_topic(&log, 1).is_ok()
            {
                publish_from(&log, epoch, &mut next, &mut chance);
            }
            disk = disk.after_power_loss(&mut chance);
        }
        let log = open(&disk).expect("opens");
        let expected: Vec<_> = (1..next).map(|n| format!("seq-{n}")).collect();
        let found = values(&log, 0).expect("reads");
        assert!(found.len() >= expected.len(), "{what}");
        assert_eq!(found[..expected.len()], expected, "{what}");
        let all: BTreeSet<_> = found.iter().collect();
        assert_eq!(all.len(), found.len(), "{what}: stored twice");
    }
}

/// As a relay does: a batch of a few, those already stored left out, until the power goes.
fn publish_from(log: &Log, epoch: i64, next: &mut i64, chance: &mut Chance) {
    loop {
        let last = *next + chance.below(5) as i64;
        let mut seqs: Vec<i64> = (*next..=last).collect();
        loop {
            match publish(log, epoch, &seqs, Some((*next, last))) {
                Ok(_) => break,
                Err(AppendError::Duplicates { indexes }) => {
                    let mut n = 0;
                    seqs.retain(|_| {
                        n += 1;
                        !indexes.contains(&(n - 1))
                    });
                }
                Err(_) => return,
            }
        }
        *next = last + 1;
    }
}

#[test]
fn a_cut_frame_never_comes_back() {
    // A frame that was written and not synced, cut by a recovery that did not see it, must not be
    // there when its sectors turn up on the disk after all, under a log that went on.
    let mut disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 1).expect("created");
    append(&log, &[(0, vec!["kept".to_owned()])]).expect("appended");
    let wal = disk.paths("/wal/").remove(0);
    let before = disk.read(&wal);
    append(&log, &[(0, vec!["cut".to_owned()])]).expect("appended");
    let after = disk.read(&wal);
    disk = disk.after_kill();
    disk.tamper(&wal, |bytes| *bytes = before);
    disk.paths("/topics/").iter().for_each(|p| disk.delete(p));

    let log = open(&disk).expect("opens");
    assert_eq!(values(&log, 0).expect("reads"), ["kept"]);
    append(&log, &[(0, vec!["new".to_owned()])]).expect("appended");
    let disk = disk.after_kill();
    for path in disk.paths("/wal/") {
        // In its old place, and in every place that a file was renamed to.
        let old = after.clone();
        disk.tamper(&path, |bytes| bytes[8192..].copy_from_slice(&old[8192..]));
        if path == wal {
            disk.tamper(&path, |bytes| *bytes = old);
        }
    }
    let log = open(&disk).expect("opens");
    assert_eq!(log.damage(), None);
    assert_eq!(values(&log, 0).expect("reads"), ["kept", "new"]);
    run(log.commit("g", &[OffsetCommit::new(TOPIC.into(), 0, 2)])).expect("writable");
}
