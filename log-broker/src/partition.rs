//! One partition: its segments, and what is visible of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::batch::BatchHeader;
use crate::error::DiskError;
use crate::index::{Index, IndexEntry, walk};
use crate::storage::{File, Mode, Storage};

/// One partition. Everything it names is durable.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// Its folder.
    pub dir: PathBuf,
    /// First offset held.
    pub start: i64,
    /// Offset behind the last.
    pub end: i64,
    /// In order of offsets; appends go to the last.
    pub segments: Vec<Segment>,
}

/// One file of record batches.
pub(crate) struct Segment {
    pub state: SegmentState,
    pub index: SegmentIndex,
    /// Open while it is appended to.
    pub file: Option<Arc<dyn File>>,
}

/// What a checkpoint knows of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentState {
    /// Offset of the first record: the file's name.
    pub base: i64,
    /// Offset behind the last record.
    pub end: i64,
    /// Bytes of it that count; what lies behind them is not there.
    pub bytes: u64,
    /// Latest timestamp of a record, in ms.
    pub max_timestamp: i64,
    /// When the last record was appended, in ms of wall time: retention counts from here, so
    /// that a message that was held up for long is not removed as soon as it arrives.
    pub appended_ms: i64,
}

/// The index of the segment being written, or one that is loaded when it is first needed.
pub(crate) enum SegmentIndex {
    Live(Index),
    Sealed(Arc<OnceLock<Index>>),
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.fmt(f)
    }
}

impl Segment {
    /// An empty one.
    pub fn new(base: i64, file: Arc<dyn File>) -> Self {
        Self {
            state: SegmentState {
                base,
                end: base,
                bytes: 0,
                max_timestamp: i64::MIN,
                appended_ms: i64::MIN,
            },
            index: SegmentIndex::Live(Index::default()),
            file: Some(file),
        }
    }

    /// One that a checkpoint knows.
    pub fn sealed(state: SegmentState) -> Self {
        Self {
            state,
            index: SegmentIndex::Sealed(Arc::default()),
            file: None,
        }
    }

    /// Counts the batches of `data`, which were written at its end.
    fn extend(&mut self, data: &[u8], wall_ms: i64) {
        let state = &mut self.state;
        let mut rest = data;
        while let Ok(header) = BatchHeader::parse(rest) {
            if let SegmentIndex::Live(index) = &mut self.index {
                index.note(header.base_offset, state.bytes, state.max_timestamp);
            }
            state.bytes += header.bytes as u64;
            state.end = header.next_offset();
            state.max_timestamp = state.max_timestamp.max(header.max_timestamp);
            rest = rest.get(header.bytes..).unwrap_or_default();
        }
        state.appended_ms = state.appended_ms.max(wall_ms);
    }

    /// Closes it to appends. Answers the index, to be saved beside it.
    fn seal(&mut self) -> Arc<OnceLock<Index>> {
        self.file = None;
        let cell = match &mut self.index {
            SegmentIndex::Live(index) => Arc::new(OnceLock::from(std::mem::take(index))),
            SegmentIndex::Sealed(cell) => cell.clone(),
        };
        self.index = SegmentIndex::Sealed(cell.clone());
        cell
    }
}

/// Where to look in a partition: a copy, so that no lock is held while reading.
pub(crate) struct Place {
    pub dir: PathBuf,
    pub state: SegmentState,
    pub file: Option<Arc<dyn File>>,
    sought: Sought,
    /// The answer of a live index; `None` when a sealed one has to be asked.
    live: Option<IndexEntry>,
    sealed: Option<Arc<OnceLock<Index>>>,
}

/// What is looked up in an index.
#[derive(Clone, Copy)]
enum Sought {
    Offset(i64),
    Time(i64),
}

impl Sought {
    fn in_index(self, index: &Index) -> Option<IndexEntry> {
        match self {
            Self::Offset(offset) => index.by_offset(offset),
            Self::Time(timestamp) => index.by_time(timestamp),
        }
    }
}

impl Partition {
    /// The segment that holds `offset`, which must be between `start` and `end`.
    pub fn place(&self, offset: i64) -> Option<Place> {
        let behind = self.segments.partition_point(|s| s.state.base <= offset);
        self.place_of(behind.checked_sub(1)?, Sought::Offset(offset))
    }

