//! Batches that a server sends from their file, without reading them: which bytes they are.
//!
//! A batch is checked when it is appended, or when it is read. For the ten minutes behind that its bytes may
//! go from the page cache to a socket as they are. What a disk does to them within these, when they have
//! left the page cache, is found by the reader, for the checksum travels with them, or by [`crate::verify`].

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::error::DiskError;
use crate::index::{IndexEntry, Window, follows};
use crate::limits::{CHECKED_FOR, FETCH_COPY_BYTES, RANGE_WALK_BYTES};
use crate::partition::Place;
use crate::storage::File;

/// Record batches, read or where they are.
#[derive(Debug)]
pub enum Batches {
    /// In memory.
    Read(Bytes),
    /// In their segment.
    InFile(FileRange),
}

/// A part of a segment. The bytes stay as they are for as long as this is held: what is visible of a
/// segment is never written again, and a segment that is removed is there until it is closed.
#[derive(Clone)]
pub struct FileRange {
    file: Arc<dyn File>,
    position: u64,
    bytes: usize,
}

/// The stretch of a segment whose batches this process has lately had in memory and found whole: as they
/// were appended, or when they were read. One stretch, for appends and readers go forward.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<Option<Stretch>>);

#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: u64,
    to: u64,
    /// When the first of it was checked.
    since: Instant,
}

impl Stretch {
    fn holds(&self, now: Instant) -> bool {
        now.duration_since(self.since) < CHECKED_FOR
    }
}

impl Checked {
    /// From `from` up to `to`, in bytes, `now`.
    pub fn add(&self, from: u64, to: u64, now: Instant) {
        let mut stretch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = stretch.filter(|s| s.holds(now) && from <= s.to && s.from <= to);
        // What is forgotten is checked again when it is read again.
        *stretch = Some(known.map_or(
            Stretch {
                from,
                to,
                since: now,
            },
            |s| Stretch {
                from: s.from.min(from),
                to: s.to.max(to),
                since: s.since,
            },
        ));
    }

    /// Where the stretch ends, if `position` is in it `now`.
    pub fn end(&self, position: u64, now: Instant) -> Option<u64> {
        let stretch = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = stretch.filter(|s| s.holds(now) && (s.from..s.to).contains(&position));
        known.map(|s| s.to)
    }
}

/// A range that was found, and the offset behind it.
pub(crate) struct Found {
    pub range: FileRange,
    pub upper: i64,
}

impl Batches {
    /// How many bytes they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(bytes) => bytes.len(),
            Self::InFile(range) => range.bytes,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Batches {
    fn default() -> Self {
        Self::Read(Bytes::new())
    }
}

impl From<Bytes> for Batches {
    fn from(bytes: Bytes) -> Self {
        Self::Read(bytes)
    }
}

impl FileRange {
    /// The file; a part of it only is meant.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    /// Where in the file it begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Drops so many bytes from its front.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "more was sent than there is");
        self.position += count as u64;
        self.bytes -= count;
    }

    /// Reads its first `most` bytes, for a socket that the system cannot send it to by itself.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` when the file is shorter than it was.
    pub fn read(&self, most: usize) -> std::io::Result<Bytes> {
        let mut buf = vec![0; most.min(self.bytes)];
        match self.file.read_at(&mut buf, self.position)? == buf.len() {
            true => Ok(buf.into()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl std::fmt::Debug for FileRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRange")
            .field("position", &self.position)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The batches from the one that holds `offset` on, at most `max_bytes` but at least one, and none at
/// `limit` or behind. `None` when they are to be read: there is little, something of it has not been
/// checked, or it is not as it should be, which reading tells.
pub(crate) fn find(
    place: &Place,
    file: &Arc<dyn File>,
    start: &IndexEntry,
    offset: i64,
    max_bytes: usize,
    limit: i64,
) -> Result<Option<Found>, DiskError> {
    let visible = place.state.bytes;
    let little = max_bytes.min(visible.saturating_sub(start.position) as usize) <= FETCH_COPY_BYTES;
    if little || file.descriptor().is_none() {
        return Ok(None);
    }
    let Some(checked) = place.checked.end(start.position, Instant::now()) else {
        return Ok(None);
    };
    let end = checked.min(visible);
    let path = place.path();
    let mut window = Window::new(&**file, &path, visible, RANGE_WALK_BYTES);
    let (mut at, mut due) = (start.position, start.offset);
    let mut from = None;
    while at < end && due < limit {
        let header = match BatchHeader::parse(window.at(at)?) {
            Ok(header) if follows(&header, due, place.state.has_holes()) => header,
            _ => return Ok(None),
        };
        let next = at + header.bytes as u64;
        let full = from.is_some_and(|from| next - from > max_bytes as u64);
        if full || header.base_offset >= limit {
            break;
        }
        if next > end {
            // What is checked is whole batches, so the file is not what it was.
            return Ok(None);
        }
        if header.next_offset() > offset {
            from.get_or_insert(at);
        }
        (at, due) = (next, header.next_offset());
    }
    Ok(from.map(|from| Found {
        range: FileRange {
            file: file.clone(),
            position: from,
            bytes: (at - from) as usize,
        },
        upper: due,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_grows_at_its_ends_and_is_forgotten_in_time() {
        let (checked, start) = (Checked::default(), Instant::now());
        assert_eq!(checked.end(0, start), None);
        checked.add(10, 20, start);
        checked.add(20, 30, start + CHECKED_FOR / 2);
        checked.add(5, 10, start + CHECKED_FOR / 2);
        let ends = |now| [4, 5, 29, 30].map(|at| checked.end(at, now));
        assert_eq!(ends(start), [None, Some(30), Some(30), None]);
        // The oldest part decides.
        assert_eq!(ends(start + CHECKED_FOR), [None; 4]);
        checked.add(30, 40, start + CHECKED_FOR);
        assert_eq!(ends(start + CHECKED_FOR), [None, None, None, Some(40)]);
        // Apart from it: the last one is known.
        checked.add(4, 6, start + CHECKED_FOR);
        assert_eq!(ends(start + CHECKED_FOR), [Some(6), Some(6), None, None]);
    }
}
