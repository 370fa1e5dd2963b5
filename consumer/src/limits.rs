//! Every bound of the consumer, with what it costs to raise it.

use std::time::Duration;

/// Workers unless said otherwise. Each holds at most one connection of the inbox's pool.
pub const WORKERS: usize = 4;

/// Most workers. Behind each stands a queue of up to [`QUEUE_BYTES_MAX`].
pub const WORKERS_MAX: usize = 256;

/// Most records applied in one transaction, unless said otherwise. A larger batch saves commits,
/// and costs more work done twice when one of its records fails.
pub const BATCH_RECORDS: usize = 256;

/// Largest value of the batch setting: a transaction of more rows holds its locks for long.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// Records that wait in front of one worker.
pub const QUEUE_RECORDS_MAX: usize = 2_048;

/// Bytes that wait in front of one worker (8 MiB); one record always fits. A worker holds as much
/// again in the batch it works on.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes asked of the source in one call (1 MiB).
pub const FETCH_BYTES: usize = 1024 * 1024;

/// How often offsets are committed while there is something to commit. What was applied since is
/// read again after a crash, and skipped.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// How often the source is asked for new topics and partitions.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// The same when the source has just said that something changed.
pub const REFRESH_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Longest sleep of an idle reader: a source that forgets to say that something changed delays
/// records by this much.
pub const IDLE_POLL: Duration = Duration::from_millis(500);

/// How long one call of a handler may take, unless said otherwise; then it counts as failed.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the inbox may take to begin, accept or commit; then it counts as away. It covers the
/// wait for a concurrent transaction that accepts the same id.
pub const INBOX_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest pause while the inbox or a partition cannot be reached.
pub const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a graceful stop waits for transactions in flight; then they are rolled back.
pub const STOP_WORKERS_MAX: Duration = Duration::from_secs(6);

/// How long a graceful stop may take to commit the last offsets.
pub const STOP_COMMIT_MAX: Duration = Duration::from_secs(2);

/// How long a graceful stop may take to hand partitions over to other processes.
pub const STOP_CLOSE_MAX: Duration = Duration::from_secs(1);

/// How long a graceful stop may take to hand out the last alerts.
pub const STOP_NOTICES_MAX: Duration = Duration::from_secs(1);

/// At most one dead-letter alert in this time: it says how many it stands for.
pub const ALERT_INTERVAL: Duration = Duration::from_secs(60);

/// How long an alert sink may take; then the alert is logged and dropped.
pub const ALERT_SEND_MAX: Duration = Duration::from_secs(10);

/// Alerts that wait for a slow sink; further ones are only counted and logged.
pub const ALERTS_WAITING_MAX: usize = 1_024;

const _: () = assert!(
    STOP_WORKERS_MAX.as_secs()
        + STOP_COMMIT_MAX.as_secs()
        + STOP_CLOSE_MAX.as_secs()
        + STOP_NOTICES_MAX.as_secs()
        <= 10,
    "a graceful stop takes at most 10 s"
);
const _: () = assert!(FETCH_BYTES <= QUEUE_BYTES_MAX);
const _: () = assert!(
    outbox_core::limits::PAYLOAD_BYTES_MAX <= QUEUE_BYTES_MAX,
    "a queue holds any one record"
);
const _: () = assert!(BATCH_RECORDS <= QUEUE_RECORDS_MAX);
const _: () = assert!(ATTEMPT_TIMEOUT.as_secs() < INBOX_TIMEOUT.as_secs());
