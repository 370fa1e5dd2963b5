//! One partition: its segments, and what is visible of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::batch::BatchHeader;
use crate::error::DiskError;
use crate::index::{Index, IndexEntry, walk};
use crate::producer::Producers;
use crate::range::Checked;
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
    /// Who appended, and which transactions are open or aborted.
    pub producers: Producers,
}

/// One file of record batches.
pub(crate) struct Segment {
    pub state: SegmentState,
    pub index: SegmentIndex,
    /// Open while it is appended to.
    pub file: Option<Arc<dyn File>>,
    pub checked: Arc<Checked>,
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
    /// How often it was rewritten: 0 as it was appended, without holes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rewrites: u32,
    /// Compaction knows what replaces the records before this offset.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub cleaned_to: i64,
    /// When all that its records replace was gone, in ms of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned_ms: Option<i64>,
    /// Whether compaction left a record without a value in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstones: bool,
    /// When the last of its records that expire does, if compaction left any, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn never() -> i64 {
    i64::MIN
}

fn is_never(at: &i64) -> bool {
    *at == never()
}

/// An index that is loaded, or built, when it is first needed.
pub(crate) type LazyIndex = Arc<OnceLock<Index>>;

/// The index of a segment.
pub(crate) enum SegmentIndex {
    /// That of what was appended since the log was opened, and of what stood there before: as many
    /// bytes as that says.
    Live(Index, Option<(u64, LazyIndex)>),
    Sealed(LazyIndex),
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
                rewrites: 0,
                cleaned_to: never(),
                cleaned_ms: None,
                tombstones: false,
                expires_ms: None,
            },
            index: SegmentIndex::Live(Index::starting(0, base, i64::MIN), None),
            file: Some(file),
            checked: Arc::default(),
        }
    }

    /// One that a checkpoint knows.
    pub fn sealed(state: SegmentState) -> Self {
        Self {
            state,
            index: SegmentIndex::Sealed(Arc::default()),
            file: None,
            checked: Arc::default(),
        }
    }

    /// Counts the batches of `data`, which were written at its end.
    fn extend(&mut self, producers: &mut Producers, data: &[u8], wall_ms: i64) {
        let state = &mut self.state;
        if let SegmentIndex::Sealed(earlier) = &self.index {
            let index = Index::starting(state.bytes, state.end, state.max_timestamp);
            self.index = SegmentIndex::Live(index, Some((state.bytes, earlier.clone())));
        }
        let from = state.bytes;
        let mut rest = data;
        while let Ok(header) = BatchHeader::parse(rest) {
            if let SegmentIndex::Live(index, _) = &mut self.index {
                index.note(&header);
            }
            if header.producer_id >= 0 {
                producers.note(&header, rest, wall_ms);
            }
            state.bytes += header.bytes as u64;
            state.end = header.next_offset();
            state.max_timestamp = state.max_timestamp.max(header.max_timestamp);
            rest = rest.get(header.bytes..).unwrap_or_default();
        }
        state.appended_ms = state.appended_ms.max(wall_ms);
        self.checked.add(from, state.bytes, Instant::now());
    }

    /// Closes it to appends. Answers the index, to be saved beside it if it is known.
    fn seal(&mut self) -> LazyIndex {
        self.file = None;
        let cell = match &self.index {
            SegmentIndex::Sealed(cell) => cell.clone(),
            SegmentIndex::Live(index, None) => Arc::new(OnceLock::from(index.clone())),
            SegmentIndex::Live(index, Some((_, earlier))) => match earlier.get() {
                Some(earlier) => {
                    let mut whole = earlier.clone();
                    whole.append(index);
                    Arc::new(OnceLock::from(whole))
                }
                None => LazyIndex::default(),
            },
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
    pub checked: Arc<Checked>,
    sought: Sought,
    /// The answer of a live index; `None` when another one has to be asked.
    live: Option<IndexEntry>,
    /// That one, and the bytes that it covers.
    lazy: Option<(u64, LazyIndex)>,
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
    /// The segment that holds `offset`, which must be between `start` and `end`, or where there is
    /// a hole the next one.
    pub fn place(&self, offset: i64) -> Option<Place> {
        let at = self.segments.partition_point(|s| s.state.end <= offset);
        self.place_of(at, Sought::Offset(offset))
    }

    /// The first segment with a record as late as `timestamp`.
    pub fn place_by_time(&self, timestamp: i64) -> Option<Place> {
        let late = |s: &Segment| s.state.max_timestamp >= timestamp && s.state.end > self.start;
        let at = self.segments.iter().position(late)?;
        self.place_of(at, Sought::Time(timestamp))
    }

    fn place_of(&self, at: usize, sought: Sought) -> Option<Place> {
        let segment = self.segments.get(at)?;
        let (live, lazy) = match &segment.index {
            SegmentIndex::Live(index, earlier) => (sought.in_index(index), earlier.clone()),
            SegmentIndex::Sealed(cell) => (None, Some((segment.state.bytes, cell.clone()))),
        };
        Some(Place {
            dir: self.dir.clone(),
            state: segment.state.clone(),
            file: segment.file.clone(),
            checked: segment.checked.clone(),
            sought,
            live,
            lazy,
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
            last.extend(&mut self.producers, data, wall_ms);
            self.end = last.state.end;
        }
        sealed
    }

    fn seal_last(&mut self) -> Option<SealedIndex> {
        let last = self.segments.last_mut()?;
        Some(SealedIndex {
            path: last.state.index_path(&self.dir),
            index: last.seal(),
        })
    }

    /// Gives up everything before `start`. Answers the files that are no longer needed.
    pub fn trim(&mut self, start: i64) -> Vec<PathBuf> {
        self.start = self.start.max(start.min(self.end));
        self.producers.trim(self.start);
        let gone = self
            .segments
            .iter()
            .take_while(|s| s.state.end <= self.start);
        let count = gone.count();
        let gone = self.segments.drain(..count).map(|s| s.state);
        gone.flat_map(|s| [s.path(&self.dir), s.index_path(&self.dir)])
            .collect()
    }

    /// The closed segments that a compacted one stands for: exactly those between its ends, as long
    /// as they are what they were when it was made.
    pub fn compacted(&self, new: &SegmentState) -> Option<std::ops::Range<usize>> {
        let from = self.segments.partition_point(|s| s.state.base < new.base);
        let to = self.segments.partition_point(|s| s.state.end <= new.end);
        let old = self.segments.get(from..to)?;
        let (first, last) = (old.first()?, old.last()?);
        let known = first.state.base == new.base
            && last.state.end == new.end
            && old.iter().all(|s| s.state.rewrites <= new.rewrites);
        (known && to < self.segments.len()).then_some(from..to)
    }

    /// Puts a compacted segment in the place of those that it stands for, or nothing if it is
    /// empty. Answers the files that are no longer needed.
    pub fn compact(&mut self, new: &SegmentState) -> Vec<PathBuf> {
        let Some(range) = self.compacted(new) else {
            return Vec::new();
        };
        let path = new.path(&self.dir);
        let segment = (new.bytes > 0).then(|| Segment::sealed(new.clone()));
        let old = self.segments.splice(range, segment);
        let files: Vec<_> = old
            .map(|s| s.state)
            .filter(|s| new.bytes == 0 || s.path(&self.dir) != path)
            .flat_map(|s| [s.path(&self.dir), s.index_path(&self.dir)])
            .collect();
        files
    }

    /// Closes the segment that is appended to; it is opened again when it is.
    pub fn close_idle(&mut self) {
        if let Some(last) = self.segments.last_mut() {
            last.file = None;
        }
    }

    /// Everything before this is decided: no transaction that is open has a record there.
    pub fn last_stable(&self) -> i64 {
        // Records may have been given up in the midst of a transaction.
        self.producers
            .first_open()
            .map_or(self.end, |at| at.max(self.start))
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.state.bytes).sum()
    }
}

/// An index to be saved.
pub(crate) struct SealedIndex {
    pub path: PathBuf,
    pub index: LazyIndex,
}

impl Place {
    /// Path of the segment.
    pub fn path(&self) -> PathBuf {
        self.state.path(&self.dir)
    }

    /// The segment, opened if it is not.
    pub fn open(&self, storage: &dyn Storage) -> std::io::Result<Arc<dyn File>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => storage.open(&self.path(), Mode::Read),
        }
    }

    /// Where to start reading. An index that is not in memory is loaded, or built again, when it
    /// is first needed.
    pub fn entry(&self, storage: &dyn Storage, file: &dyn File) -> Result<IndexEntry, DiskError> {
        let first = IndexEntry {
            offset: self.state.base,
            position: 0,
            timestamp_before: i64::MIN,
        };
        let found = match (&self.live, &self.lazy) {
            (None, Some((bytes, cell))) => {
                let index = match cell.get() {
                    Some(index) => index,
                    None => {
                        let index = self.load_index(storage, file, *bytes)?;
                        cell.get_or_init(|| index)
                    }
                };
                self.sought.in_index(index)
            }
            (live, _) => *live,
        };
        Ok(found.unwrap_or(first))
    }

    fn load_index(
        &self,
        storage: &dyn Storage,
        file: &dyn File,
        bytes: u64,
    ) -> Result<Index, DiskError> {
        let path = self.state.index_path(&self.dir);
        let loaded = Index::load(storage, &path, bytes);
        let mut index = loaded.unwrap_or_else(|| Index::starting(0, self.state.base, i64::MIN));
        if index.covers(bytes) {
            return Ok(index);
        }
        let damage = walk(
            file,
            &self.path(),
            &mut index,
            bytes,
            self.state.has_holes(),
        )?;
        // A damaged segment keeps no index file: the damage must be seen again next time. What is
        // covered was durable when the log was opened, so that it never changes.
        if damage.is_none()
            && let Err(error) = index.save(storage, &path)
            && error.source.kind() != std::io::ErrorKind::ReadOnlyFilesystem
        {
            tracing::warn!(%error, "the index of a segment could not be saved");
        }
        Ok(index)
    }
}

impl SegmentState {
    /// Its file. One that was rewritten has another name, so that the old one stays until it is no
    /// longer needed.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.stem()))
    }

    /// The file of its index.
    pub fn index_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.index", self.stem()))
    }

    fn stem(&self) -> String {
        match self.rewrites {
            0 => format!("{:020}", self.base),
            n => format!("{:020}.{n}", self.base),
        }
    }

    /// Whether compaction knows what replaces any of its records.
    pub fn is_clean(&self) -> bool {
        self.cleaned_to >= self.end
    }

    /// Whether offsets may be missing.
    pub fn has_holes(&self) -> bool {
        self.rewrites > 0
    }
}

/// Path of the segment that begins at `base`, as it is appended to.
pub(crate) fn segment_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Path of its index.
pub(crate) fn index_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}
