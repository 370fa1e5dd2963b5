//! Random numbers that replay: a failing test prints its seed, `OUTBOX_TEST_SEED` repeats it.

use std::convert::Infallible;
use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng, TryRng};

/// A random number generator that knows, and prints, its seed.
#[derive(Debug)]
pub struct Seed {
    seed: u64,
    rng: StdRng,
}

impl Seed {
    /// From `OUTBOX_TEST_SEED`, or a fresh one.
    pub fn from_environment() -> Self {
        let given = std::env::var("OUTBOX_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        Self::new(given.unwrap_or_else(rand::random))
    }

    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Another one that follows from this one, for a task of its own.
    pub fn fork(&mut self) -> Self {
        Self::new(self.rng.random())
    }
}

impl TryRng for Seed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.rng.try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.rng.try_next_u64()
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.try_fill_bytes(bytes)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay with OUTBOX_TEST_SEED={}", self.seed)
    }
}
