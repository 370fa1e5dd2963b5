//! Below which seq nothing will ever be published again.

use std::collections::BTreeSet;

use outbox_core::{DeliveryState, Opened, Seq};

/// Follows the lowest seq that may still be published with redelivery 0, always from below: a
/// broker forgets what lies under it, and would take a message that came all the same for a
/// duplicate.
#[derive(Debug)]
pub(crate) struct LowWater {
    opened_at: Seq,
    /// Rows that were there when the session opened; their seqs are not known.
    inherited: u64,
    /// Rows written since that may still be sent.
    waiting: BTreeSet<Seq>,
    gap_floor: Seq,
    said: Seq,
}

impl LowWater {
    /// Starts from what the store computed.
    pub(crate) fn load(opened: &Opened) -> Self {
        let parked: u64 = opened.keys.iter().map(|k| u64::from(k.parked)).sum();
        Self {
            opened_at: opened.low_water,
            inherited: opened.waiting + parked,
            waiting: BTreeSet::new(),
            gap_floor: opened.low_water,
            said: opened.low_water,
        }
    }

    /// A page was read: no open gap lies below `floor`.
    pub(crate) fn gaps(&mut self, floor: Seq) {
        self.gap_floor = floor;
    }

    /// Row `seq` was written in `state`.
    pub(crate) fn wrote(&mut self, seq: Seq, state: DeliveryState) {
        match state {
            DeliveryState::Retrying | DeliveryState::Scheduled | DeliveryState::Parked => {
                self.waiting.insert(seq);
            }
            // A resend of these raises the redelivery number, which passes any low-water.
            DeliveryState::Dead | DeliveryState::Expired => {
                self.waiting.remove(&seq);
            }
            DeliveryState::ParkedFrom => {}
        }
    }

    /// A row that was waiting left for good. Called before [`LowWater::wrote`] for the same row.
    pub(crate) fn left(&mut self, seq: Seq) {
        if !self.waiting.remove(&seq) {
            self.inherited = self.inherited.saturating_sub(1);
        }
    }

    /// A row that was waiting goes on waiting, now known by its seq.
    pub(crate) fn stays(&mut self, seq: Seq) {
        if self.waiting.insert(seq) {
            self.inherited = self.inherited.saturating_sub(1);
        }
    }

    /// The low-water, given the settled cursor and the lowest marker. Never goes back.
    pub(crate) fn now(&mut self, cursor: Seq, marker: Option<Seq>) -> Seq {
        let inherited = (self.inherited > 0).then_some(self.opened_at);
        let rows = self.waiting.first().copied();
        let floors = [inherited, rows, marker, Some(self.gap_floor)];
        let lowest = floors.into_iter().flatten().min().unwrap_or(cursor);
        self.said = self.said.max(lowest.min(cursor + 1));
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn water(inherited: u64) -> LowWater {
        LowWater {
            opened_at: 10,
            inherited,
            waiting: BTreeSet::new(),
            gap_floor: Seq::MAX,
            said: 10,
        }
    }

    #[test]
    fn it_follows_the_cursor_when_nothing_waits() {
        assert_eq!(water(0).now(99, None), 100);
    }

    #[test]
    fn rows_gaps_and_markers_hold_it() {
        let mut w = water(0);
        w.wrote(50, DeliveryState::Retrying);
        assert_eq!(w.now(99, None), 50);
        w.left(50);
        w.gaps(60);
        assert_eq!(w.now(99, None), 60);
        w.gaps(Seq::MAX);
        assert_eq!(w.now(99, Some(70)), 70);
        assert_eq!(w.now(99, None), 100);
        w.wrote(20, DeliveryState::Retrying);
        assert_eq!(w.now(99, None), 100, "a resend does not take it back");
    }

    #[test]
    fn unknown_rows_hold_it_where_it_was_until_the_last_is_gone() {
        let mut w = water(2);
        assert_eq!(w.now(99, None), 10);
        w.stays(30);
        assert_eq!(w.now(99, None), 10);
        w.left(40);
        assert_eq!(w.now(99, None), 30);
        w.left(30);
        assert_eq!(w.now(99, None), 100);
    }
}
