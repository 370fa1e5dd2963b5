//! Reading fields, for the requests that have a codec of their own.

use bytes::{Buf, Bytes};

use super::{CodecError, StrBytes};

/// What is left of a request.
pub(super) struct Fields {
    pub rest: Bytes,
    /// Compact lengths and tagged fields.
    pub flexible: bool,
}

impl Fields {
    pub fn i16(&mut self, field: &'static str) -> Result<i16, CodecError> {
        self.need(2, field)?;
        Ok(self.rest.get_i16())
    }

    pub fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        self.need(4, field)?;
        Ok(self.rest.get_i32())
    }

    /// A text that may be null.
    pub fn text(&mut self, field: &'static str) -> Result<Option<StrBytes>, CodecError> {
        let length = match self.flexible {
            true => self.compact_length(field)?,
            false => length(i64::from(self.i16(field)?), field)?,
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let bytes = self.take(length, field)?;
        match StrBytes::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(CodecError::Field { field, value: -1 }),
        }
    }

    /// Bytes that may be null, not copied.
    pub fn bytes(&mut self, field: &'static str) -> Result<Option<Bytes>, CodecError> {
        match self.length(field)? {
            Some(length) => self.take(length, field).map(Some),
            None => Ok(None),
        }
    }

    /// The count of an array; null counts as empty. Each element takes at least `least` bytes, so
    /// that a count that the bytes cannot hold is refused.
    pub fn count(&mut self, least: usize, field: &'static str) -> Result<usize, CodecError> {
        let count = self.length(field)?.unwrap_or(0);
        if count > self.rest.len() / least {
            return Err(CodecError::Field {
                field,
                value: count as i64,
            });
        }
        Ok(count)
    }

    /// Tagged fields, which are skipped.
    pub fn tags(&mut self) -> Result<(), CodecError> {
        self.tag(-1).map(|_| ())
    }

    /// Tagged fields, which are skipped but for one.
    pub fn tag(&mut self, wanted: i32) -> Result<Option<Bytes>, CodecError> {
        const FIELD: &str = "tagged fields";
        let mut found = None;
        if !self.flexible {
            return Ok(found);
        }
        let count = self.unsigned_varint(FIELD)?;
        for _ in 0..count {
            let tag = self.unsigned_varint(FIELD)?;
            let size = self.unsigned_varint(FIELD)?;
            let field = self.take(size as usize, FIELD)?;
            if i64::from(tag) == i64::from(wanted) {
                found = Some(field);
            }
        }
        Ok(found)
    }

    fn length(&mut self, field: &'static str) -> Result<Option<usize>, CodecError> {
        match self.flexible {
            true => self.compact_length(field),
            false => length(i64::from(self.i32(field)?), field),
        }
    }

    fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>, CodecError> {
        length(i64::from(self.unsigned_varint(field)?) - 1, field)
    }

    fn unsigned_varint(&mut self, field: &'static str) -> Result<u32, CodecError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            self.need(1, field)?;
            let byte = self.rest.get_u8();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Field { field, value: -1 })
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<Bytes, CodecError> {
        self.need(length, field)?;
        Ok(self.rest.split_to(length))
    }

    fn need(&self, bytes: usize, field: &'static str) -> Result<(), CodecError> {
        match self.rest.len() >= bytes {
            true => Ok(()),
            false => Err(CodecError::Short { field }),
        }
    }
}

fn length(value: i64, field: &'static str) -> Result<Option<usize>, CodecError> {
    match value {
        -1 => Ok(None),
        0.. => Ok(Some(value as usize)),
        _ => Err(CodecError::Field { field, value }),
    }
}
