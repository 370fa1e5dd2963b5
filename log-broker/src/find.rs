//! Looks into records: for those with a header or a key, and for the last ones.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::{DecodeError, RecordView, Records, open};
use crate::error::FetchError;
use crate::limits::SCAN_BYTES;
use crate::log::Log;

/// What a record must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This key.
    Key(Vec<u8>),
    /// A header of this name with this value.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Vec<u8>,
    },
}

/// Why records could not be looked into.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// They could not be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// They could not be decoded.
    #[error("decode {topic}-{partition}: {source}")]
    Decode {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// Where, and what is wrong.
        #[source]
        source: DecodeError,
    },
}

impl Wanted {
    /// Whether a record has it.
    pub fn matches(&self, record: &RecordView<'_>) -> bool {
        match self {
            Self::Key(key) => record.key == Some(key),
            Self::Header { name, value } => record
                .headers
                .clone()
                .any(|h| h.name == name.as_bytes() && h.value == Some(value)),
        }
    }
}

impl Log {
    /// Shows every record of a partition from `offset` on, up to the end that it has now or until
    /// `visit` breaks, and answers what it broke with. Batches are decompressed; markers of
    /// transactions are left out. Blocks on the disk.
    ///
    /// # Errors
    /// When the partition does not exist, or something cannot be read.
    pub fn scan<B>(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        mut visit: impl FnMut(&RecordView<'_>) -> ControlFlow<B>,
    ) -> Result<Option<B>, ScanError> {
        let (first, end) = self.offsets(topic, partition)?;
        let decode = |source| ScanError::Decode {
            topic: topic.into(),
            partition,
            source,
        };
        let mut offset = offset.max(first);
        while offset < end {
            let fetched = self.fetch(topic, partition, offset, SCAN_BYTES)?;
            let mut rest = &fetched.batches[..];
            if rest.is_empty() {
                break;
            }
            while !rest.is_empty() {
                let batch = open(rest).map_err(decode)?;
                let records = Records::new(&batch).map_err(decode)?;
                let header = *records.header();
                for record in records {
                    let record = record.map_err(decode)?;
                    if record.offset < offset || record.offset >= end || header.is_control() {
                        continue;
                    }
                    if let ControlFlow::Break(with) = visit(&record) {
                        return Ok(Some(with));
                    }
                }
                offset = header.next_offset().max(offset);
                let stored = crate::batch::BatchHeader::parse(rest).map_or(rest.len(), |h| h.bytes);
                rest = &rest[stored..];
            }
        }
        Ok(None)
    }
}
