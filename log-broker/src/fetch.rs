//! Reads: one range of one file, checked before it is handed out.

use std::time::Instant;

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, HEADER_BYTES, Records};
use crate::buffers::Buffer;
use crate::error::{Context, Damage, DiskError, FetchError};
use crate::index::{IndexEntry, follows};
use crate::limits::{FETCH_BYTES_MAX, INDEX_INTERVAL_BYTES};
use crate::partition::Place;
use crate::producer::Aborted;
use crate::range::{self, FileRange};
use crate::shared::Shared;
use crate::storage::File;

/// Whole record batches, as they were appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched<B = Bytes> {
    /// The batches, one behind the other; the first may begin before the offset asked for. Empty
    /// at the end of the partition.
    pub batches: B,
    /// First offset that the partition holds.
    pub first_offset: i64,
    /// Offset behind the last durable record.
    pub end_offset: i64,
    /// Everything before this belongs to no open transaction.
    pub last_stable_offset: i64,
    /// For readers of committed records: the transactions whose records among the batches are to be
    /// skipped, in order of their markers.
    pub aborted: Vec<AbortedTransaction>,
}

/// Which records a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All durable ones.
    #[default]
    Uncommitted,
    /// Those before the last stable offset; the aborted ones among them are named.
    Committed,
}

/// A transaction that was aborted: the records of this producer from `first_offset` up to its next
/// marker are not for readers of committed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first record in this partition.
    pub first_offset: i64,
}

/// What is asked for.
pub(crate) struct Wish<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    isolation: Isolation,
}

/// What the tables know of it.
struct Found {
    place: Option<Place>,
    first_offset: i64,
    end_offset: i64,
    last_stable_offset: i64,
    /// Of committed readers, those that may have records in the segment.
    aborted: Vec<Aborted>,
    /// The first batch that is not for this reader.
    limit: i64,
}

impl Found {
    fn into_fetched<B>(self, batches: B, upper: i64) -> Fetched<B> {
        let within = self.aborted.iter().filter(|a| a.first_offset < upper);
        let aborted = within.map(|a| AbortedTransaction {
            producer_id: a.producer_id,
            first_offset: a.first_offset,
        });
        Fetched {
            batches,
            first_offset: self.first_offset,
            end_offset: self.end_offset,
            last_stable_offset: self.last_stable_offset,
            aborted: aborted.collect(),
        }
    }
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAtTime {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in ms.
    pub timestamp: i64,
}

impl<'a> Wish<'a> {
    /// Records of one partition from `offset` on.
    pub fn new(topic: &'a str, partition: u32, offset: i64, isolation: Isolation) -> Self {
        Self {
            topic,
            partition,
            offset,
            isolation,
        }
    }

    /// Batches from the one that holds the offset on, at most `max_bytes` but at least one batch.
    /// With `in_file` they may stay in their file.
    pub fn fetch<B: From<Bytes>>(
        mut self,
        shared: &Shared,
        max_bytes: usize,
        in_file: Option<fn(FileRange) -> B>,
    ) -> Result<Fetched<B>, FetchError> {
        let max_bytes = max_bytes.min(FETCH_BYTES_MAX);
        loop {
            let mut found = self.locate(shared)?;
            let Some(place) = found.place.take() else {
                return Ok(found.into_fetched(Bytes::new().into(), self.offset));
            };
            let file = match place.open(&*shared.storage) {
                Ok(file) => file,
                // Retention took it since, or compaction, or the topic was deleted: look again.
                Err(_) if self.moved(shared, &place) => continue,
                Err(e) => return Err(DiskError::new("open", &place.path(), e).into()),
            };
            let start = place.entry(&*shared.storage, &*file)?;
            if let Some(in_file) = in_file
                && let Some(range) =
                    range::find(&place, &file, &start, self.offset, max_bytes, found.limit)?
            {
                let upper = range.upper;
                return Ok(found.into_fetched(in_file(range.range), upper));
            }
            let (batches, upper) =
                self.read(shared, &place, &*file, &start, max_bytes, found.limit)?;
            if !batches.is_empty() || place.state.end >= found.end_offset {
                return Ok(found.into_fetched(batches.into(), upper));
            }
            // Compaction left nothing from there to the segment's end.
            self.offset = place.state.end;
        }
    }

