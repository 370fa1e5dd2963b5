//! What the threads and the handle of one open log share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;
use uuid::Uuid;

use crate::buffers::Buffers;
use crate::error::{AppendError, Damage, DiskError};
use crate::layout::Layout;
use crate::partition::SealedIndex;
use crate::storage::{File, Storage};
use crate::tables::{Aftermath, Tables};
use crate::watch::Watchers;

/// One open log.
pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub layout: Layout,
    pub identity: Identity,
    pub tables: RwLock<Tables>,
    pub dirty: Mutex<Dirty>,
    /// For reads.
    pub buffers: Arc<Buffers>,
    /// Counts what became visible, so that readers can wait for more.
    pub version: watch::Sender<u64>,
    /// Those who wait for some partitions only.
    pub watchers: Arc<Watchers>,
    /// Found when it was opened: nothing is written then.
    pub damage: Option<Damage>,
    failed: OnceLock<Arc<str>>,
}

/// What a checkpoint says about the log itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub log_id: Uuid,
    pub seed: u32,
    pub generation: u64,
    pub wal_file_bytes: u64,
}

/// What the next checkpoint has to sync.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Segments, by path. The very handles that were written through are kept, for only they are
    /// sure to be told of an error of the write-back.
    pub files: BTreeMap<PathBuf, Arc<dyn File>>,
    pub dirs: BTreeSet<PathBuf>,
    /// Indexes of segments that were closed.
    pub sealed: Vec<SealedIndex>,
    /// Files that nothing refers to any more.
    pub unneeded: Vec<PathBuf>,
    /// Folders that are empty when those are gone.
    pub unneeded_dirs: Vec<PathBuf>,
}

impl Dirty {
    /// Notes what was written to. Of a file that is noted already the older handle stays: it is
    /// told of every error since. Answers how many files wait.
    pub fn note(
        &mut self,
        files: BTreeMap<PathBuf, Arc<dyn File>>,
        dirs: impl IntoIterator<Item = PathBuf>,
    ) -> usize {
        for (path, file) in files {
            self.files.entry(path).or_insert(file);
        }
        self.dirs.extend(dirs);
        self.files.len()
    }

    /// Notes what an applied frame left to do.
    pub fn note_aftermath(&mut self, aftermath: Aftermath) {
        self.sealed.extend(aftermath.sealed);
        self.unneeded.extend(aftermath.unneeded);
        self.unneeded_dirs.extend(aftermath.unneeded_dirs);
    }
}

impl Shared {
    pub fn new(
        storage: Arc<dyn Storage>,
        layout: Layout,
        identity: Identity,
        tables: Tables,
        damage: Option<Damage>,
    ) -> Self {
        Self {
            storage,
            layout,
            identity,
            tables: RwLock::new(tables),
            dirty: Mutex::default(),
            buffers: Arc::default(),
            version: watch::Sender::new(0),
            watchers: Arc::default(),
            damage,
            failed: OnceLock::new(),
        }
    }

    /// The tables, to read. Readers hold them for microseconds only, never while they touch a
    /// file; only the writer thread, the only one that changes them, may.
    pub fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the tables.
    pub fn update(&self, change: impl FnOnce(&mut Tables) -> Aftermath) -> Aftermath {
        change(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the log for good: after this error nothing can be known about what is durable.
    pub fn fail(&self, error: &DiskError) -> AppendError {
        let text = self.failed.get_or_init(|| {
            tracing::error!(%error, "the log stops: nothing is known about what is durable");
            error.to_string().into()
        });
        AppendError::Failed(text.clone())
    }

    /// Refuses when the log is read-only or stopped.
    pub fn check_writable(&self) -> Result<(), AppendError> {
        if let Some(damage) = &self.damage {
            return Err(AppendError::ReadOnly(damage.clone()));
        }
        match self.failed.get() {
            Some(text) => Err(AppendError::Failed(text.clone())),
            None => Ok(()),
        }
    }
}
