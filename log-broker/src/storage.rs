//! The port to the disk, so that tests can cut the power, tear a write or flip a bit.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use crate::limits;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To read; it must exist.
    Read,
    /// To read and write; created empty when it does not exist.
    Write,
    /// To read and write; emptied when it exists.
    Truncate,
}

/// A tree of files.
///
/// Names become durable only with [`Storage::sync_dir`] of their folder, contents only with
/// [`File::sync`].
pub trait Storage: Send + Sync + 'static {
    /// Creates a folder and those above it. Existing ones are fine.
    ///
    /// # Errors
    /// Of the file system.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a folder, in any order; nothing when it does not exist.
    ///
    /// # Errors
    /// Of the file system.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// Of the file system.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in the same folder, replacing what was there.
    ///
    /// # Errors
    /// Of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Of the file system; `NotFound` when it does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// Of the file system; `NotFound` when it does not exist.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Files that may be open for appends at a time; those that wait for a checkpoint come on top.
    fn open_files_max(&self) -> usize {
        limits::OPEN_SEGMENTS
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Of the file system. Nothing is known about the names then.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks the file at `path` against every other opener until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// One open file. Reads and writes name their position, so that it can be shared.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes from `position`; fewer only at the end of the file.
    ///
    /// # Errors
    /// Of the file system.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `parts`, one behind the other, from `position` on.
    ///
    /// # Errors
    /// Of the file system; any part of it may have been written.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// Of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Its size in bytes.
    ///
    /// # Errors
    /// Of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// Of the file system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the contents durable (`fdatasync`).
    ///
    /// # Errors
    /// Of the file system. Nothing is known about the contents then: neither what is on disk nor
    /// whether a second call that succeeds means anything.
    fn sync(&self) -> io::Result<()>;

    /// The system's own file, if it can send parts of that to a socket by itself.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Whether an error means that there is no room, and may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Reads a file whole, as long as it is not larger than `limit`.
pub(crate) fn read_all(file: &dyn File, limit: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > limit {
        let text = format!("the file has {len} bytes, at most {limit} are plausible");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut buf = vec![0; len as usize];
    let read = file.read_at(&mut buf, 0)?;
    buf.truncate(read);
    Ok(buf)
}
