//! The ids that are given out to producers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::PRODUCERS_MAX;

/// Ids go up, and are never given out twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerIds {
    /// The next one.
    next: i64,
    /// Those given out lately, and when: their first batch may be on its way.
    recent: BTreeMap<i64, i64>,
}

impl ProducerIds {
    /// The ids of a new log. They begin at a place of its own, so that a client that still has an
    /// id of a log that stood here before is not taken for somebody else.
    pub fn fresh(random: u64) -> Self {
        Self {
            // Below 2⁵³, which every client can represent.
            next: ((random & 0x1f_ffff) << 32) as i64,
            recent: BTreeMap::new(),
        }
    }

    /// The next id.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Notes that `id` is given out.
    pub fn give(&mut self, id: i64, wall_ms: i64) {
        self.next = self.next.max(id + 1);
        self.recent.insert(id, wall_ms);
        while self.recent.len() > PRODUCERS_MAX {
            self.recent.pop_first();
        }
    }

    /// Whether it was given out lately.
    pub fn is_recent(&self, id: i64) -> bool {
        self.recent.contains_key(&id)
    }

    /// Forgets those given out before `bound_ms`.
    pub fn forget(&mut self, bound_ms: i64) {
        while let Some(first) = self.recent.first_entry() {
            if *first.get() > bound_ms {
                break;
            }
            first.remove();
        }
    }
}
