//! A disk that fills up, one that fails, and one that becomes read-only.

use outbox_log_broker::AppendError;

use crate::disk::SimDisk;
use crate::rig::{Known, append, create_topic, open, values};

fn parts(n: usize) -> [(u32, Vec<String>); 2] {
    [
        (0, vec![format!("a-{n}-{}", "x".repeat(300))]),
        (1, vec![format!("b-{n}")]),
    ]
}

#[test]
fn a_full_disk_refuses_appends_serves_reads_and_recovers() {
    // The room ends at every place in turn: in a segment, a WAL file, a checkpoint.
    for slack in (0..40_000).step_by(700) {
        let disk = SimDisk::default();
        let mut known = Known::default();
        let log = open(&disk).expect("opens");
        create_topic(&log, 2).expect("created");
        disk.set_capacity(Some(disk.used() + slack));
        let what = format!("slack {slack}");
        let mut n = 0;
        let error = loop {
            let result = append(&log, &parts(n));
            known.note(&parts(n), result.is_ok());
            n += 1;
            match result {
                Ok(_) => assert!(n < 2000, "{what}: never full"),
                Err(e) => break e,
            }
        };
        assert!(matches!(error, AppendError::Full(_)), "{what}: {error}");
        known.check(&log, &what);
        // A checkpoint may have made a little room since.
        let again = append(&log, &parts(n));
        known.note(&parts(n), again.is_ok());
        let full_or_fine = matches!(again, Ok(_) | Err(AppendError::Full(_)));
        assert!(full_or_fine, "{what}: {:?}", again.err());
        known.check(&log, &what);

        disk.set_capacity(None);
        for n in n + 1..n + 30 {
            append(&log, &parts(n)).unwrap_or_else(|e| panic!("{what}: {e}"));
            known.note(&parts(n), true);
        }
        known.check(&log, &what);
        let killed = disk.after_kill();
        known.check(&open(&killed).expect("opens"), &what);
        log.close();
        known.check(&open(&disk).expect("opens"), &what);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_until_the_log_is_opened_again() {
    for failing in ["/wal/", "/topics/", "/state"] {
        let disk = SimDisk::default();
        let mut known = Known::default();
        let log = open(&disk).expect("opens");
        create_topic(&log, 2).expect("created");
        append(&log, &parts(0)).expect("appended");
        known.note(&parts(0), true);
        let mut n = 1;
        let error = loop {
            // A WAL file that is being made ahead may take the failure: that one is made again.
            disk.fail_sync_of(Some(failing));
            assert!(n < 1000, "{failing}: no sync ever failed");
            let result = append(&log, &parts(n)).map(|_| ());
            let result = result.and_then(|()| log.checkpoint());
            known.note(&parts(n), result.is_ok());
            n += 1;
            if let Err(e) = result {
                break e;
            }
        };
        assert!(
            matches!(error, AppendError::Failed(_)),
            "{failing}: {error}"
        );
        let refused = append(&log, &parts(n));
        assert!(
            matches!(refused, Err(AppendError::Failed(_))),
            "{failing}: {refused:?}"
        );
        values(&log, 0).expect("reads go on");
        log.close();
        // The page cache still shows what the disk never got: only what recovery writes anew is
        // known to be durable, and that must survive a power loss at once.
        let log = open(&disk).expect("opens");
        known.check(&log, failing);
        known.settle(&log);
        let mut chance = crate::disk::Chance::new(0);
        for _ in 0..20 {
            let lost = disk.after_power_loss(&mut chance);
            known.check(&open(&lost).expect("opens"), failing);
        }
    }
}

#[test]
fn a_disk_that_becomes_read_only_refuses_appends_serves_reads_and_keeps_what_was_acknowledged() {
    // After every count of appends: also when files are about to be made, and at checkpoints.
    for appends in 0..25 {
        let disk = SimDisk::default();
        let mut known = Known::default();
        let what = format!("after {appends} appends");
        let log = open(&disk).expect("opens");
        create_topic(&log, 2).expect("created");
        for n in 0..appends {
            append(&log, &parts(n)).expect("appended");
            known.note(&parts(n), true);
        }
        disk.set_read_only(true);
        for n in appends..appends + 3 {
            let refused = append(&log, &parts(n)).expect_err("refused");
            known.note(&parts(n), false);
            assert!(
                matches!(refused, AppendError::Failed(_)),
                "{what}: {refused}"
            );
            let text = refused.to_string();
            assert!(text.contains("read-only filesystem"), "{what}: {text}");
            known.check(&log, &what);
        }
        assert!(log.writable().is_err(), "{what}");
        log.close();
        let refused = open(&disk).expect_err("nothing can be written").to_string();
        assert!(
            refused.contains("read-only filesystem"),
            "{what}: {refused}"
        );
        disk.set_read_only(false);
        let log = open(&disk).expect("opens");
        known.check(&log, &what);
        append(&log, &parts(99)).expect("appended");
        known.note(&parts(99), true);
        known.check(&log, &what);
    }
}
