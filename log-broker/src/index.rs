//! The sparse index of one segment: by offset and by time.
//!
//! Its file stands beside the segment and is never synced: it is used only when its checksum and
//! the segment's size agree, and is otherwise built again from the segment.
//!
//! ```text
//!  0  magic          u32   "OLX1"
//!  4  crc            u32   CRC32C of all that follows
//!  8  segment_bytes  u64   size of the segment it covers
//! 16  entries, 24 bytes each: offset i64, position u64, timestamp_before i64
//! ```

use std::path::Path;

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::error::{Context, Damage, DiskError};
use crate::limits::{BATCH_BYTES_MAX, INDEX_INTERVAL_BYTES};
use crate::storage::{File, Mode, Storage, read_all};

const MAGIC: &[u8; 4] = b"OLX1";
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 24;
/// No plausible index is larger: one entry for each interval of a 1 TiB segment.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// One batch of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Its base offset.
    pub offset: i64,
    /// Where it starts in the file.
    pub position: u64,
    /// Latest timestamp of all batches before it: none of those is as late as a later time.
    pub timestamp_before: i64,
}

/// Entries at least [`INDEX_INTERVAL_BYTES`] apart; the first is the first batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<IndexEntry>,
}

impl Index {
    /// Notes the batch at `position`, if it is far enough from the last one noted.
    pub fn note(&mut self, offset: i64, position: u64, timestamp_before: i64) {
        let due = match self.entries.last() {
            None => true,
            Some(last) => position - last.position >= INDEX_INTERVAL_BYTES,
        };
        if due {
            self.entries.push(IndexEntry {
                offset,
                position,
                timestamp_before,
            });
        }
    }

    /// The last batch noted that does not start behind `offset`.
    pub fn by_offset(&self, offset: i64) -> Option<IndexEntry> {
        let at = self.entries.partition_point(|e| e.offset <= offset);
        self.entries.get(at.checked_sub(1)?).copied()
    }

    /// The last batch noted before which nothing is as late as `timestamp`.
    pub fn by_time(&self, timestamp: i64) -> Option<IndexEntry> {
        let earlier = |e: &IndexEntry| e.timestamp_before < timestamp;
        let at = self.entries.partition_point(earlier);
        self.entries.get(at.saturating_sub(1)).copied()
    }

    /// Writes the index of a segment of `segment_bytes`.
    pub fn save(
        &self,
        storage: &dyn Storage,
        path: &Path,
        segment_bytes: u64,
    ) -> Result<(), DiskError> {
        let mut buf = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES);
        buf.extend_from_slice(MAGIC);
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&segment_bytes.to_le_bytes());
        for e in &self.entries {
            buf.extend_from_slice(&e.offset.to_le_bytes());
            buf.extend_from_slice(&e.position.to_le_bytes());
            buf.extend_from_slice(&e.timestamp_before.to_le_bytes());
        }
        let crc = crc32c::crc32c(&buf[8..]);
        buf[4..8].copy_from_slice(&crc.to_le_bytes());
        let file = storage.open(path, Mode::Truncate).during("create", path)?;
        file.write_at(&[std::io::IoSlice::new(&buf)], 0)
            .during("write", path)
    }

    /// Reads the index of a segment of `segment_bytes`; `None` when it must be built again.
    pub fn load(storage: &dyn Storage, path: &Path, segment_bytes: u64) -> Option<Self> {
        let file = storage.open(path, Mode::Read).ok()?;
        let buf = read_all(&*file, FILE_BYTES_MAX).ok()?;
        let (head, body) = buf.split_first_chunk::<HEAD_BYTES>()?;
        let crc = u32::from_le_bytes(*head[4..].first_chunk()?);
        let covered = u64::from_le_bytes(*head[8..].first_chunk()?);
        if head[..4] != *MAGIC || crc != crc32c::crc32c(&buf[8..]) || covered != segment_bytes {
            return None;
        }
        let entries = body.chunks_exact(ENTRY_BYTES).map(|e| {
            Some(IndexEntry {
                offset: i64::from_le_bytes(*e.first_chunk()?),
                position: u64::from_le_bytes(*e[8..].first_chunk()?),
                timestamp_before: i64::from_le_bytes(*e[16..].first_chunk()?),
            })
        });
        Some(Self {
            entries: entries.collect::<Option<_>>()?,
        })
    }
}

