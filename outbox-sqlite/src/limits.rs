//! Every bound of this store, with what it costs to change it.

use std::time::Duration;

/// How long a writer waits for another process's transaction. Past it the store counts as away: the
/// relay backs off, a service gets `database is locked`.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long house-keeping waits for a lock before it puts the step off.
pub const HOUSEKEEPING_TIMEOUT: Duration = Duration::from_millis(50);

/// Connections for short reads. Each costs a thread and a page cache of 2 MB at most.
pub const READERS_MAX: u32 = 4;

/// Connections of a service's own pool, see [`crate::pool`]. Writers take turns, so more only help
/// readers.
pub const POOL_MAX: u32 = 8;

/// Rows that a statement hands over at a time between SQLite's thread and ours. At sqlx's default
/// of 50 the two threads wake each other too often.
pub const ROW_BUFFER: usize = 1_024;

/// Rows of one multi-row insert. SQLite allows 32,766 parameters; beyond some dozens of rows
/// nothing is gained.
pub const INSERT_ROWS: usize = 64;

/// Messages of one request row, and of one answer to a leader.
pub const REQUEST_MESSAGES_MAX: usize = 1_000;

/// Seqs of the log that one look behind a marker goes through at most. A read transaction that
/// lasts holds up the checkpoint.
pub const MARKER_SCAN_SEQS: i64 = 100_000;

/// Messages that retention goes through in one write transaction. Writers wait for so long: about
/// 5 ms.
pub const RETENTION_CHUNK_MESSAGES: i64 = 2_000;

/// Retention transactions of one round, so that a round ends.
pub const RETENTION_CHUNKS_MAX: u32 = 50;

/// Size of the write-ahead log (64 MiB) past which house-keeping empties it, and to which it is
/// cut after a checkpoint.
pub const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Size of the write-ahead log (512 MiB) past which the doctor says that some reader holds up the
/// checkpoint.
pub const WAL_BYTES_ALARM: u64 = 8 * WAL_BYTES_MAX;

/// Age of a beat after which house-keeping throws the relay's row out. Far beyond any lease TTL:
/// the row decides nothing.
pub const RELAY_ROW_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The rate in a status is that of a window of at least this long.
pub const RATE_WINDOW: Duration = Duration::from_secs(2);

/// A destination that settled nothing for so long is idle: its rate is 0.
pub const RATE_IDLE: Duration = Duration::from_secs(10);

/// Delivery rows of one answer to an operator, when no limit was given.
pub const EXCEPTIONS_DEFAULT: usize = 100;

const _: () = assert!(INSERT_ROWS * 9 < 32_766, "SQLite's limit of parameters");
const _: () = assert!(
    HOUSEKEEPING_TIMEOUT.as_millis() <= 50,
    "the contract's bound"
);
