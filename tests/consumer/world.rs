//! What the consumer's tests share: a source in memory that outlives runtimes, and its records.

use std::collections::BTreeMap;
use std::time::Duration;

use outbox_consumer::testing::{MemorySource, record};
use outbox_core::RetryPolicy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

/// How long anything may take before a test gives up waiting.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `messages` messages of `keys` keys over three partitions, one in ten of them there twice. The
/// payload counts up within its key.
pub fn filled(messages: usize, keys: i32, seed: u64) -> MemorySource {
    let source = MemorySource::new();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut next = BTreeMap::new();
    for _ in 0..messages {
        let key = rng.random_range(0..keys);
        let n = next.entry(key).and_modify(|n| *n += 1).or_insert(0);
        let mut record = record("orders", &format!("k{key}"), n.to_string());
        record.partition.partition = key % 3;
        if rng.random_bool(0.1) {
            source.append(record.clone());
        }
        source.append(record);
    }
    source
}

/// Waits until `consumer` has committed everything that is at the source.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn settled(source: &MemorySource, consumer: &str) {
    let settled = timeout(PATIENCE, source.settled(consumer)).await;
    settled.expect("everything is settled in time");
}

/// Quick retries.
pub fn eager(attempts: Option<u32>) -> RetryPolicy {
    RetryPolicy {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(5),
        max_attempts: attempts,
        ..RetryPolicy::default()
    }
}

/// Checks what was applied, as (key, payload) in the order of application: each message of each
/// key once, in order, `messages` in all.
pub fn check(applied: &[(String, String)], messages: usize, hint: &str) {
    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, payload) in applied {
        let next = next.entry(key).or_insert(0);
        assert_eq!(payload, &next.to_string(), "key {key}; {hint}");
        *next += 1;
    }
    assert_eq!(applied.len(), messages, "{hint}");
}
