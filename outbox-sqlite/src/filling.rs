//! Bounded lists: pages, due and parked messages.

use outbox_core::PageLimit;

/// A page or another bounded list that is filling up.
pub(crate) struct Filling {
    limit: PageLimit,
    /// Rows so far, those without bytes (other destinations' messages) included.
    rows: usize,
    bytes: usize,
}

impl Filling {
    /// An empty one.
    pub(crate) fn new(limit: PageLimit) -> Self {
        Self {
            limit,
            rows: 0,
            bytes: 0,
        }
    }

    /// Whether one more of `bytes` still fits; the first that has any always does.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.rows < self.limit.rows.max(1)
            && (self.bytes == 0 || self.bytes + bytes <= self.limit.bytes);
        self.rows += 1;
        self.bytes += bytes;
        fits
    }

    /// Rows to ask for: one more than fit tells whether there are more.
    pub(crate) fn ask(&self) -> i64 {
        i64::try_from(self.limit.rows.max(1))
            .unwrap_or(i64::MAX)
            .saturating_add(1)
    }
}