    /// The first segment with a record as late as `timestamp`.
    pub fn place_by_time(&self, timestamp: i64) -> Option<Place> {
        let late = |s: &Segment| s.state.max_timestamp >= timestamp && s.state.end > self.start;
        let at = self.segments.iter().position(late)?;
        self.place_of(at, Sought::Time(timestamp))
    }

    fn place_of(&self, at: usize, sought: Sought) -> Option<Place> {
        let segment = self.segments.get(at)?;
        let (live, sealed) = match &segment.index {
            SegmentIndex::Live(index) => (sought.in_index(index), None),
            SegmentIndex::Sealed(cell) => (None, Some(cell.clone())),
        };
        Some(Place {
            dir: self.dir.clone(),
            state: segment.state.clone(),
            file: segment.file.clone(),
            sought,
            live,
            sealed,
        })
    }

    /// Makes visible what was written and synced: `data` at the end of the segment that begins
    /// at `base`. Answers the segment that this one follows, if it is a new one.
    pub fn extend(
        &mut self,
        base: i64,
        file: &Arc<dyn File>,
        data: &[u8],
        wall_ms: i64,
    ) -> Option<SealedIndex> {
        let mut sealed = None;
        if self.segments.last().is_none_or(|s| s.state.base != base) {
            sealed = self.seal_last();
            self.segments.push(Segment::new(base, file.clone()));
        }
        if let Some(last) = self.segments.last_mut() {
            last.file = Some(file.clone());
            last.extend(data, wall_ms);
            self.end = last.state.end;
        }
        sealed
    }

    fn seal_last(&mut self) -> Option<SealedIndex> {
        let last = self.segments.last_mut()?;
        Some(SealedIndex {
            path: index_path(&self.dir, last.state.base),
            segment_bytes: last.state.bytes,
            index: last.seal(),
        })
    }

    /// Gives up everything before `start`. Answers the files that are no longer needed.
    pub fn trim(&mut self, start: i64) -> Vec<PathBuf> {
        self.start = self.start.max(start.min(self.end));
        let gone = self
            .segments
            .iter()
            .take_while(|s| s.state.end <= self.start);
        let count = gone.count();
        let gone = self.segments.drain(..count).map(|s| s.state.base);
        gone.flat_map(|base| [segment_path(&self.dir, base), index_path(&self.dir, base)])
            .collect()
    }

    /// Closes the segment that is appended to; it is opened again when it is.
    pub fn close_idle(&mut self) {
        if let Some(last) = self.segments.last_mut() {
            last.file = None;
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.state.bytes).sum()
    }
}

/// An index to be saved.
pub(crate) struct SealedIndex {
    pub path: PathBuf,
    pub segment_bytes: u64,
    pub index: Arc<OnceLock<Index>>,
}

impl Place {
    /// Path of the segment.
    pub fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.state.base)
    }

    /// The segment, opened if it is not.
    pub fn open(&self, storage: &dyn Storage) -> std::io::Result<Arc<dyn File>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => storage.open(&self.path(), Mode::Read),
        }
    }

    /// Where to start reading. A sealed segment's index is loaded, or built again, when it is
    /// first needed.
    pub fn entry(&self, storage: &dyn Storage, file: &dyn File) -> Result<IndexEntry, DiskError> {
        let first = IndexEntry {
            offset: self.state.base,
            position: 0,
            timestamp_before: i64::MIN,
        };
        let found = match &self.sealed {
            None => self.live,
            Some(cell) => {
                let index = match cell.get() {
                    Some(index) => index,
                    None => {
                        let index = self.load_index(storage, file)?;
                        cell.get_or_init(|| index)
                    }
                };
                self.sought.in_index(index)
            }
        };
        Ok(found.unwrap_or(first))
    }

    fn load_index(&self, storage: &dyn Storage, file: &dyn File) -> Result<Index, DiskError> {
        let path = index_path(&self.dir, self.state.base);
        if let Some(index) = Index::load(storage, &path, self.state.bytes) {
            return Ok(index);
        }
        let walked = walk(file, &self.path(), self.state.base, self.state.bytes)?;
        // A damaged segment keeps no index file: the damage must be seen again next time.
        if walked.damage.is_none()
            && let Err(error) = walked.index.save(storage, &path, self.state.bytes)
        {
            tracing::warn!(%error, "the index of a segment could not be saved");
        }
        Ok(walked.index)
    }
}

/// Path of the segment that begins at `base`.
pub(crate) fn segment_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Path of its index.
pub(crate) fn index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}
