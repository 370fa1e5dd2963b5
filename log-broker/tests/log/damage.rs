//! A log whose files were changed: a torn end is cut, a corrupt middle is reported.

use std::sync::Arc;

use outbox_log_broker::{AppendError, FetchError, Log, LogOptions, OpenError};

use crate::disk::{Chance, SimDisk};
use crate::rig::{Known, TOPIC, append, create_topic, open, options, seed, values};

/// A killed log with this many appends behind its last checkpoint, and what its user knows.
fn killed_log(appends: usize) -> (SimDisk, Known) {
    let disk = SimDisk::default();
    let mut known = Known::default();
    let rarely = LogOptions {
        checkpoint_bytes: 64 * 1024,
        ..options()
    };
    let log = Log::open_on(Arc::new(disk.clone()), rarely).expect("opens");
    create_topic(&log, 2).expect("created");
    log.checkpoint().expect("a checkpoint");
    for n in 0..appends {
        let parts = [
            (0, vec![format!("a-{n}"), format!("b-{n}")]),
            (1, vec![format!("c-{n}-{}", "x".repeat(100 * n))]),
        ];
        append(&log, &parts).expect("appended");
        known.note(&parts, true);
    }
    (disk.after_kill(), known)
}

/// The first values of both partitions, as after this many appends.
fn assert_prefix(log: &Log, known: &Known, appends: usize, what: &str) {
    for (partition, each) in [(0, 2), (1, 1)] {
        let expected: Vec<_> = known.tried[&partition][..each * appends]
            .iter()
            .map(|(v, _)| v.clone())
            .collect();
        assert_eq!(values(log, partition).expect("reads"), expected, "{what}");
    }
}

#[test]
fn every_truncation_of_the_wal_leaves_the_frames_before_it() {
    let (disk, known) = killed_log(3);
    let wal = first_wal_with_frames(&disk);
    let whole = disk.read(&wal);
    let ends = frame_ends(&whole);
    assert_eq!(ends.len(), 4, "the topic and three appends");
    for cut in 0..=ends[3] {
        let disk = disk.after_kill();
        // Written behind, unsynced: gone with the power.
        disk.paths("/topics/").iter().for_each(|p| disk.delete(p));
        disk.tamper(&wal, |bytes| bytes.truncate(cut));
        let log = open(&disk).expect("opens");
        assert_eq!(log.damage(), None, "cut at {cut}");
        let frames = ends.iter().filter(|&&end| end <= cut).count();
        // The frame of the topic is below the checkpoint: it is not needed any more.
        assert_prefix(
            &log,
            &known,
            frames.saturating_sub(1),
            &format!("cut at {cut}"),
        );
    }
}

