//! The newest offset of each key, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::batch::{BatchHeader, DecodeError, Records, open};
use crate::limits::COMPACTION_KEYS_MAX;

/// For each key, as 128 bits of hash with secret seeds, the newest offset below `upto`.
pub(super) struct Keys {
    seeds: [RandomState; 2],
    newest: HashMap<u128, i64>,
    upto: i64,
}

impl Keys {
    /// No keys; everything below `from` was compacted before.
    pub fn new(from: i64) -> Self {
        Self {
            seeds: [RandomState::new(), RandomState::new()],
            newest: HashMap::new(),
            upto: from,
        }
    }

    /// The offset up to which the keys are known.
    pub fn upto(&self) -> i64 {
        self.upto
    }

    /// Says that there is nothing more below `offset`.
    pub fn cover(&mut self, offset: i64) {
        self.upto = self.upto.max(offset);
    }

    /// Notes the keys of a batch; `false` when there is no room for them.
    pub fn note(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<bool, DecodeError> {
        if header.is_control() {
            self.cover(header.next_offset());
            return Ok(true);
        }
        if self.newest.len() + header.records as usize > COMPACTION_KEYS_MAX
            && !self.newest.is_empty()
        {
            return Ok(false);
        }
        let batch = open(batch)?;
        for record in Records::new(&batch)? {
            let record = record?;
            if let Some(key) = record.key {
                let hash = self.hash(key);
                self.newest.insert(hash, record.offset);
            }
        }
        self.cover(header.next_offset());
        Ok(true)
    }

    /// Whether a newer record of that key is known.
    pub fn is_replaced(&self, key: &[u8], offset: i64) -> bool {
        let newest = self.newest.get(&self.hash(key));
        newest.is_some_and(|&newest| newest > offset)
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let [high, low] = [&self.seeds[0], &self.seeds[1]].map(|seed| seed.hash_one(key));
        u128::from(high) << 64 | u128::from(low)
    }
}
