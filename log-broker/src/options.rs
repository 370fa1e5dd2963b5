//! How a log is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::OpenError;
use crate::limits;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The log's folder; created when it does not exist.
    pub dir: PathBuf,
    /// Size of each WAL file, a multiple of 4 KiB. Default 16 MiB. Of effect only when the log is
    /// created; it bounds one append.
    pub wal_file_bytes: u64,
    /// A checkpoint is made after so much WAL. Default 64 MiB.
    pub checkpoint_bytes: u64,
    /// Appends wait for a checkpoint when the WAL is so large. Default 1 GiB.
    pub wal_bytes_max: u64,
    /// How often retention is applied, and the longest time between checkpoints while there are
    /// appends. Default 30 s.
    pub interval: Duration,
    /// A producer that has been idle for so long is forgotten: a batch that it sends again may be
    /// stored twice then, or is refused. Default one day.
    pub producer_expiry: Duration,
    /// A transactional id that has been idle for so long is forgotten. Default seven days.
    pub transactional_id_expiry: Duration,
    /// The longest timeout that a transaction may ask for. Default 15 minutes.
    pub transaction_timeout_max: Duration,
}

impl LogOptions {
    /// The defaults, for the log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            wal_file_bytes: limits::WAL_FILE_BYTES,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
            wal_bytes_max: limits::WAL_BYTES_MAX,
            interval: Duration::from_secs(30),
            producer_expiry: Duration::from_millis(limits::PRODUCER_EXPIRY_MS),
            transactional_id_expiry: Duration::from_millis(limits::TRANSACTIONAL_ID_EXPIRY_MS),
            transaction_timeout_max: Duration::from_millis(limits::TRANSACTION_TIMEOUT_MAX_MS),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bad = |option, value, must: String| {
            Err(OpenError::Option {
                option,
                value,
                must,
            })
        };
        let (min, block) = (limits::WAL_FILE_BYTES_MIN, limits::WAL_BLOCK_BYTES);
        let size = self.wal_file_bytes;
        if size < min || !size.is_multiple_of(block) || size > u64::from(u32::MAX) {
            let must = format!("a multiple of {block}, from {min} to {}", u32::MAX);
            return bad("wal_file_bytes", size, must);
        }
        if self.wal_bytes_max < self.checkpoint_bytes.max(2 * size) {
            let must = "at least checkpoint_bytes and two WAL files".to_owned();
            return bad("wal_bytes_max", self.wal_bytes_max, must);
        }
        Ok(())
    }
}