    fn locate(&self, shared: &Shared) -> Result<Found, FetchError> {
        let tables = shared.tables();
        let p = tables
            .partition(self.topic, self.partition)
            .ok_or_else(|| FetchError::Unknown {
                topic: self.topic.into(),
                partition: self.partition,
            })?;
        if !(p.start..=p.end).contains(&self.offset) {
            return Err(FetchError::OffsetOutOfRange {
                topic: self.topic.into(),
                partition: self.partition,
                offset: self.offset,
                first: p.start,
                end: p.end,
            });
        }
        let last_stable_offset = p.last_stable();
        let limit = match self.isolation {
            Isolation::Uncommitted => p.end,
            Isolation::Committed => last_stable_offset,
        };
        let place = p.place(self.offset).filter(|_| self.offset < limit);
        let aborted = match &place {
            Some(place) if self.isolation == Isolation::Committed => {
                p.producers.aborted_within(self.offset, place.state.end)
            }
            _ => Vec::new(),
        };
        Ok(Found {
            place,
            first_offset: p.start,
            end_offset: p.end,
            last_stable_offset,
            aborted,
            limit,
        })
    }

    fn moved(&self, shared: &Shared, from: &Place) -> bool {
        let now = self.locate(shared).ok().and_then(|found| found.place);
        now.is_none_or(|place| place.path() != from.path())
    }

    /// Walks from the nearest indexed batch to the one that holds the offset, and takes whole
    /// batches from there on, up to the one at `limit`. Answers the offset behind them too.
    fn read(
        &self,
        shared: &Shared,
        place: &Place,
        file: &dyn File,
        start: &IndexEntry,
        max_bytes: usize,
        limit: i64,
    ) -> Result<(Bytes, i64), FetchError> {
        let len = max_bytes + INDEX_INTERVAL_BYTES as usize;
        let buf = shared.buffers.take();
        let mut walk = Walk::new(place, file, buf, start, len)?;
        let mut taken: Option<usize> = None;
        loop {
            let Some(header) = walk.next().map_err(|damage| self.corrupt(damage))? else {
                if taken.is_none() && walk.goes_on() {
                    // The offset lies behind what was read, if the file has it at all.
                    walk.reload(len)?;
                    continue;
                }
                break;
            };
            let at = walk.at;
            if header.base_offset >= limit {
                break;
            }
            if header.next_offset() <= self.offset {
                walk.skip(&header);
                continue;
            }
            if walk.whole(&header).is_none() {
                if taken.is_some() {
                    break;
                }
                walk.reload(header.bytes)?;
                if walk.whole(&header).is_none() {
                    return Err(self.corrupt(walk.damage("the file ends inside a batch".into())));
                }
                continue;
            }
            if taken.is_some_and(|from| at + header.bytes - from > max_bytes) {
                break;
            }
            let checked = BatchHeader::verify(&walk.buf.filled()[at..]);
            checked.map_err(|e| self.corrupt(walk.damage(e.to_string())))?;
            taken.get_or_insert(at);
            walk.skip(&header);
        }
        if let Some(from) = taken {
            let checked = &walk.place.checked;
            let now = Instant::now();
            checked.add(walk.start + from as u64, walk.start + walk.at as u64, now);
        }
        let batches = taken.map(|from| walk.buf.into_bytes(from..walk.at));
        Ok((batches.unwrap_or_default(), walk.offset))
    }

    fn corrupt(&self, damage: Damage) -> FetchError {
        tracing::error!(%damage, topic = self.topic, partition = self.partition, "damaged segment");
        FetchError::Corrupt {
            topic: self.topic.into(),
            partition: self.partition,
            offset: self.offset,
            damage,
        }
    }
}

/// A piece of a segment, and a batch in it.
struct Walk<'a> {
    place: &'a Place,
    file: &'a dyn File,
    /// Where `buf` starts in the file.
    start: u64,
    buf: Buffer,
    /// The batch, in `buf`.
    at: usize,
    /// The base offset it must have.
    offset: i64,
}

impl<'a> Walk<'a> {
    fn new(
        place: &'a Place,
        file: &'a dyn File,
        buf: Buffer,
        from: &IndexEntry,
        len: usize,
    ) -> Result<Self, FetchError> {
        let mut walk = Self {
            place,
            file,
            start: from.position,
            buf,
            at: 0,
            offset: from.offset,
        };
        walk.reload(len)?;
        Ok(walk)
    }

