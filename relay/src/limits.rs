//! Every bound of the relay, with what it costs to change it.

use std::time::Duration;

/// Pages read ahead of the publisher. With one being published and one queued this makes the three
/// pages that [`outbox_core::limits::PAGE_BYTES_MAX`] speaks of.
pub const PAGES_READ_AHEAD: usize = 1;

/// Jobs handed to the publisher and not yet answered: one in flight, one that starts the moment
/// the first has gone through. More would hold more memory and overlap nothing further.
pub const JOBS_OUT_MAX: usize = 2;

/// Messages of one batch of exceptions (due, or freed from behind a key).
pub const EXCEPTION_ROWS_MAX: usize = 4_096;

/// Keys drained in one turn of exceptions: each costs a query.
pub const DRAIN_KEYS_MAX: usize = 64;

/// Turns of exceptions in a row before the log gets its turn: enough for a drain to catch up with
/// a key that takes all of the traffic, few enough that other keys never wait long.
pub const TURNS_IN_A_ROW_MAX: u32 = 4;

/// Ranges of a batch's `except` that are carried over pages without anything to send. Past it the
/// stretch is forgotten, and the broker's set of seqs is less compact until the low-water passes.
pub const CARRIED_RANGES_MAX: usize = 16_384;

/// Longest call of a store. A call that takes longer ends the session.
pub const STORE_CALL_MAX: Duration = Duration::from_secs(60);

/// Longest wait of the loop when nothing happens: wall-clock jumps, lag and deadlines are looked
/// at this often.
pub const TICK: Duration = Duration::from_secs(1);

/// Part of the lease's TTL by which its deadline is earlier than any take-over: room for the
/// clocks' drift and for a publish call that is just being made.
pub const LEASE_MARGIN_DIVISOR: u32 = 5;

/// Part of the TTL for which a lease may lie free before anybody takes it, whatever the shares
/// say. Beats are a third of the TTL apart, so that everybody has seen it by then.
pub const UNWANTED_DIVISOR: u32 = 4;

/// Wait before a destination that needs a person is tried again: `outbox adopt`, or whatever the
/// cure was, shows within this time.
pub const STOPPED_RETRY: Duration = Duration::from_secs(15);

/// Wait before a lease that was just lost or fenced is competed for again.
pub const LOST_RETRY: Duration = Duration::from_secs(2);

/// Part of the shutdown grace that is kept for settling and for handing the lease over.
pub const SETTLE_RESERVE_DIVISOR: u32 = 4;

/// Alerts on their way to the grouping; past it they are counted and dropped.
pub const ALERT_QUEUE: usize = 1_024;

/// Groups of alerts remembered. Past it the oldest silent one goes.
pub const ALERT_GROUPS_MAX: usize = 1_024;

/// Notices on their way to one sink; past it they are counted and dropped.
pub const SINK_QUEUE: usize = 64;

/// Longest delivery to an alert sink.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(JOBS_OUT_MAX >= 1 && PAGES_READ_AHEAD >= 1);
const _: () = assert!(LEASE_MARGIN_DIVISOR > 1 && SETTLE_RESERVE_DIVISOR > 1);
const _: () = assert!(EXCEPTION_ROWS_MAX > outbox_core::limits::PARKED_ROWS_PER_KEY_MAX);
