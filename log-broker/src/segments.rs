//! Writes batches to the ends of segment files, for the writer and for recovery alike.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, DiskError};
use crate::partition::{index_path, segment_path};
use crate::storage::{File, Mode, Storage};
use crate::tables::{Tables, Written};

/// Segment writes of one frame. They are not visible, and not synced, until the frame is applied;
/// one that is dropped leaves bytes behind a segment's end that the next one overwrites.
pub(crate) struct SegmentWriter<'a> {
    storage: &'a dyn Storage,
    tables: &'a Tables,
    ends: BTreeMap<(Arc<str>, u32), End>,
    /// Every file written to.
    pub touched: BTreeMap<PathBuf, Arc<dyn File>>,
    /// Folders in which a file was created.
    pub dirs: Vec<PathBuf>,
    /// Whether a file was opened.
    pub opened: bool,
}

/// Where the next batch of a partition goes.
struct End {
    base: i64,
    bytes: u64,
    file: Arc<dyn File>,
    path: PathBuf,
}

impl<'a> SegmentWriter<'a> {
    /// A writer at the ends that `tables` know.
    pub fn new(storage: &'a dyn Storage, tables: &'a Tables) -> Self {
        Self {
            storage,
            tables,
            ends: BTreeMap::new(),
            touched: BTreeMap::new(),
            dirs: Vec::new(),
            opened: false,
        }
    }

    /// Writes `data`, whole batches of which the first has offset `first`, at the end of a
    /// partition that exists.
    pub fn write<'d>(
        &mut self,
        topic: &Arc<str>,
        partition: u32,
        first: i64,
        data: &'d [u8],
    ) -> Result<Written<'d>, DiskError> {
        let key = (topic.clone(), partition);
        let mut end = match self.ends.remove(&key) {
            Some(end) => end,
            None => self.current(topic, partition, first)?,
        };
        let limit = self
            .tables
            .topics
            .get(topic)
            .map_or(u64::MAX, |t| t.options.segment_bytes);
        if end.bytes > 0 && end.bytes + data.len() as u64 > limit {
            end = self.begin(topic, partition, first)?;
        }
        end.file
            .write_at(&[IoSlice::new(data)], end.bytes)
            .during("write", &end.path)?;
        end.bytes += data.len() as u64;
        self.touched.insert(end.path.clone(), end.file.clone());
        let written = Written {
            base: end.base,
            file: end.file.clone(),
            data,
        };
        self.ends.insert(key, end);
        Ok(written)
    }

    /// The segment that is appended to, or a new one.
    fn current(&mut self, topic: &str, partition: u32, first: i64) -> Result<End, DiskError> {
        let known = self.tables.partition(topic, partition);
        let Some((p, last)) = known.and_then(|p| Some((p, p.segments.last()?))) else {
            return self.begin(topic, partition, first);
        };
        // Only what was never rewritten is appended to.
        if last.state.rewrites > 0 {
            return self.begin(topic, partition, first);
        }
        let path = segment_path(&p.dir, last.state.base);
        let file = match &last.file {
            Some(file) => file.clone(),
            None => {
                self.opened = true;
                self.storage
                    .open(&path, Mode::Write)
                    .during("open", &path)?
            }
        };
        Ok(End {
            base: last.state.base,
            bytes: last.state.bytes,
            file,
            path,
        })
    }

    /// A new segment. A file of that name is one that was never made durable, or one that is
    /// being written again by recovery, with the same bytes: so nothing is cut, and no room is
    /// given up that might not be had again.
    fn begin(&mut self, topic: &str, partition: u32, first: i64) -> Result<End, DiskError> {
        let known = self.tables.partition(topic, partition);
        let dir = known.map(|p| p.dir.clone()).unwrap_or_default();
        self.storage.create_dir(&dir).during("create", &dir)?;
        let path = segment_path(&dir, first);
        let file = self
            .storage
            .open(&path, Mode::Write)
            .during("create", &path)?;
        // An index that is left from then must not be taken for the new one's.
        let _ = self.storage.remove(&index_path(&dir, first));
        self.dirs.push(dir);
        self.opened = true;
        Ok(End {
            base: first,
            bytes: 0,
            file,
            path,
        })
    }
}
