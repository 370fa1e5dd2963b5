//! Time comes through a port, so that tests own it.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// Two clocks: one to compare with timestamps, one to measure with.
pub trait Clock: Send + Sync + 'static {
    /// Wall time: for due times and expiry only; it may jump.
    fn now(&self) -> DateTime<Utc>;
    /// Time since some fixed point that never goes back **and counts while the machine sleeps**
    /// (`CLOCK_BOOTTIME` on Linux): for lease deadlines.
    fn boot(&self) -> Duration;
}

/// The machine's clocks, where nothing better is given: `boot` is [`Instant`], which stops while
/// the machine sleeps. The relay brings one on `CLOCK_BOOTTIME`.
#[derive(Clone, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }
}
