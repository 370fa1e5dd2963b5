//! The sparse index of one segment: by offset and by time.
//!
//! Its file stands beside the segment and is never synced: it is used only when its checksum and
//! the segment's size agree, and is otherwise built again from the segment.
//!
//! ```text
//!  0  magic          u32   "OLX2"
//!  4  crc            u32   CRC32C of all that follows
//!  8  covered        u64   bytes of the segment that it covers
//! 16  end            i64   offset behind them
//! 24  max_timestamp  i64   latest timestamp in them
//! 32  entries, 24 bytes each: offset i64, position u64, timestamp_before i64
//! ```

use std::path::Path;

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::checksum::crc32c;
use crate::error::{Context, Damage, DiskError};
use crate::limits::{BATCH_BYTES_MAX, INDEX_INTERVAL_BYTES};
use crate::storage::{File, Mode, Storage, read_all};

const MAGIC: &[u8; 4] = b"OLX2";
const HEAD_BYTES: usize = 32;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<IndexEntry>,
    /// Where the next batch starts in the file.
    covered: u64,
    /// Offset behind the last batch.
    end: i64,
    /// Latest timestamp so far.
    max_timestamp: i64,
}

impl Index {
    /// The index of a segment from the batch at `position` on, which has at least that offset.
    pub fn starting(position: u64, offset: i64, timestamp_before: i64) -> Self {
        Self {
            entries: Vec::new(),
            covered: position,
            end: offset,
            max_timestamp: timestamp_before,
        }
    }

    /// Notes the next batch.
    pub fn note(&mut self, header: &BatchHeader) {
        let due = match self.entries.last() {
            None => true,
            Some(last) => self.covered - last.position >= INDEX_INTERVAL_BYTES,
        };
        if due {
            self.entries.push(IndexEntry {
                offset: header.base_offset,
                position: self.covered,
                timestamp_before: self.max_timestamp,
            });
        }
        self.covered += header.bytes as u64;
        self.end = header.next_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
    }

    /// Whether it leads to the right places of a segment.
    pub fn is_right(
        &self,
        file: &dyn File,
        path: &Path,
        base: i64,
        holes: bool,
    ) -> Result<bool, DiskError> {
        let mut built = Self::starting(0, base, i64::MIN);
        let mut rest = self.entries.iter().peekable();
        walk_with(file, path, &mut built, self.covered, holes, |entry| {
            rest.next_if_eq(&entry);
        })?;
        let same = |of: &Self| (of.covered, of.end, of.max_timestamp);
        Ok(rest.next().is_none() && same(&built) == same(self))
    }

    /// Whether it covers so many bytes of the segment.
    pub fn covers(&self, bytes: u64) -> bool {
        self.covered >= bytes
    }

    /// Goes on with the entries of `rest`, which starts where this one ends.
    pub fn append(&mut self, rest: &Self) {
        self.entries.extend(&rest.entries);
        self.covered = rest.covered;
        self.end = rest.end;
        self.max_timestamp = rest.max_timestamp;
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
        self.entries.get(at.checked_sub(1)?).copied()
    }

    /// Writes it beside its segment.
    pub fn save(&self, storage: &dyn Storage, path: &Path) -> Result<(), DiskError> {
        let mut buf = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES);
        buf.extend_from_slice(MAGIC);
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&self.covered.to_le_bytes());
        buf.extend_from_slice(&self.end.to_le_bytes());
        buf.extend_from_slice(&self.max_timestamp.to_le_bytes());
        for e in &self.entries {
            buf.extend_from_slice(&e.offset.to_le_bytes());
            buf.extend_from_slice(&e.position.to_le_bytes());
            buf.extend_from_slice(&e.timestamp_before.to_le_bytes());
        }
        let crc = crc32c(&buf[8..]);
        buf[4..8].copy_from_slice(&crc.to_le_bytes());
        let file = storage.open(path, Mode::Truncate).during("create", path)?;
        file.write_at(&[std::io::IoSlice::new(&buf)], 0)
            .during("write", path)
    }

    /// Reads the index of a segment; `None` when it must be built again. It may cover less than
    /// the whole.
    pub fn load(storage: &dyn Storage, path: &Path, segment_bytes: u64) -> Option<Self> {
        let file = storage.open(path, Mode::Read).ok()?;
        let buf = read_all(&*file, FILE_BYTES_MAX).ok()?;
        let (head, body) = buf.split_first_chunk::<HEAD_BYTES>()?;
        let crc = u32::from_le_bytes(*head[4..].first_chunk()?);
        let covered = u64::from_le_bytes(*head[8..].first_chunk()?);
        if head[..4] != *MAGIC || crc != crc32c(&buf[8..]) || covered > segment_bytes {
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
            covered,
            end: i64::from_le_bytes(*head[16..].first_chunk()?),
            max_timestamp: i64::from_le_bytes(*head[24..].first_chunk()?),
        })
    }
}

