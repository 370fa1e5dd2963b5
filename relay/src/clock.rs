//! The machine's clocks.

use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::Clock;

/// Wall time, and `CLOCK_BOOTTIME`, which goes on counting while the machine sleeps or the
/// process is stopped: a lease must not look fresh after a suspend.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        // Elsewhere the monotonic clock is the closest there is; on macOS it counts sleep too.
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back_and_is_not_zero() {
        let first = BootClock.boot();
        let second = BootClock.boot();
        assert!(first > Duration::ZERO);
        assert!(second >= first);
    }
}