    /// Reads `len` bytes from the current batch on, or up to the visible end.
    fn reload(&mut self, len: usize) -> Result<(), FetchError> {
        self.start += self.at as u64;
        self.at = 0;
        let visible = self.place.state.bytes.saturating_sub(self.start);
        let (file, start) = (self.file, self.start);
        let len = visible.min(len as u64) as usize;
        let read = self.buf.fill(len, |buf| file.read_at(buf, start));
        Ok(read.during("read", &self.place.path())?)
    }

    /// Whether there is another batch behind the last one.
    fn goes_on(&self) -> bool {
        self.start + (self.at as u64) < self.place.state.bytes
    }

    /// The head of the current batch; `None` at the end of the piece.
    fn next(&mut self) -> Result<Option<BatchHeader>, Damage> {
        if !self.goes_on() {
            return Ok(None);
        }
        // The file may be shorter than what it held once.
        let rest = self.buf.filled().get(self.at..).unwrap_or_default();
        match BatchHeader::parse(rest) {
            Ok(h) if follows(&h, self.offset, self.place.state.has_holes()) => Ok(Some(h)),
            Ok(h) => {
                let (found, due) = (h.base_offset, self.offset);
                Err(self.damage(format!(
                    "a batch with base offset {found} stands where offset {due} is due"
                )))
            }
            Err(BatchError::Short { .. }) if self.at > 0 => Ok(None),
            Err(e) => Err(self.damage(e.to_string())),
        }
    }

    fn whole(&self, header: &BatchHeader) -> Option<&[u8]> {
        self.buf.filled().get(self.at..self.at + header.bytes)
    }

    fn skip(&mut self, header: &BatchHeader) {
        self.at += header.bytes;
        self.offset = header.next_offset();
    }

    fn damage(&self, problem: String) -> Damage {
        Damage {
            path: self.place.path(),
            position: self.start + self.at as u64,
            problem,
        }
    }
}

/// The first record with a timestamp of at least `timestamp`, if there is one.
pub(crate) fn offset_at_time(
    shared: &Shared,
    topic: &str,
    partition: u32,
    timestamp: i64,
) -> Result<Option<OffsetAtTime>, FetchError> {
    let (place, first) = {
        let tables = shared.tables();
        let p = tables.partition(topic, partition);
        let p = p.ok_or_else(|| FetchError::Unknown {
            topic: topic.into(),
            partition,
        })?;
        (p.place_by_time(timestamp), p.start)
    };
    let Some(place) = place else {
        return Ok(None);
    };
    let path = place.path();
    let file = place.open(&*shared.storage).during("open", &path)?;
    let mut offset = place.entry(&*shared.storage, &*file)?.offset.max(first);
    while offset < place.state.end {
        let wish = Wish::new(topic, partition, offset, Isolation::Uncommitted);
        let fetched: Fetched = wish.fetch(shared, INDEX_INTERVAL_BYTES as usize, None)?;
        if fetched.batches.is_empty() {
            break;
        }
        let mut rest = &fetched.batches[..];
        while let Ok(header) = BatchHeader::parse(rest) {
            if header.max_timestamp >= timestamp {
                return Ok(Some(within(&header, rest, timestamp)));
            }
            offset = header.next_offset();
            rest = rest.get(header.bytes..).unwrap_or_default();
        }
    }
    Ok(None)
}

/// The record of a batch; of a compressed one, which the log does not open, the batch.
fn within(header: &BatchHeader, batch: &[u8], timestamp: i64) -> OffsetAtTime {
    let records = Records::new(batch).ok();
    let found = records
        .and_then(|mut records| records.find_map(|r| r.ok().filter(|r| r.timestamp >= timestamp)));
    OffsetAtTime {
        offset: found.as_ref().map_or(header.base_offset, |r| r.offset),
        timestamp: found.map_or(header.max_timestamp, |r| r.timestamp),
    }
}

/// Offset of a partition before which no transaction is open.
pub(crate) fn last_stable_offset(
    shared: &Shared,
    topic: &str,
    partition: u32,
) -> Result<i64, FetchError> {
    let tables = shared.tables();
    let p = tables.partition(topic, partition);
    p.map(|p| p.last_stable())
        .ok_or_else(|| FetchError::Unknown {
            topic: topic.into(),
            partition,
        })
}

const _: () = assert!(HEADER_BYTES < INDEX_INTERVAL_BYTES as usize);
