//! The 61-byte head of a record batch, and the checks that need no decoding.

use crate::checksum::crc32c;
use crate::limits;
use crate::producer::Producer;

/// Bytes of the head.
pub const HEADER_BYTES: usize = 61;

/// The checksum covers everything from the attributes on, so that the base offset and the leader
/// epoch can be stamped without computing it again.
const CRC_FROM: usize = 21;
/// `batchLength` counts the bytes behind itself.
const LENGTH_FROM: usize = 12;
const MAGIC: u8 = 2;
const COMPRESSION_MASK: i16 = 0x07;
const APPEND_TIME_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;

/// The head of a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Size of the whole batch, this head included, in bytes.
    pub bytes: usize,
    /// Epoch of the leader that stored it.
    pub leader_epoch: i32,
    /// CRC32C of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas are added to, in ms.
    pub base_timestamp: i64,
    /// Latest timestamp of a record, in ms.
    pub max_timestamp: i64,
    /// Idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Its sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub records: i32,
}

impl BatchHeader {
    /// Reads the head of the batch that `bytes` starts with, and checks what can be checked of
    /// the head alone: magic, length and counts.
    ///
    /// # Errors
    /// [`BatchError`], naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short {
                bytes: bytes.len(),
                needed: HEADER_BYTES,
            });
        };
        if head[16] != MAGIC {
            return Err(BatchError::Magic { found: head[16] });
        }
        let header = Self::read(head)?;
        let counted = i64::from(header.last_offset_delta) + 1;
        let plausible = (1..=limits::BATCH_RECORDS_MAX as i64).contains(&counted);
        // Compaction leaves fewer records than offsets.
        let records = i64::from(header.records);
        if !plausible || !(1..=counted).contains(&records) || header.base_offset < 0 {
            return Err(header.miscounted());
        }
        Ok(header)
    }

    /// Checks that each offset of the batch has its record, as it must when it is appended.
    pub(crate) fn check_whole(&self) -> Result<(), BatchError> {
        match i64::from(self.records) == i64::from(self.last_offset_delta) + 1 {
            true => Ok(()),
            false => Err(self.miscounted()),
        }
    }

    fn miscounted(&self) -> BatchError {
        BatchError::Count {
            records: self.records,
            last_offset_delta: self.last_offset_delta,
            base_offset: self.base_offset,
        }
    }

    fn read(head: &[u8; HEADER_BYTES]) -> Result<Self, BatchError> {
        let length = i32::from_be_bytes(take(head, 8));
        let bytes = usize::try_from(length).map_or(0, |n| n + LENGTH_FROM);
        if !(HEADER_BYTES..=limits::BATCH_BYTES_MAX).contains(&bytes) {
            return Err(BatchError::Length {
                length,
                limit: limits::BATCH_BYTES_MAX,
            });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(take(head, 0)),
            bytes,
            leader_epoch: i32::from_be_bytes(take(head, 12)),
            crc: u32::from_be_bytes(take(head, 17)),
            attributes: i16::from_be_bytes(take(head, 21)),
            last_offset_delta: i32::from_be_bytes(take(head, 23)),
            base_timestamp: i64::from_be_bytes(take(head, 27)),
            max_timestamp: i64::from_be_bytes(take(head, 35)),
            producer_id: i64::from_be_bytes(take(head, 43)),
            producer_epoch: i16::from_be_bytes(take(head, 51)),
            base_sequence: i32::from_be_bytes(take(head, 53)),
            records: i32::from_be_bytes(take(head, 57)),
        })
    }

    /// As [`BatchHeader::parse`], and checks that the batch is whole and its checksum right.
    ///
    /// # Errors
    /// [`BatchError`], naming the field.
    pub fn verify(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse(bytes)?;
        let Some(batch) = bytes.get(..header.bytes) else {
            return Err(BatchError::Short {
                bytes: bytes.len(),
                needed: header.bytes,
            });
        };
        let computed = crc32c(&batch[CRC_FROM..]);
        if computed != header.crc {
            return Err(BatchError::Checksum {
                stored: header.crc,
                computed,
            });
        }
        Ok(header)
    }

    /// Offset behind the last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta) + 1
    }

    /// How the records are compressed: 0 not, 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard.
    pub fn codec(&self) -> u8 {
        (self.attributes & COMPRESSION_MASK) as u8
    }

    /// The head of the same batch without compression.
    pub(super) fn uncompressed(self) -> Self {
        Self {
            attributes: self.attributes & !COMPRESSION_MASK,
            ..self
        }
    }

    /// Whether the records are compressed.
    pub fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION_MASK != 0
    }

    /// Whether this is a transaction marker, which no consumer is shown.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether every record's timestamp is the latest one: the time of the append.
    pub fn is_append_time(&self) -> bool {
        self.attributes & APPEND_TIME_BIT != 0
    }

    /// Makes the time of the append the timestamp of every record of the whole batch that `batch`
    /// starts with. The checksum is computed again.
    pub(crate) fn stamp_time(batch: &mut [u8], wall_ms: i64) {
        if let Ok(header) = Self::parse(batch)
            && let Some(batch) = batch.get_mut(..header.bytes)
        {
            let attributes = header.attributes | APPEND_TIME_BIT;
            batch[21..23].copy_from_slice(&attributes.to_be_bytes());
            batch[35..43].copy_from_slice(&wall_ms.to_be_bytes());
            Self::seal(batch);
        }
    }

    /// Whether the records belong to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Its producer; both numbers are negative when it has none.
    pub fn producer(&self) -> Producer {
        Producer {
            id: self.producer_id,
            epoch: self.producer_epoch,
        }
    }

    /// Stamps the base offset and the leader epoch into the batch that `batch` starts with.
    pub(crate) fn stamp(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
        batch[..8].copy_from_slice(&base_offset.to_be_bytes());
        batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Writes everything but the checksum into `head`, the front of a batch.
    pub(super) fn write(&self, head: &mut [u8]) {
        head[..8].copy_from_slice(&self.base_offset.to_be_bytes());
        head[8..12].copy_from_slice(&((self.bytes - LENGTH_FROM) as i32).to_be_bytes());
        head[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        head[16] = MAGIC;
        head[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        head[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        head[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        head[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        head[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        head[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        head[57..61].copy_from_slice(&self.records.to_be_bytes());
    }

    /// Computes the checksum of a whole batch and writes it.
    pub(super) fn seal(batch: &mut [u8]) {
        let crc = crc32c(&batch[CRC_FROM..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

fn take<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&head[at..at + N]);
    field
}

/// Why bytes are not a record batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("record batch ends after {bytes} bytes, it needs {needed}")]
    Short {
        /// Bytes there.
        bytes: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// Another version of the format.
    #[error("record batch has magic {found}, only 2 is accepted: use a client of 2017 or later")]
    Magic {
        /// The version found.
        found: u8,
    },
    /// The length cannot be.
    #[error("record batch length {length} is out of bounds: a batch has at most {limit} bytes")]
    Length {
        /// The length field.
        length: i32,
        /// Largest batch.
        limit: usize,
    },
    /// The counts do not agree.
    #[error(
        "record batch says {records} records with last offset delta {last_offset_delta} at base \
         offset {base_offset}: the count must be the delta plus one"
    )]
    Count {
        /// The number of records.
        records: i32,
        /// The last offset delta.
        last_offset_delta: i32,
        /// The base offset.
        base_offset: i64,
    },
    /// Only the log itself writes transaction markers.
    #[error("record batch is a transaction marker: clients end a transaction by a request")]
    Marker,
    /// What it says about its producer cannot be.
    #[error(
        "record batch of producer {producer_id} has epoch {producer_epoch}, base sequence \
         {base_sequence}: a producer has all three from 0 up, and only a producer has transactions"
    )]
    Producer {
        /// The producer's id.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i16,
        /// The sequence of the first record.
        base_sequence: i32,
    },
    /// The checksum is wrong.
    #[error("record batch has CRC32C {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// The one in the head.
        stored: u32,
        /// The one computed.
        computed: u32,
    },
}
