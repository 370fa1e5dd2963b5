//! Where everything lies in the log's folder.

use std::path::{Path, PathBuf};

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

    /// One topic.
    pub fn topic(&self, name: &str) -> PathBuf {
        self.topics().join(name)
    }

    /// One partition.
    pub fn partition(&self, topic: &str, partition: u32) -> PathBuf {
        self.topic(topic).join(partition.to_string())
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
