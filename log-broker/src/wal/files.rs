//! The WAL's files: made ahead, zero-filled, and used again.
//!
//! A file that grows costs two to five times more for each sync, for its size and its blocks have
//! to reach the disk as well. So each file is written once with zeros and synced before it is
//! used, and a file that a checkpoint has made obsolete is renamed to the next number.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Context, DiskError};
use crate::layout::{Layout, wal_number};
use crate::storage::{File, Mode, Storage};

/// Files that are kept for use; more are removed.
const SPARES_MAX: usize = 16;
/// Bytes of zeros written at once.
const ZEROS_BYTES: usize = 1024 * 1024;

/// The WAL's files of one open log.
pub(crate) struct WalFiles {
    storage: Arc<dyn Storage>,
    layout: Layout,
    file_bytes: u64,
    /// Held while a file is made, so that the writer waits for one that is nearly there.
    stock: Mutex<Stock>,
    wanted: Mutex<Wanted>,
    wake: Condvar,
}

#[derive(Default)]
struct Stock {
    /// Ready, by number.
    ready: BTreeMap<u64, Arc<dyn File>>,
    /// Numbers of files whose frames are all below the last checkpoint.
    spare: Vec<u64>,
    /// The last file that was made. Files are made in order, and never a second time: that would
    /// replace the one that is written to.
    made: Option<u64>,
}

#[derive(Default)]
struct Wanted {
    number: Option<u64>,
    closed: bool,
}

impl WalFiles {
    pub fn new(storage: Arc<dyn Storage>, layout: Layout, file_bytes: u64) -> Self {
        Self {
            storage,
            layout,
            file_bytes,
            stock: Mutex::default(),
            wanted: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Size of each file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Path of the file that holds `position`.
    pub fn path_of(&self, position: u64) -> PathBuf {
        self.layout.wal_file(position / self.file_bytes)
    }

    /// The file of that number, made now if it is not there yet.
    pub fn take(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        let mut stock = lock(&self.stock);
        match stock.ready.remove(&number) {
            Some(file) => Ok(file),
            None => self.make(&mut stock, number),
        }
    }

    /// Has the file of that number made in the background.
    pub fn want(&self, number: u64) {
        lock(&self.wanted).number = Some(number);
        self.wake.notify_one();
    }

    /// Makes the file of that number ahead of its use.
    pub fn prepare(&self, number: u64) -> Result<(), DiskError> {
        let mut stock = lock(&self.stock);
        if stock.made.is_none_or(|made| made < number) {
            let file = self.make(&mut stock, number)?;
            stock.ready.insert(number, file);
        }
        Ok(())
    }

    /// Gives back every file that lies wholly below `position`: nothing will read them again.
    pub fn release_below(&self, position: u64) -> Result<(), DiskError> {
        let (dir, bound) = (self.layout.wal(), position / self.file_bytes);
        // Before the look at the folder: a spare that is used meanwhile would be noted as one again,
        // under a name that is gone.
        let mut stock = lock(&self.stock);
        let names = self.storage.list(&dir).during("list", &dir)?;
        for number in names.iter().filter_map(|name| wal_number(name)) {
            if number >= bound || stock.spare.contains(&number) {
                continue;
            }
            if stock.spare.len() < SPARES_MAX {
                stock.spare.push(number);
            } else {
                let path = self.layout.wal_file(number);
                self.storage.remove(&path).during("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Makes files until [`WalFiles::close`]: the body of a thread.
    pub fn run(&self) {
        while let Some(number) = self.next_wanted() {
            if let Err(error) = self.prepare(number) {
                // The writer will try again itself, and answer for it.
                tracing::warn!(%error, "a WAL file could not be made ahead");
            }
        }
    }

    /// Ends [`WalFiles::run`].
    pub fn close(&self) {
        lock(&self.wanted).closed = true;
        self.wake.notify_all();
    }

    fn next_wanted(&self) -> Option<u64> {
        let mut wanted = lock(&self.wanted);
        loop {
            if wanted.closed {
                return None;
            }
            if let Some(number) = wanted.number.take() {
                return Some(number);
            }
            wanted = self
                .wake
                .wait(wanted)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(&self, stock: &mut Stock, number: u64) -> Result<Arc<dyn File>, DiskError> {
        let (path, dir) = (self.layout.wal_file(number), self.layout.wal());
        let file = match stock.spare.last() {
            Some(&spare) => {
                let from = self.layout.wal_file(spare);
                // Its old frames name their old positions, so that they are never taken for new.
                self.storage.rename(&from, &path).during("rename", &from)?;
                stock.spare.pop();
                self.storage
                    .open(&path, Mode::Write)
                    .during("open", &path)?
            }
            None => self.make_zeroed(&path)?,
        };
        // Before anything in it is acknowledged, its name must be durable.
        self.storage.sync_dir(&dir).during("sync", &dir)?;
        stock.made = Some(number);
        Ok(file)
    }

    fn make_zeroed(&self, path: &std::path::Path) -> Result<Arc<dyn File>, DiskError> {
        let next = self.layout.wal().join("next");
        let made = self.zero_fill(&next);
        if made.is_err() {
            // On a full disk, half a file would only make it fuller.
            let _ = self.storage.remove(&next);
        }
        let file = made?;
        self.storage.rename(&next, path).during("rename", &next)?;
        Ok(file)
    }

    fn zero_fill(&self, path: &std::path::Path) -> Result<Arc<dyn File>, DiskError> {
        let file = self
            .storage
            .open(path, Mode::Truncate)
            .during("create", path)?;
        let zeros = vec![0; ZEROS_BYTES.min(self.file_bytes as usize)];
        let mut position = 0;
        while position < self.file_bytes {
            let part = (self.file_bytes - position).min(zeros.len() as u64);
            file.write_at(&[IoSlice::new(&zeros[..part as usize])], position)
                .during("write", path)?;
            position += part;
        }
        file.sync().during("sync", path)?;
        Ok(file)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    #[test]
    fn a_file_that_is_written_to_is_never_made_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout {
            dir: dir.path().to_owned(),
        };
        Disk.create_dir(&layout.wal()).expect("created");
        let files = WalFiles::new(Arc::new(Disk), layout.clone(), 8192);
        let file = files.take(3).expect("made");
        file.write_at(&[IoSlice::new(b"frame")], 0)
            .expect("written");
        // The background thread comes late with what the writer had to make itself.
        files.prepare(3).expect("nothing to do");
        let stored = std::fs::read(layout.wal_file(3)).expect("readable");
        assert_eq!(stored[..5], *b"frame");
        files.prepare(4).expect("made");
        assert_eq!(
            std::fs::read(layout.wal_file(4)).expect("there").len(),
            8192
        );
    }
}
