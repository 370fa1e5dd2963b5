//! Reads records back, without copying.

use super::header::{BatchError, BatchHeader, HEADER_BYTES};
use super::varint;
use crate::limits;

/// The records of one batch, in order. Stops after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    left: i32,
}

/// One record, borrowed from its batch.
#[derive(Clone, Debug)]
pub struct RecordView<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in ms.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, already checked.
    pub headers: Headers<'a>,
    /// All of it as it stands in its batch, its length included.
    pub encoded: &'a [u8],
}

/// The headers of one record, in order; names may repeat.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
}

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Its name, as bytes: usually UTF-8.
    pub name: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// Why a batch cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// It is compressed.
    #[error("record batch at offset {base_offset} is compressed (attributes {attributes:#06x})")]
    Compressed {
        /// Offset of its first record.
        base_offset: i64,
        /// Its attributes.
        attributes: i16,
    },
    /// It cannot be decompressed.
    #[error("record batch at offset {base_offset} cannot be decompressed: {problem}")]
    Compression {
        /// Offset of its first record.
        base_offset: i64,
        /// What is wrong.
        problem: String,
    },
    /// A record does not fit its own lengths.
    #[error("record {index} of the batch at offset {base_offset}: {field} does not fit")]
    Record {
        /// Offset of the batch's first record.
        base_offset: i64,
        /// Which record of the batch.
        index: i32,
        /// The field that is wrong.
        field: &'static str,
    },
}

impl<'a> Records<'a> {
    /// The records of the batch that `bytes` starts with. Its checksum is verified.
    ///
    /// # Errors
    /// When it is not a whole, uncompressed batch.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let header = BatchHeader::verify(bytes)?;
        if header.is_compressed() {
            return Err(DecodeError::Compressed {
                base_offset: header.base_offset,
                attributes: header.attributes,
            });
        }
        Ok(Self {
            header,
            rest: &bytes[HEADER_BYTES..header.bytes],
            left: header.records,
        })
    }

    /// The batch's head.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn read(&mut self) -> Result<RecordView<'a>, &'static str> {
        let whole = self.rest;
        let size = varint::take(&mut self.rest).ok_or("length")?;
        let size = usize::try_from(size).map_err(|_| "length")?;
        let (mut body, rest) = self.rest.split_at_checked(size).ok_or("length")?;
        self.rest = rest;
        let body = &mut body;
        *body = body.get(1..).ok_or("attributes")?;
        let timestamp_delta = varint::take(body).ok_or("timestamp delta")?;
        let offset_delta = varint::take(body).ok_or("offset delta")?;
        if !(0..=i64::from(self.header.last_offset_delta)).contains(&offset_delta) {
            return Err("offset delta");
        }
        let key = take_field(body).ok_or("key")?;
        let value = take_field(body).ok_or("value")?;
        Ok(RecordView {
            offset: self.header.base_offset + offset_delta,
            timestamp: if self.header.is_append_time() {
                self.header.max_timestamp
            } else {
                self.header.base_timestamp.wrapping_add(timestamp_delta)
            },
            key,
            value,
            headers: Headers::check(body).ok_or("headers")?,
            encoded: &whole[..whole.len() - self.rest.len()],
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let index = self.header.records - self.left;
        let record = self.read();
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        Some(record.map_err(|field| DecodeError::Record {
            base_offset: self.header.base_offset,
            index,
            field,
        }))
    }
}

impl<'a> Headers<'a> {
    /// Takes the headers off `body`, walking through them once so that iterating cannot fail.
    fn check(body: &mut &'a [u8]) -> Option<Self> {
        let count = usize::try_from(varint::take(body)?).ok()?;
        if count > limits::RECORD_HEADERS_MAX {
            return None;
        }
        let headers = Self {
            rest: body,
            left: count,
        };
        for _ in 0..count {
            take_field(body)??;
            take_field(body)?;
        }
        Some(headers)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(HeaderView {
            name: take_field(&mut self.rest)??,
            value: take_field(&mut self.rest)?,
        })
    }
}

/// A field with a length before it: -1 is `None` inside.
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(field))
}
