//! Every bound of the log, with what it costs to raise it.

use std::time::Duration;

/// Sync groups start on this boundary, in bytes, so that a torn write never touches a block that
/// holds acknowledged data. Each sync group wastes half of it on average.
pub const WAL_BLOCK_BYTES: u64 = 4 * 1024;

/// Default size of one WAL file. It is zero-filled before use, which takes about 50 ms at
/// start; a frame never straddles two files.
pub const WAL_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Smallest WAL file that may be configured.
pub const WAL_FILE_BYTES_MIN: u64 = 4 * WAL_BLOCK_BYTES;

/// Default amount of WAL after which a checkpoint is made. More means fewer segment syncs, a
/// longer recovery (about one second for each GiB), and more WAL files before the first one is
/// used again: making one costs as much as filling it.
pub const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// A checkpoint also waits until there is so much WAL for each segment that it has to sync, up to half
/// of the most that the WAL may take: 2,000 busy partitions are synced for every 512 MiB then.
pub const CHECKPOINT_BYTES_PER_FILE: u64 = 256 * 1024;

/// The longest time that records of a topic with `flush = async` are acknowledged but not synced,
/// but for the time that the sync takes.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Default amount of WAL at which appends wait for the running checkpoint: the most disk the WAL
/// takes.
pub const WAL_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Most data of one append, in bytes: it goes into one frame, which must fit one WAL file.
pub const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where a sync group stops taking further appends, in bytes.
pub const GROUP_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Largest record batch, in bytes. Fetch returns whole batches, so that a reader's buffer must
/// hold one.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most records of one batch. Bounds what a decoder reserves.
pub const BATCH_RECORDS_MAX: usize = 1024 * 1024;

/// Most headers of one record that the decoder accepts.
pub const RECORD_HEADERS_MAX: usize = 4 * 1024;

/// Bytes of appends that may wait for the writer; further callers wait for room.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests that may wait for the writer; further callers wait for room.
pub const QUEUE_REQUESTS_MAX: usize = 4 * 1024;

/// Longest topic name, in bytes: Kafka's limit, and it must be a directory name.
pub const TOPIC_BYTES_MAX: usize = 249;

/// Most partitions of one topic, and of all topics of a log together. Each one that is written to
/// holds a file open and has a line in every checkpoint.
pub const PARTITIONS_MAX: u32 = 10_000;

/// Default time that compaction keeps tombstones, in ms: a reader that was away for longer may miss
/// that a key is gone.
pub const TOMBSTONE_RETENTION_MS: u64 = 24 * 60 * 60 * 1000;

/// Longest consumer-group name, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 255;

/// Longest text that a group may leave with an offset, in bytes: Kafka's default.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4 * 1024;

/// Most offsets that all groups of a log may have: about 100 bytes of memory and of each
/// checkpoint, besides their texts.
pub const GROUP_OFFSETS_MAX: usize = 500_000;

/// Longest publisher id, in bytes.
pub const PUBLISHER_BYTES_MAX: usize = 512;

/// Most redelivered intervals remembered for one publisher; beyond it the lowest are forgotten,
/// and an unconfirmed resend of those may be stored twice.
pub const REDELIVERY_INTERVALS_MAX: usize = 65_536;

/// Batches that are remembered of each producer in each partition: as many as Kafka's clients send
/// without waiting, so that any of them may be sent again. 16 bytes each.
pub const PRODUCER_BATCHES: usize = 5;

/// Producers that are remembered in all partitions together, each counted in each partition it
/// appended to. Beyond it those idle for longest are forgotten, as if they had expired. About 150
/// bytes each.
pub const PRODUCERS_MAX: usize = 200_000;

/// Default time in ms after which an idle producer is forgotten: Kafka's
/// `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRY_MS: u64 = 24 * 60 * 60 * 1000;

/// Default time in ms after which an idle transactional id is forgotten: Kafka's
/// `transactional.id.expiration.ms`.
pub const TRANSACTIONAL_ID_EXPIRY_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Default of the longest time in ms that a transaction may stay open: Kafka's
/// `transaction.max.timeout.ms`. Readers of committed records wait for it for as long.
pub const TRANSACTION_TIMEOUT_MAX_MS: u64 = 15 * 60 * 1000;

/// Longest transactional id, in bytes.
pub const TRANSACTIONAL_ID_BYTES_MAX: usize = 512;

/// Most transactional ids; further ones are refused until idle ones are forgotten. A few hundred
/// bytes each.
pub const TRANSACTIONAL_IDS_MAX: usize = 50_000;

/// Most groups whose offsets are committed in one transaction.
pub const TRANSACTION_GROUPS_MAX: usize = 1_000;

/// Most offsets that are committed in one transaction. They are held in memory until its end; those
/// of all open ones together are bounded by [`GROUP_OFFSETS_MAX`].
pub const TRANSACTION_OFFSETS_MAX: usize = 20_000;

/// Default size of a segment. Retention removes whole segments.
pub const SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// Smallest segment that may be configured.
pub const SEGMENT_BYTES_MIN: u64 = 1024;

/// Distance of index entries, in bytes of segment. A fetch reads at most so much in vain; 24
/// bytes of memory for each.
pub const INDEX_INTERVAL_BYTES: u64 = 64 * 1024;

/// Segment files that may be open for appends at a time, or wait open for the next checkpoint, where
/// the system allows a process no more than 1,024 files, the usual limit; beyond it those that are
/// idle are closed. Where it allows more, a quarter of that, at most [`PARTITIONS_MAX`].
pub const OPEN_SEGMENTS: usize = 256;

/// Most bytes that one fetch returns, but for a single larger batch.
pub const FETCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of read buffers that are kept for the next reads.
pub const FETCH_POOL_BYTES: usize = 16 * 1024 * 1024;

/// How long bytes of a segment count as checked: until then a server may send them from their file.
pub const CHECKED_FOR: Duration = Duration::from_secs(600);

/// Bytes that are read at a time when the batches that are to be sent from their file are looked for.
pub const RANGE_WALK_BYTES: usize = 4 * 1024;

/// A fetch of no more than this is copied out of its buffer, which would otherwise be held by it.
pub const FETCH_COPY_BYTES: usize = 64 * 1024;

/// Bytes that are read at a time when a segment is read through.
pub const SCAN_BYTES: usize = 1024 * 1024;

/// Largest compressed batch when it is opened, in bytes: a small one may claim to be huge.
pub const OPENED_BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Keys that one compaction of a partition keeps apart, at about 40 bytes of memory each; what has
/// more is compacted in several rounds.
pub const COMPACTION_KEYS_MAX: usize = 900_000;

/// Files and folders that are synced one after the other; more are synced by [`SYNC_THREADS`].
pub const SYNC_ALONE_MAX: usize = 16;

/// Threads that sync many files. Each waits for the disk nearly all of its time.
pub const SYNC_THREADS: usize = 16;

/// Most findings of each kind that a check of a log tells.
pub const VERIFY_FINDINGS_MAX: usize = 1000;

const _: () = assert!(APPEND_BYTES_MAX < WAL_FILE_BYTES as usize);
const _: () = assert!(APPEND_BYTES_MAX <= GROUP_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_MAX < WAL_FILE_BYTES as usize);
const _: () = assert!(BATCH_BYTES_MAX <= APPEND_BYTES_MAX);
const _: () = assert!(CHECKPOINT_BYTES < WAL_BYTES_MAX);
