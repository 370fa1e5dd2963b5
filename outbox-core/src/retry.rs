//! When to try a failed message again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Exponential backoff with jitter, ended by a number of attempts or by age.
///
/// The n-th delay is `initial × multiplier^(n-1)`, at most `max`, less a random part of up to
/// `jitter` of it (so that a burst of failures does not come back as a burst).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Delay after the first failure. Default 1 s.
    pub initial: Duration,
    /// Longest delay. Default 5 min.
    pub max: Duration,
    /// Growth for each attempt. Default 2. Values below 1 count as 1.
    pub multiplier: f64,
    /// Part of the delay that is random, 0 to 1. Default 0.5. At 0 all retries are in step.
    pub jitter: f64,
    /// Attempts in all, the first included, before a message is dead. Default 12; `None`: no end.
    pub max_attempts: Option<u32>,
    /// Age since `created_at` after which a failure is final. Default `None`: no end.
    pub max_age: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(300),
            multiplier: 2.0,
            jitter: 0.5,
            max_attempts: Some(12),
            max_age: None,
        }
    }
}

impl RetryPolicy {
    /// The delay before the next attempt, after `attempts` (≥ 1) failed ones; without jitter.
    pub fn delay(&self, attempts: u32) -> Duration {
        let exponent = attempts.saturating_sub(1).min(1_000) as i32;
        let seconds = self.initial.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        // `min` also turns an infinite product into the cap.
        Duration::from_secs_f64(seconds.min(self.max.as_secs_f64()))
    }

    /// The delay with jitter taken off.
    pub fn jittered(&self, attempts: u32, rng: &mut impl Rng) -> Duration {
        let jitter = self.jitter.clamp(0.0, 1.0);
        self.delay(attempts)
            .mul_f64(1.0 - jitter * rng.random::<f64>())
    }

    /// When to try again after `attempts` (≥ 1) failed ones, or `None` when it is exhausted.
    pub fn next_attempt(
        &self,
        attempts: u32,
        created_at: DateTime<Utc>,
        now: DateTime<Utc>,
        rng: &mut impl Rng,
    ) -> Option<DateTime<Utc>> {
        if self.max_attempts.is_some_and(|max| attempts >= max) {
            return None;
        }
        let next = now + chrono::Duration::from_std(self.jittered(attempts, rng)).ok()?;
        let age = (next - created_at).to_std().unwrap_or_default();
        if self.max_age.is_some_and(|max| age > max) {
            return None;
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    proptest! {
        #[test]
        fn delays_grow_up_to_the_cap_and_jitter_only_shortens(
            initial in 1u64..10_000, max in 1u64..1_000_000, multiplier in 0.0f64..10.0,
            jitter in -1.0f64..2.0, attempts in 1u32..5_000, seed: u64,
        ) {
            let policy = RetryPolicy {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(max),
                multiplier, jitter, max_attempts: None, max_age: None,
            };
            let delay = policy.delay(attempts);
            prop_assert!(delay <= policy.max);
            prop_assert!(delay <= policy.delay(attempts + 1));
            let jittered = policy.jittered(attempts, &mut StdRng::seed_from_u64(seed));
            prop_assert!(jittered <= delay);
            let floor = delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0));
            prop_assert!(jittered + Duration::from_nanos(2) >= floor);
        }

        #[test]
        fn the_last_attempt_has_no_next(max in 1u32..100, seed: u64) {
            let policy = RetryPolicy { max_attempts: Some(max), ..RetryPolicy::default() };
            let (now, mut rng) = (Utc::now(), StdRng::seed_from_u64(seed));
            prop_assert_eq!(policy.next_attempt(max, now, now, &mut rng), None);
            if max > 1 {
                prop_assert!(policy.next_attempt(max - 1, now, now, &mut rng).is_some());
            }
        }
    }

    #[test]
    fn a_message_older_than_max_age_is_exhausted() {
        let policy = RetryPolicy {
            max_age: Some(Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        let (now, mut rng) = (Utc::now(), StdRng::seed_from_u64(1));
        let old = now - chrono::Duration::seconds(61);
        assert_eq!(policy.next_attempt(1, old, now, &mut rng), None);
        assert!(policy.next_attempt(1, now, now, &mut rng).is_some());
    }
}
