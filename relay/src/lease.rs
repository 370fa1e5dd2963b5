//! Until when this relay may publish.
//!
//! A lease fences the store, not the broker: a relay that was stopped past its lease and continued
//! would go on publishing. So each publish is preceded by a look at a deadline on a clock that
//! counts while the process is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outbox_core::Clock;

use crate::limits;

/// A point of [`Clock::boot`] that every successful beat moves ahead. Cheap to clone; clones share
/// the point.
#[derive(Clone)]
pub(crate) struct Deadline {
    clock: Arc<dyn Clock>,
    until_micros: Arc<AtomicU64>,
}

impl Deadline {
    /// A deadline for a beat that was sent at `beat_sent`.
    pub(crate) fn new(clock: Arc<dyn Clock>, beat_sent: Duration, ttl: Duration) -> Self {
        let deadline = Self {
            clock,
            until_micros: Arc::default(),
        };
        deadline.extend(beat_sent, ttl);
        deadline
    }

    /// A beat that was sent at `beat_sent` came through. Others saw it later than that, and count
    /// a whole TTL from there, so the margin is on the safe side.
    pub(crate) fn extend(&self, beat_sent: Duration, ttl: Duration) {
        let until = beat_sent + ttl - ttl / limits::LEASE_MARGIN_DIVISOR;
        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.until_micros.fetch_max(micros, Ordering::AcqRel);
    }

    /// Time left; zero when it is over.
    pub(crate) fn left(&self) -> Duration {
        let until = Duration::from_micros(self.until_micros.load(Ordering::Acquire));
        until.saturating_sub(self.clock.boot())
    }

    /// Whether publishing is no longer allowed.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Resolves when the deadline has passed, however often it was extended meanwhile.
    ///
    /// Cancel-safe: it holds nothing but a timer.
    pub(crate) async fn over(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
