//! Reads a segment through, batch for batch, in the background: for compaction and for checks.

use std::path::Path;
use std::sync::Arc;

use crate::batch::BatchHeader;
use crate::error::{Context, Damage, DiskError};
use crate::index::follows;
use crate::limits::{BATCH_BYTES_MAX, SCAN_BYTES};
use crate::partition::SegmentState;
use crate::storage::{File, Mode, Storage};

/// The batches of one segment, in order.
pub(crate) struct SegmentReader {
    path: std::path::PathBuf,
    file: Arc<dyn File>,
    state: SegmentState,
    /// Where `buf` starts in the file.
    start: u64,
    buf: Vec<u8>,
    /// The next batch, in `buf`.
    at: usize,
    /// The offset that is due.
    offset: i64,
}

/// Why a segment could not be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Damaged(#[from] Damage),
}

impl SegmentReader {
    /// The segment that `state` describes, in that folder.
    pub fn open(
        storage: &dyn Storage,
        dir: &Path,
        state: &SegmentState,
    ) -> Result<Self, DiskError> {
        let path = state.path(dir);
        Ok(Self {
            file: storage.open(&path, Mode::Read).during("open", &path)?,
            path,
            state: state.clone(),
            start: 0,
            buf: Vec::new(),
            at: 0,
            offset: state.base,
        })
    }

    /// The next batch, whole, checked and in its place; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(BatchHeader, &[u8])>, ReadError> {
        if self.position() >= self.state.bytes {
            return Ok(None);
        }
        let header = self.header()?;
        let end = self.position() + header.bytes as u64;
        if end > self.state.bytes {
            let text = format!("a batch of {} bytes crosses the end", header.bytes);
            return Err(self.damage(text).into());
        }
        if self.buf.len() - self.at < header.bytes {
            self.load(header.bytes)?;
        }
        if let Err(error) = BatchHeader::verify(&self.buf[self.at..]) {
            return Err(self.damage(error.to_string()).into());
        }
        let from = self.at;
        self.at += header.bytes;
        self.offset = header.next_offset();
        Ok(Some((header, &self.buf[from..self.at])))
    }

    /// The offset behind the last batch read.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Where the next batch stands in the file.
    pub fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Damage where the next batch should be.
    pub fn damage(&self, problem: String) -> Damage {
        Damage {
            path: self.path.clone(),
            position: self.position(),
            problem,
        }
    }

    fn header(&mut self) -> Result<BatchHeader, ReadError> {
        let mut parsed = BatchHeader::parse(&self.buf[self.at..]);
        if parsed.is_err() {
            self.load(SCAN_BYTES)?;
            parsed = BatchHeader::parse(&self.buf);
        }
        let header = parsed.map_err(|e| self.damage(e.to_string()))?;
        if !follows(&header, self.offset, self.state.has_holes()) {
            let (found, due) = (header.base_offset, self.offset);
            let text = format!("a batch with base offset {found} stands where {due} is due");
            return Err(self.damage(text).into());
        }
        Ok(header)
    }

    /// Reads on from the next batch.
    fn load(&mut self, least: usize) -> Result<(), DiskError> {
        self.start += self.at as u64;
        self.at = 0;
        let left = self.state.bytes - self.start;
        let len = left.min(least.max(SCAN_BYTES) as u64) as usize;
        self.buf.resize(len, 0);
        let read = self.file.read_at(&mut self.buf, self.start);
        self.buf.truncate(read.during("read", &self.path)?);
        Ok(())
    }
}

const _: () = assert!(SCAN_BYTES <= BATCH_BYTES_MAX);
