//! Where everything lies in the log's folder.

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Bytes of a topic's name that are in its folder's: with the id it has to be a name of at most 255.
const NAME_BYTES_MAX: usize = 200;

/// The names of files and folders.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The log's folder.
    pub dir: PathBuf,
}

impl Layout {
    /// Locked while the log is open.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The last checkpoint.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A checkpoint being written.
    pub fn state_next(&self) -> PathBuf {
        self.dir.join("state.next")
    }

    /// The WAL files.
    pub fn wal(&self) -> PathBuf {
        self.dir.join("wal")
    }

    /// One WAL file.
    pub fn wal_file(&self, number: u64) -> PathBuf {
        self.wal().join(wal_name(number))
    }

    /// The topics.
    pub fn topics(&self) -> PathBuf {
        self.dir.join("topics")
    }

    /// One topic. Its id is part of the name, so that one that is created again under an old name
    /// never meets the files of the old one.
    pub fn topic(&self, name: &str, id: Uuid) -> PathBuf {
        // The names of topics are ASCII.
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        self.topics().join(format!("{name}.{}", id.simple()))
    }

    /// Every folder from the log's own down to `dir`: all of them must be synced before a file in
    /// `dir` is sure to be found.
    pub fn with_parents<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a Path> {
        dir.ancestors()
            .take_while(move |at| at.starts_with(&self.dir))
    }
}

/// Name of a WAL file.
pub(crate) fn wal_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// Number of a WAL file; `None` when the name is none.
pub(crate) fn wal_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()?;
    (wal_name(number) == name).then_some(number)
}
