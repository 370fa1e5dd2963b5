//! What was handed out, written down outside of the file.
//!
//! A backup that is written over the file in place has the same inode and birth, and everything in
//! it agrees with itself: only the seqs that were taken since the backup would be taken again, for
//! other messages, which a broker that drops duplicates would swallow. So the highest seq that a
//! page has handed out is also kept beside the file, in `<file>-witness`, before the page is: a file
//! whose sequence stands below it was set back, and stops with the cure.
//!
//! It is one write to the page cache for each page, and not synced: what it guards against is a
//! person with a backup. Losing the witness loses the guard, nothing else.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use outbox_core::{Seq, StoreError};

/// Digits of the largest seq: the text never gets shorter, so it is overwritten in place.
const DIGITS: usize = 19;

/// The witness of one file, as one process holds it.
#[derive(Debug)]
pub(crate) struct Witness {
    /// The file, and what this process last knew to be in it.
    state: Mutex<(File, Seq)>,
}

impl Witness {
    /// Opens the witness of the store at `store`, creating it if it is missing.
    pub(crate) fn open(store: &Path) -> Result<Self, StoreError> {
        let mut path = store.as_os_str().to_owned();
        path.push("-witness");
        let path = PathBuf::from(path);
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = options.map_err(|e| StoreError::Refused {
            problem: format!("{} cannot be written: {e}", path.display()),
            cure: "give this user the right to write in the folder".to_owned(),
        })?;
        Ok(Self {
            state: Mutex::new((file, 0)),
        })
    }

    /// The highest seq that any process has handed out; 0 when nothing is known.
    pub(crate) fn highest(&self) -> Result<Seq, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, known) = &mut *state;
        *known = read(file).map_err(|e| StoreError::Outage(Box::new(e)))?;
        Ok(*known)
    }

    /// Notes that seqs up to `seq` are about to be handed out.
    pub(crate) fn hand_out(&self, seq: Seq) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, known) = &mut *state;
        if seq <= *known {
            return Ok(());
        }
        // Another process may have come further.
        let highest = read(file).and_then(|found| {
            if seq > found {
                write(file, seq)?;
            }
            Ok(found.max(seq))
        });
        *known = highest.map_err(|e| StoreError::Outage(Box::new(e)))?;
        Ok(())
    }
}

/// A text that is no number (somebody edited it) counts as nothing known.
fn read(file: &mut File) -> std::io::Result<Seq> {
    let mut text = Vec::with_capacity(DIGITS);
    file.seek(SeekFrom::Start(0))?;
    file.take(DIGITS as u64).read_to_end(&mut text)?;
    Ok(std::str::from_utf8(&text)
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(0))
}

fn write(file: &mut File, seq: Seq) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(format!("{seq:0DIGITS$}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_seq_of_all_processes_is_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path().join("outbox.db");
        let (a, b) = (
            Witness::open(&store).expect("open"),
            Witness::open(&store).expect("open"),
        );
        assert_eq!(a.highest().expect("read"), 0);
        a.hand_out(7).expect("write");
        b.hand_out(3).expect("write");
        assert_eq!(a.highest().expect("read"), 7);
        b.hand_out(Seq::MAX).expect("write");
        a.hand_out(8).expect("write");
        assert_eq!(a.highest().expect("read"), Seq::MAX);
        assert_eq!(
            Witness::open(&store)
                .expect("open")
                .highest()
                .expect("read"),
            Seq::MAX
        );
    }

    #[test]
    fn a_damaged_witness_knows_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path().join("outbox.db");
        std::fs::write(
            folder.path().join("outbox.db-witness"),
            "not a number at all",
        )
        .expect("write");
        let witness = Witness::open(&store).expect("open");
        assert_eq!(witness.highest().expect("read"), 0);
        witness.hand_out(5).expect("write");
        assert_eq!(witness.highest().expect("read"), 5);
    }
}
