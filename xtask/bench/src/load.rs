//! Messages to measure with.

use bytes::Bytes;
use outbox_core::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Keys in the benchmarks.
pub const KEYS: usize = 10_000;

/// Draws keys by Zipf's law with exponent 1: the k-th key comes 1/k as often as the first.
pub struct Zipf {
    cumulative: Vec<f64>,
    rng: StdRng,
}

impl Zipf {
    /// Over `keys` keys, from `seed`.
    pub fn new(keys: usize, seed: u64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=keys)
            .map(|k| {
                sum += 1.0 / k as f64;
                sum
            })
            .collect();
        Self {
            cumulative,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The next key's rank, from 0.
    pub fn draw(&mut self) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let at = self.rng.random::<f64>() * total;
        self.cumulative
            .partition_point(|c| *c < at)
            .min(self.cumulative.len() - 1)
    }

    /// Seconds until the next event of a Poisson process of `rate` a second.
    pub fn next_gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.rng.random::<f64>()).ln() / rate
    }
}

/// One message of `size` bytes of payload.
pub fn message(zipf: &mut Zipf, size: usize) -> Message {
    let key = zipf.draw();
    Message::bytes("bench.event", Bytes::from(vec![b'x'; size])).key(format!("key-{key:05}"))
}
