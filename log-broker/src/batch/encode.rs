//! Writes record batches straight into a buffer that is used again.

use super::header::{BatchHeader, HEADER_BYTES};
use super::varint;

/// Headers in wire form, written once and copied into many records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderBlock {
    count: usize,
    bytes: Vec<u8>,
}

impl HeaderBlock {
    /// Adds a header.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.count += 1;
        varint::put(&mut self.bytes, name.len() as i64);
        self.bytes.extend_from_slice(name.as_bytes());
        varint::put(&mut self.bytes, value.len() as i64);
        self.bytes.extend_from_slice(value);
    }

    /// Removes all headers and keeps the memory.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }
}

/// What a record is made of.
#[derive(Clone, Copy, Debug)]
pub struct RecordFields<'a> {
    /// Timestamp in ms.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers shared with other records; they come first.
    pub shared: &'a HeaderBlock,
    /// Headers of its own.
    pub own: &'a HeaderBlock,
}

/// Upper bound of the bytes that a record takes in a batch.
pub fn record_bytes(fields: &RecordFields<'_>) -> usize {
    // Seven varints of at most ten bytes each and the attributes.
    71 + fields.key.map_or(0, <[u8]>::len)
        + fields.value.map_or(0, <[u8]>::len)
        + fields.shared.bytes.len()
        + fields.own.bytes.len()
}

/// One batch being written at the end of a buffer. A batch that is dropped before
/// [`BatchEncoder::finish`] leaves its unfinished bytes behind.
#[derive(Debug)]
pub struct BatchEncoder<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
    base_timestamp: i64,
    max_timestamp: i64,
    records: i32,
}

/// A batch that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedBatch {
    /// Its size in bytes.
    pub bytes: usize,
    /// Its records.
    pub records: i32,
}

impl<'a> BatchEncoder<'a> {
    /// Starts a batch at the end of `buf`.
    pub fn begin(buf: &'a mut Vec<u8>) -> Self {
        let start = buf.len();
        buf.resize(start + HEADER_BYTES, 0);
        Self {
            buf,
            start,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
            records: 0,
        }
    }

    /// Adds a record.
    pub fn record(&mut self, fields: &RecordFields<'_>) {
        if self.records == 0 {
            self.base_timestamp = fields.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(fields.timestamp);
        let timestamp_delta = fields.timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.records);
        let headers = fields.shared.count + fields.own.count;
        let size = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + sized(fields.key)
            + sized(fields.value)
            + varint::size(headers as i64)
            + fields.shared.bytes.len()
            + fields.own.bytes.len();
        let buf = &mut *self.buf;
        buf.reserve(size + 10);
        varint::put(buf, size as i64);
        buf.push(0);
        varint::put(buf, timestamp_delta);
        varint::put(buf, offset_delta);
        put(buf, fields.key);
        put(buf, fields.value);
        varint::put(buf, headers as i64);
        buf.extend_from_slice(&fields.shared.bytes);
        buf.extend_from_slice(&fields.own.bytes);
        self.records += 1;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.buf.len() - self.start
    }

    /// Records so far.
    pub fn records(&self) -> i32 {
        self.records
    }

    /// Writes the head and the checksum. A batch without a record is taken back, and has size 0.
    pub fn finish(self) -> EncodedBatch {
        if self.records == 0 {
            self.buf.truncate(self.start);
            return EncodedBatch {
                bytes: 0,
                records: 0,
            };
        }
        let batch = &mut self.buf[self.start..];
        let header = BatchHeader {
            base_offset: 0,
            bytes: batch.len(),
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: self.records - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records: self.records,
        };
        header.write(batch);
        BatchHeader::seal(batch);
        EncodedBatch {
            bytes: batch.len(),
            records: self.records,
        }
    }
}

fn sized(field: Option<&[u8]>) -> usize {
    field.map_or(varint::size(-1), |f| varint::size(f.len() as i64) + f.len())
}

fn put(buf: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::put(buf, -1),
        Some(field) => {
            varint::put(buf, field.len() as i64);
            buf.extend_from_slice(field);
        }
    }
}
