//! Looking at a log: through every byte, from beside, and into its records.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{
    Append, AppendError, File, Log, Mode, OpenError, Slice, Storage, Wanted, verify_on,
};

use crate::disk::{Chance, SimDisk};
use crate::rig::{TOPIC, append, create_topic, open, run, seed, values};

fn filled() -> (SimDisk, std::sync::Arc<Log>) {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opens");
    create_topic(&log, 2).expect("created");
    for n in 0..40 {
        let parts = [
            (0, vec![format!("a-{n}"), format!("b-{n}")]),
            (1, vec![format!("c-{n}-{}", "x".repeat(20 * n))]),
        ];
        append(&log, &parts).expect("appended");
    }
    (disk, log)
}

#[test]
fn a_whole_log_verifies_and_every_flipped_bit_in_its_segments_is_found() {
    let (disk, log) = filled();
    let open_already = verify_on(&disk, "/log".as_ref());
    assert!(matches!(open_already, Err(OpenError::Locked { .. })));
    let killed = disk.after_kill();
    log.close();
    // Before the WAL is replayed, and after.
    for disk in [killed, disk.clone()] {
        let verified = verify_on(&disk, "/log".as_ref()).expect("readable");
        assert_eq!((verified.topics, verified.partitions), (1, 2));
        assert_eq!(verified.damage, []);
        let rest = verified.records < 120;
        assert_eq!(verified.frames > 0, rest, "{verified:?}");
    }
    let seed = seed();
    let mut chance = Chance::new(seed);
    for path in disk.paths("/topics/") {
        for _ in 0..20 {
            let disk = disk.after_kill();
            let bits = disk.read(&path).len() as u64 * 8;
            let bit = chance.below(bits) as usize;
            disk.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let what = format!("LOG_SEED={seed}, bit {bit} of {}", path.display());
            let before: Vec<_> = disk
                .paths("/")
                .iter()
                .map(|p| (p.clone(), disk.read(p)))
                .collect();
            let verified = verify_on(&disk, "/log".as_ref()).expect("readable");
            let after: Vec<_> = disk
                .paths("/")
                .iter()
                .map(|p| (p.clone(), disk.read(p)))
                .collect();
            assert_eq!(before, after, "{what}: nothing is changed");
            // The leader's epoch in a batch's head is covered by no checksum, and matters to nobody.
            let told = verified
                .damage
                .iter()
                .chain(&verified.notes)
                .any(|d| d.path == path);
            assert!(
                told || in_leader_epoch(&disk.read(&path), bit / 8),
                "{what}"
            );
        }
    }
    disk.delete("/log/state".as_ref());
    let gone = verify_on(&disk, "/log".as_ref());
    assert!(matches!(gone, Err(OpenError::State { .. })), "{gone:?}");
}

/// Whether a byte of a segment is in the leader's epoch of a batch.
fn in_leader_epoch(segment: &[u8], byte: usize) -> bool {
    let mut at = 0;
    while let Some(Ok(length)) = segment.get(at + 8..at + 12).map(<[u8; 4]>::try_from) {
        if (at + 12..at + 16).contains(&byte) {
            return true;
        }
        at += 12 + u32::from_be_bytes(length) as usize;
    }
    false
}

#[test]
fn a_view_shows_what_another_one_has_appended_and_changes_nothing() {
    let (disk, log) = filled();
    for round in 0..3 {
        let readable = Arc::new(OnlyToRead(disk.clone()));
        let view = Log::view_on(readable, "/log").expect("seen");
        assert_eq!(view.damage(), None);
        for partition in 0..2 {
            let seen = values(&view, partition).expect("reads");
            assert_eq!(
                seen,
                values(&log, partition).expect("reads"),
                "round {round}"
            );
        }
        let refused = append(&view, &[(0, vec!["no".to_owned()])]);
        assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
        drop(view);
        append(&log, &[(0, vec![format!("more-{round}")])]).expect("appended");
        if round == 1 {
            log.checkpoint().expect("a checkpoint");
        }
    }
}

/// A disk on which nothing may be changed. (What is on the disk cannot be compared: the log that is
/// looked at makes files ahead in the background.)
struct OnlyToRead(SimDisk);

impl Storage for OnlyToRead {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        panic!("{} is created", dir.display())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        assert_eq!(mode, Mode::Read, "{}", path.display());
        self.0.open(path, mode)
    }

    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        panic!("{} is renamed", from.display())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        panic!("{} is removed", path.display())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        panic!("{} is removed", dir.display())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        panic!("{} is synced", dir.display())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        panic!("{} is locked", path.display())
    }
}

#[test]
fn records_are_found_by_key_and_by_header() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    for n in 0..50 {
        let (mut own, none) = (HeaderBlock::default(), HeaderBlock::default());
        own.push("ce_id", format!("id-{n}").as_bytes());
        let mut append = Append::default();
        let mut encoder = BatchEncoder::begin(&mut append.buffer);
        encoder.record(&RecordFields {
            timestamp: n,
            key: Some(format!("key-{}", n % 10).as_bytes()),
            value: Some(b"value"),
            shared: &none,
            own: &own,
        });
        let bytes = encoder.finish().bytes;
        append.slices.push(Slice {
            topic: TOPIC.into(),
            partition: 0,
            bytes,
        });
        run(log.append(append)).expect("appended");
    }
    let offsets = |wanted: &Wanted, from| {
        let mut found = Vec::new();
        let scanned = log.scan::<()>(TOPIC, 0, from, |record| {
            if wanted.matches(record) {
                found.push(record.offset);
            }
            ControlFlow::Continue(())
        });
        scanned.expect("readable");
        found
    };
    assert_eq!(
        offsets(&Wanted::Key(b"key-3".to_vec()), 0),
        [3, 13, 23, 33, 43]
    );
    assert_eq!(offsets(&Wanted::Key(b"key-3".to_vec()), 14), [23, 33, 43]);
    assert!(offsets(&Wanted::Key(b"key".to_vec()), 0).is_empty());
    let id = |value: &str| Wanted::Header {
        name: "ce_id".to_owned(),
        value: value.into(),
    };
    assert_eq!(offsets(&id("id-17"), 0), [17]);
    assert!(offsets(&id("id-99"), 0).is_empty());
    let first = log.scan(TOPIC, 0, 5, |record| ControlFlow::Break(record.offset));
    assert_eq!(first.expect("readable"), Some(5));
}