/// Walks the heads of a segment's batches on from where `index` ends, through its first `bytes`.
/// Answers where the walk ended before those, and why. `holes` says whether offsets may be missing.
pub(crate) fn walk(
    file: &dyn File,
    path: &Path,
    index: &mut Index,
    bytes: u64,
    holes: bool,
) -> Result<Option<Damage>, DiskError> {
    walk_with(file, path, index, bytes, holes, |_| {})
}

/// As [`walk`], and shows what an entry for each batch would be.
fn walk_with(
    file: &dyn File,
    path: &Path,
    index: &mut Index,
    bytes: u64,
    holes: bool,
    mut visit: impl FnMut(&IndexEntry),
) -> Result<Option<Damage>, DiskError> {
    let mut window = Window::new(file, path, bytes, WALK_BYTES);
    while index.covered < bytes {
        let position = index.covered;
        let problem = match BatchHeader::parse(window.at(position)?) {
            Err(e) => e.to_string(),
            Ok(h) if !follows(&h, index.end, holes) => {
                let (found, due) = (h.base_offset, index.end);
                format!("a batch with base offset {found} stands where offset {due} is due")
            }
            Ok(h) if position + h.bytes as u64 > bytes => {
                format!(
                    "a batch of {} bytes crosses the end at byte {bytes}",
                    h.bytes
                )
            }
            Ok(h) => {
                visit(&IndexEntry {
                    offset: h.base_offset,
                    position,
                    timestamp_before: index.max_timestamp,
                });
                index.note(&h);
                continue;
            }
        };
        return Ok(Some(Damage {
            path: path.to_owned(),
            position,
            problem,
        }));
    }
    Ok(None)
}

/// Whether a batch may stand where that offset is due.
pub(crate) fn follows(header: &BatchHeader, due: i64, holes: bool) -> bool {
    header.base_offset == due || (holes && header.base_offset > due)
}

/// A moving window on a file, so that small batches do not cost a read each.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    bytes: u64,
    /// What is read at a time.
    piece: usize,
    start: u64,
    buf: Vec<u8>,
}

/// The window of a walk through a whole segment.
const WALK_BYTES: usize = 256 * 1024;

impl<'a> Window<'a> {
    /// On the first `bytes` of a file, of which `piece` are read at a time.
    pub fn new(file: &'a dyn File, path: &'a Path, bytes: u64, piece: usize) -> Self {
        Self {
            file,
            path,
            bytes,
            piece,
            start: 0,
            buf: Vec::new(),
        }
    }

    /// The bytes from `position` on, at least a batch's head if there is so much.
    pub fn at(&mut self, position: u64) -> Result<&[u8], DiskError> {
        let held = self.start + self.buf.len() as u64;
        let needed = (position + HEADER_BYTES as u64).min(self.bytes);
        if position < self.start || needed > held {
            let len = (self.bytes - position).min(self.piece as u64) as usize;
            self.buf.resize(len, 0);
            self.start = position;
            let read = self.file.read_at(&mut self.buf, position);
            self.buf.truncate(read.during("read", self.path)?);
        }
        let from = (position - self.start) as usize;
        Ok(self.buf.get(from..).unwrap_or_default())
    }
}

const _: () = assert!(WALK_BYTES <= BATCH_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(offset: i64, bytes: u64, max_timestamp: i64) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            bytes: bytes as usize,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: 4,
            base_timestamp: 0,
            max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records: 5,
        }
    }

    #[test]
    fn a_lookup_gives_the_last_entry_that_does_not_skip_anything() {
        let mut index = Index::starting(0, 0, i64::MIN);
        assert_eq!(index.by_offset(0), None);
        index.note(&batch(0, INDEX_INTERVAL_BYTES, 100));
        index.note(&batch(10, INDEX_INTERVAL_BYTES, 200));
        let mut rest = Index::starting(2 * INDEX_INTERVAL_BYTES, 15, 200);
        rest.note(&batch(20, INDEX_INTERVAL_BYTES, 200));
        rest.note(&batch(30, 1, 900));
        rest.note(&batch(35, 7, 900));
        assert_eq!(rest.by_offset(19), None, "it is in the part before");
        assert_eq!(rest.by_time(200), None);
        index.append(&rest);
        assert_eq!(index.entries.len(), 4, "too near the last one");
        assert_eq!(index.by_offset(19).map(|e| e.offset), Some(10));
        assert_eq!(index.by_offset(99).map(|e| e.offset), Some(30));
        assert_eq!(index.by_time(200).map(|e| e.offset), Some(10));
        assert_eq!(index.by_time(201).map(|e| e.offset), Some(30));
        assert_eq!(
            (index.covered, index.end),
            (3 * INDEX_INTERVAL_BYTES + 8, 40)
        );
    }
}