/// What walking through a segment found.
pub(crate) struct Walked {
    pub index: Index,
    /// The offset behind the last whole batch.
    pub end: i64,
    /// Where the walk ended before `bytes`, and why.
    pub damage: Option<Damage>,
}

/// Walks the heads of a segment's batches, from its base offset through its first `bytes`, and
/// builds the index.
pub(crate) fn walk(
    file: &dyn File,
    path: &Path,
    base: i64,
    bytes: u64,
) -> Result<Walked, DiskError> {
    let mut window = Window::new(file, path, bytes);
    let mut walked = Walked {
        index: Index::default(),
        end: base,
        damage: None,
    };
    let (mut position, mut timestamp) = (0, i64::MIN);
    while position < bytes {
        let problem = match BatchHeader::parse(window.at(position)?) {
            Err(e) => e.to_string(),
            Ok(h) if h.base_offset != walked.end => {
                let (found, due) = (h.base_offset, walked.end);
                format!("a batch with base offset {found} stands where offset {due} is due")
            }
            Ok(h) if position + h.bytes as u64 > bytes => {
                format!(
                    "a batch of {} bytes crosses the end at byte {bytes}",
                    h.bytes
                )
            }
            Ok(h) => {
                walked.index.note(h.base_offset, position, timestamp);
                timestamp = timestamp.max(h.max_timestamp);
                walked.end = h.next_offset();
                position += h.bytes as u64;
                continue;
            }
        };
        walked.damage = Some(Damage {
            path: path.to_owned(),
            position,
            problem,
        });
        break;
    }
    Ok(walked)
}

/// A moving window on a file, so that small batches do not cost a read each.
struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    bytes: u64,
    start: u64,
    buf: Vec<u8>,
}

impl<'a> Window<'a> {
    const BYTES: usize = 256 * 1024;

    fn new(file: &'a dyn File, path: &'a Path, bytes: u64) -> Self {
        Self {
            file,
            path,
            bytes,
            start: 0,
            buf: Vec::new(),
        }
    }

    /// The bytes from `position` on, at least a batch's head if there is so much.
    fn at(&mut self, position: u64) -> Result<&[u8], DiskError> {
        let held = self.start + self.buf.len() as u64;
        let needed = (position + HEADER_BYTES as u64).min(self.bytes);
        if position < self.start || needed > held {
            let len = (self.bytes - position).min(Self::BYTES as u64) as usize;
            self.buf.resize(len, 0);
            self.start = position;
            let read = self.file.read_at(&mut self.buf, position);
            self.buf.truncate(read.during("read", self.path)?);
        }
        let from = (position - self.start) as usize;
        Ok(self.buf.get(from..).unwrap_or_default())
    }
}

const _: () = assert!(Window::BYTES <= BATCH_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_gives_the_last_entry_that_does_not_skip_anything() {
        let mut index = Index::default();
        assert_eq!(index.by_offset(0), None);
        for (n, before) in [(0, i64::MIN), (1, 100), (2, 200), (3, 200)] {
            index.note(10 * n, n as u64 * INDEX_INTERVAL_BYTES, before);
        }
        index.note(35, 3 * INDEX_INTERVAL_BYTES + 1, 900);
        assert_eq!(index.entries.len(), 4, "too near the last one");
        assert_eq!(index.by_offset(19).map(|e| e.offset), Some(10));
        assert_eq!(index.by_offset(99).map(|e| e.offset), Some(30));
        assert_eq!(index.by_time(200).map(|e| e.offset), Some(10));
        assert_eq!(index.by_time(201).map(|e| e.offset), Some(30));
        assert_eq!(index.by_time(i64::MIN).map(|e| e.offset), Some(0));
    }
}
