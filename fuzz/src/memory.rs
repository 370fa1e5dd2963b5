//! A disk in memory.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outbox_log_broker::{File, Mode, Storage};

/// Largest file: what a file's own bytes ask for may not fill the machine's memory.
const FILE_BYTES_MAX: usize = 8 << 20;

type Content = Arc<Mutex<Vec<u8>>>;

/// Files by path. Clones share them.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<PathBuf, Content>>>);

struct MemoryFile(Content);

impl Memory {
    /// With these files.
    pub fn with(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        let files = files.into_iter();
        let files = files.map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes))));
        Self(Arc::new(Mutex::new(files.collect())))
    }

    /// All files, in the order of their paths.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = lock(&self.0);
        let files = files.iter();
        files
            .map(|(path, c)| (path.clone(), lock(c).clone()))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Storage for Memory {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = lock(&self.0);
        let inside = files.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let first = inside.filter_map(|path| path.components().next());
        let mut names: Vec<String> = first
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut files = lock(&self.0);
        let content = match files.get(path) {
            Some(content) => content.clone(),
            None if mode == Mode::Read => return Err(io::ErrorKind::NotFound.into()),
            None => files.entry(path.to_owned()).or_default().clone(),
        };
        if mode == Mode::Truncate {
            lock(&content).clear();
        }
        Ok(Arc::new(MemoryFile(content)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = lock(&self.0).remove(path);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let content = lock(&self.0);
        let from = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let count = buf.len().min(content.len() - from);
        buf[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut content = lock(&self.0);
        let mut at = bounded(position)?;
        for part in parts {
            let end = bounded((at + part.len()) as u64)?;
            if content.len() < end {
                content.resize(end, 0);
            }
            content[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.0).resize(bounded(len)?, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn bounded(position: u64) -> io::Result<usize> {
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    match position <= FILE_BYTES_MAX {
        true => Ok(position),
        false => Err(io::ErrorKind::StorageFull.into()),
    }
}
