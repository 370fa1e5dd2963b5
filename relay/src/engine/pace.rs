//! How often an idle destination looks for more.

use std::time::Duration;

use tokio::time::Instant;

/// Backoff of the poll: quick while there is traffic, slow when there is none.
#[derive(Debug)]
pub(crate) struct Pace {
    busy: Duration,
    idle: Duration,
    delay: Duration,
    next: Instant,
}

impl Pace {
    /// Polls at once, then between `busy` and `idle` apart.
    pub(crate) fn new(busy: Duration, idle: Duration) -> Self {
        Self {
            busy,
            idle,
            delay: busy,
            next: Instant::now(),
        }
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// There was something when it was looked at `began`: look again soon. Counted from there, for
    /// reading a page takes about as long as the pause, and messages have come meanwhile.
    pub(crate) fn hit(&mut self, began: Instant) {
        self.delay = self.busy;
        self.next = began + self.delay;
    }

    /// There was nothing: wait longer each time.
    pub(crate) fn miss(&mut self) {
        self.next = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(self.idle);
    }

    /// Look at once.
    pub(crate) fn now(&mut self) {
        self.next = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_poll_slows_down_to_the_limit_and_a_hit_resets_it() {
        let (busy, idle) = (Duration::from_millis(1), Duration::from_millis(25));
        let mut pace = Pace::new(busy, idle);
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.miss();
            waits.push((pace.next() - Instant::now()).as_millis());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 25, 25, 25]);
        let began = Instant::now();
        tokio::time::advance(busy / 2).await;
        pace.hit(began);
        assert_eq!(pace.next() - Instant::now(), busy / 2);
    }
}