/// Where each frame's last byte is written: the frame's own length, without its padding.
fn frame_ends(wal: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while wal.get(at..at + 4) == Some(b"OLW1".as_slice()) {
        let len = |from: usize| {
            let bytes = wal[at + from..at + from + 4]
                .try_into()
                .expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        ends.push(at + 64 + len(40) + len(44));
        at = ends[ends.len() - 1].next_multiple_of(4096);
    }
    ends
}

fn first_wal_with_frames(disk: &SimDisk) -> std::path::PathBuf {
    let paths = disk.paths("/wal/");
    let with_frames = |p: &&std::path::PathBuf| disk.read(p).starts_with(b"OLW1");
    paths.iter().find(with_frames).expect("a WAL file").clone()
}

#[test]
fn a_damaged_frame_in_the_middle_is_reported_and_the_rest_served_read_only() {
    let (disk, known) = killed_log(3);
    let wal = first_wal_with_frames(&disk);
    let starts = [4096, 8192];
    for (n, start) in starts.into_iter().enumerate() {
        for byte in (start..start + 200).step_by(7) {
            let disk = disk.after_kill();
            disk.tamper(&wal, |bytes| bytes[byte] ^= 0x10);
            let before = disk.read(&wal);
            let segments = disk.paths("/topics/");
            let log = open(&disk).expect("opens");
            let what = format!("byte {byte}");
            let damage = log.damage().expect("reported").clone();
            assert_eq!(
                (damage.path.clone(), damage.position),
                (wal.clone(), start as u64),
                "{what}"
            );
            assert_prefix(&log, &known, n, &what);
            let refused = append(&log, &[(0, vec!["x".to_owned()])]);
            assert!(matches!(refused, Err(AppendError::ReadOnly(_))), "{what}");
            drop(log);
            assert_eq!(disk.read(&wal), before, "nothing is cut: {what}");
            assert_eq!(
                disk.paths("/topics/"),
                segments,
                "nothing is removed: {what}"
            );
            let again = open(&disk).expect("opens");
            assert_eq!(again.damage(), Some(&damage), "{what}");
        }
    }
}

#[test]
fn damage_to_the_very_last_group_counts_as_torn() {
    let (disk, known) = killed_log(3);
    let wal = first_wal_with_frames(&disk);
    disk.tamper(&wal, |bytes| bytes[3 * 4096 + 100] ^= 1);
    let log = open(&disk).expect("opens");
    assert_eq!(log.damage(), None);
    assert_prefix(&log, &known, 2, "the last one is gone");
}

#[test]
fn a_wal_file_that_is_gone_from_the_middle_is_reported() {
    let (disk, known) = killed_log(12);
    let wal = disk.paths("/wal/");
    assert!(wal.len() > 3, "{wal:?}");
    disk.delete(&wal[1]);
    let log = open(&disk).expect("opens");
    assert_eq!(log.damage().map(|d| &d.path), Some(&wal[1]));
    assert_prefix(&log, &known, 3, "the frames of the first file");
}

#[test]
fn a_flipped_bit_anywhere_is_never_served() {
    let seed = seed();
    let mut chance = Chance::new(seed);
    for round in 0..400 {
        let what = format!("LOG_SEED={seed}, round {round}");
        let (mut disk, known) = killed_log(1 + chance.below(12) as usize);
        if chance.below(2) == 0 {
            // All of it below a checkpoint.
            drop(open(&disk).expect("opens"));
            disk = disk.after_kill();
        }
        let paths = disk.paths("/log/");
        let path = &paths[chance.below(paths.len() as u64) as usize];
        let what = format!("{what}, {}", path.display());
        disk.tamper(path, |bytes| {
            if !bytes.is_empty() {
                let bit = chance.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        });
        check_flipped(&disk, &known, &what);
    }
}

/// Each value that is served is right and in its place; whatever is missing was reported, or was
/// in the last sync group.
fn check_flipped(disk: &SimDisk, known: &Known, what: &str) {
    let log = match open(disk) {
        Ok(log) => log,
        Err(OpenError::State { .. }) => return,
        Err(e) => panic!("{what}: {e}"),
    };
    for (&partition, tried) in &known.tried {
        match values(&log, partition) {
            Ok(found) => {
                let expected = tried.iter().map(|(v, _)| v).take(found.len());
                assert!(found.iter().eq(expected), "{what}: partition {partition}");
                let last_group = if partition == 0 { 2 } else { 1 };
                let whole = found.len() + last_group >= tried.len();
                assert!(
                    whole || log.damage().is_some(),
                    "{what}: cut and not reported"
                );
            }
            Err(FetchError::Corrupt { .. }) => {}
            Err(e) => panic!("{what}: {e}"),
        }
    }
}

#[test]
fn a_segment_that_is_gone_or_short_is_reported() {
    for gone in [true, false] {
        let (disk, _) = killed_log(12);
        open(&disk).expect("opens").close();
        let segments = disk.paths("/0/");
        let segment = segments
            .iter()
            .find(|p| p.extension().is_some_and(|e| e == "log"));
        let segment = segment.expect("a segment");
        if gone {
            disk.delete(segment);
        } else {
            disk.tamper(segment, |bytes| bytes.truncate(bytes.len() - 1));
        }
        let log = open(&disk).expect("opens");
        assert_eq!(log.damage().map(|d| &d.path), Some(segment));
        assert!(log.fetch(TOPIC, 1, 0, 10_000).is_ok(), "the rest is served");
    }
}

#[test]
fn a_log_without_its_checkpoint_is_not_taken_for_a_new_one() {
    let (disk, _) = killed_log(2);
    disk.delete("/log/state".as_ref());
    let error = open(&disk).expect_err("refused").to_string();
    assert!(error.contains("has no checkpoint"), "{error}");
}
