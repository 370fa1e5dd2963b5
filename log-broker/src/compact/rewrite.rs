//! Writes what is kept of a few segments to a new one.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use crate::batch::{BatchHeader, Records, open, rebuild};
use crate::error::{CompactError, Context, DiskError};
use crate::expiry::expires_ms;
use crate::limits::SCAN_BYTES;
use crate::partition::SegmentState;
use crate::reader::SegmentReader;
use crate::shared::Shared;
use crate::storage::{File, Mode};

use super::keys::Keys;
use super::plan::Plan;

/// What is kept.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub keys: &'a Keys,
    pub plan: &'a Plan,
    pub now_ms: i64,
}

/// One new segment being written.
pub(super) struct Rewriter<'a> {
    shared: &'a Shared,
    group: &'a [SegmentState],
    rules: Rules<'a>,
    /// The new segment so far.
    made: SegmentState,
    file: Option<Arc<dyn File>>,
    buf: Vec<u8>,
    /// Whether anything was left out.
    dropped: bool,
}

impl<'a> Rewriter<'a> {
    pub fn new(shared: &'a Shared, group: &'a [SegmentState], rules: Rules<'a>) -> Self {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let max = |of: fn(&SegmentState) -> i64| group.iter().map(of).max().unwrap_or(i64::MIN);
        let rewrites = group.iter().map(|s| s.rewrites).max().unwrap_or(0);
        // Tombstones count from when all that they replace was gone.
        let clean = group.iter().all(SegmentState::is_clean);
        let cleaned_to = last.end.min(rules.keys.upto());
        let whole = cleaned_to == last.end;
        let now = Some(rules.now_ms).filter(|_| whole);
        let made = SegmentState {
            base: first.base,
            end: last.end,
            bytes: 0,
            max_timestamp: i64::MIN,
            appended_ms: max(|s| s.appended_ms),
            rewrites: rewrites + 1,
            cleaned_to: if whole { last.end } else { cleaned_to },
            cleaned_ms: if clean {
                group.iter().filter_map(|s| s.cleaned_ms).max()
            } else {
                now
            },
            tombstones: false,
            expires_ms: None,
        };
        Self {
            shared,
            group,
            rules,
            made,
            file: None,
            buf: Vec::new(),
            dropped: false,
        }
    }

    /// Writes and syncs the new segment; answers it, and how many bytes it saves. When nothing had
    /// to go, the old one is answered, with what was learnt of it.
    pub fn run(mut self) -> Result<(SegmentState, u64), CompactError> {
        let result = self.write_all();
        let path = self.made.path(&self.rules.plan.dir);
        let before: u64 = self.group.iter().map(|s| s.bytes).sum();
        let unneeded = match &result {
            Err(_) => true,
            Ok(()) => self.made.bytes == 0 || (!self.dropped && self.group.len() == 1),
        };
        if unneeded && self.file.is_some() {
            let _ = self.shared.storage.remove(&path);
        }
        result?;
        if !self.dropped && self.group.len() == 1 {
            let old = &self.group[0];
            self.made.rewrites = old.rewrites;
            self.made.max_timestamp = old.max_timestamp;
            self.made.bytes = old.bytes;
        }
        let saved = before - self.made.bytes;
        Ok((self.made, saved))
    }

    fn write_all(&mut self) -> Result<(), CompactError> {
        for segment in self.group {
            self.copy(segment)?;
        }
        self.flush()?;
        if let Some(file) = &self.file {
            let dir = &self.rules.plan.dir;
            file.sync().during("sync", &self.made.path(dir))?;
            // The WAL is going to speak of the file: its name must be found.
            for dir in self.shared.layout.with_parents(dir) {
                self.shared.storage.sync_dir(dir).during("sync", dir)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, segment: &SegmentState) -> Result<(), CompactError> {
        let storage = &*self.shared.storage;
        let mut reader = SegmentReader::open(storage, &self.rules.plan.dir, segment)?;
        let drops_tombstones = self.rules.plan.drops_tombstones(segment, self.rules.now_ms);
        while let Some((header, batch)) = reader.next()? {
            if header.is_control() {
                self.keep(&header, batch)?;
            } else if self.rules.plan.is_aborted(&header) {
                self.dropped = true;
            } else if let Some(problem) = self.filter(&header, batch, drops_tombstones)? {
                return Err(reader.damage(problem).into());
            }
        }
        Ok(())
    }

    /// Keeps what is to be kept of a batch; answers what is wrong with it.
    fn filter(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        drops_tombstones: bool,
    ) -> Result<Option<String>, DiskError> {
        let opened = match open(batch) {
            Ok(opened) => opened,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let records = match Records::new(&opened) {
            Ok(records) => records,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let (mut kept, mut count, mut latest) = (Vec::new(), 0, i64::MIN);
        let rules = self.rules;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Ok(Some(error.to_string())),
            };
            let expires = rules.plan.by_expiry.then(|| expires_ms(&record)).flatten();
            let tombstone = rules.plan.by_key && record.key.is_some() && record.value.is_none();
            let key = record.key.filter(|_| rules.plan.by_key);
            if key.is_some_and(|key| rules.keys.is_replaced(key, record.offset))
                || (tombstone && drops_tombstones)
                || (expires.is_some_and(|at| at <= rules.now_ms)
                    // Older records of its key must be gone, or they would show again.
                    && record.offset < rules.keys.upto())
            {
                continue;
            }
            self.made.tombstones |= tombstone;
            self.made.expires_ms = self.made.expires_ms.max(expires);
            kept.extend_from_slice(record.encoded);
            count += 1;
            latest = latest.max(record.timestamp);
        }
        if count == header.records {
            self.keep(header, batch)?;
            return Ok(None);
        }
        self.dropped = true;
        if count > 0 {
            let header = BatchHeader {
                max_timestamp: latest,
                ..*header
            };
            let rebuilt = rebuild(&header, count, &kept);
            self.keep(&header, &rebuilt)?;
        }
        Ok(None)
    }

    fn keep(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), DiskError> {
        self.made.max_timestamp = self.made.max_timestamp.max(header.max_timestamp);
        self.buf.extend_from_slice(batch);
        if self.buf.len() >= SCAN_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let path = self.made.path(&self.rules.plan.dir);
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.create(&path)?,
        };
        file.write_at(&[IoSlice::new(&self.buf)], self.made.bytes)
            .during("write", &path)?;
        self.made.bytes += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn create(&mut self, path: &Path) -> Result<Arc<dyn File>, DiskError> {
        let storage = &self.shared.storage;
        let file = storage.open(path, Mode::Truncate).during("create", path)?;
        // An index of that name is of a try that came to nothing.
        let _ = storage.remove(&self.made.index_path(&self.rules.plan.dir));
        self.file = Some(file.clone());
        Ok(file)
    }
}
