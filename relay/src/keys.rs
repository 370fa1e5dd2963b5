//! Which keys are blocked: a pure state machine, without store, broker or time.
//!
//! A key is in here while anything of it waits:
//!
//! - *blockers*: rows that hold it up (`retrying`, or `dead` with `blocks_key`);
//! - *parked* rows behind them, which go in order once there is no blocker left (draining);
//! - a *marker* when there are too many of those: everything from a seq on is parked without a
//!   row each, and re-read from the log later.
//!
//! A key that is not in here is free. The usual case is an empty map, and callers check that
//! before they hash anything.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use outbox_core::limits::PARKED_ROWS_PER_KEY_MAX;
use outbox_core::{BlockedKey, KeyRef, Seq};

/// The keys of one destination that are not free.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    rows: HashMap<KeyRef, Rows>,
    markers: HashMap<KeyRef, Marker>,
    /// Keys without a blocker: their parked messages may go.
    ready: BTreeSet<KeyRef>,
    /// Where the last look for ready keys ended, so that all get their turn.
    visited: Option<KeyRef>,
}

/// Delivery rows of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    blockers: u32,
    parked: u32,
}

/// From here on messages are parked without a row each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    from: Seq,
    /// The highest seq that was parked so. Past it there is nothing to re-read.
    absorbed: Seq,
}

/// How a message of a blocked key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Park {
    /// As a row of its own.
    Row,
    /// By a new marker that starts at it.
    NewMarker,
    /// By the marker that is there.
    Absorbed,
}

impl Keys {
    /// The state a session opened with. `cursor` is the highest seq any marker can have absorbed.
    /// Without `ordered` (the destination was changed to `order = none`) nothing blocks, and what
    /// is parked drains.
    pub(crate) fn load(keys: &[BlockedKey], cursor: Seq, ordered: bool) -> Self {
        let mut loaded = Self::default();
        for blocked in keys {
            let blockers = if ordered { blocked.blockers } else { 0 };
            let rows = Rows {
                blockers,
                parked: blocked.parked,
            };
            loaded.rows.insert(blocked.key.clone(), rows);
            if let Some(from) = blocked.marker {
                let absorbed = cursor.max(from);
                loaded
                    .markers
                    .insert(blocked.key.clone(), Marker { from, absorbed });
            }
            loaded.refresh(&blocked.key);
        }
        loaded
    }

    /// Whether every key is free.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many keys are not free.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether messages of `key` must wait.
    pub(crate) fn contains(&self, key: &KeyRef) -> bool {
        self.rows.contains_key(key)
    }

    /// A message of `key` became a blocker.
    pub(crate) fn block(&mut self, key: &KeyRef) {
        self.rows.entry(key.clone()).or_default().blockers += 1;
        self.ready.remove(key);
    }

    /// A blocker of `key` went away.
    pub(crate) fn unblock(&mut self, key: &KeyRef) {
        if let Some(rows) = self.rows.get_mut(key) {
            rows.blockers = rows.blockers.saturating_sub(1);
        }
        self.refresh(key);
    }

    /// Parks message `seq` of `key` at the end. Seqs come in growing order, but for `late` ones:
    /// those never start a marker, which would cover rows that are already there.
    pub(crate) fn park(&mut self, key: &KeyRef, seq: Seq, late: bool) -> Park {
        let rows = self.rows.entry(key.clone()).or_default();
        let park = match self.markers.get_mut(key) {
            Some(marker) if seq >= marker.from => {
                marker.absorbed = marker.absorbed.max(seq);
                Park::Absorbed
            }
            None if !late && rows.parked as usize >= PARKED_ROWS_PER_KEY_MAX => {
                let marker = Marker {
                    from: seq,
                    absorbed: seq,
                };
                self.markers.insert(key.clone(), marker);
                Park::NewMarker
            }
            _ => {
                rows.parked += 1;
                Park::Row
            }
        };
        self.refresh(key);
        park
    }

    /// A parked row of `key` went away: sent, dead, or discarded.
    pub(crate) fn unpark(&mut self, key: &KeyRef) {
        if let Some(rows) = self.rows.get_mut(key) {
            rows.parked = rows.parked.saturating_sub(1);
        }
        self.refresh(key);
    }

    /// The store has no parked row of `key`, whatever was counted.
    pub(crate) fn no_rows_parked(&mut self, key: &KeyRef) {
        if let Some(rows) = self.rows.get_mut(key) {
            rows.parked = 0;
        }
        self.refresh(key);
    }

    /// Everything of `key` behind its marker is dealt with up to `through`. Answers the marker's
    /// new start, or `None` when nothing is left behind it.
    pub(crate) fn passed(&mut self, key: &KeyRef, through: Seq) -> Option<Seq> {
        let marker = self.markers.get_mut(key)?;
        marker.from = marker.from.max(through.saturating_add(1));
        let from = (marker.absorbed >= marker.from).then_some(marker.from);
        if from.is_none() {
            self.markers.remove(key);
        }
        self.refresh(key);
        from
    }

    /// The start of `key`'s marker.
    pub(crate) fn marker(&self, key: &KeyRef) -> Option<Seq> {
        self.markers.get(key).map(|m| m.from)
    }

    /// Whether the message is parked behind a marker, without a row.
    pub(crate) fn covers(&self, key: &KeyRef, seq: Seq) -> bool {
        self.marker(key).is_some_and(|from| seq >= from)
    }

    /// The lowest start of any marker.
    pub(crate) fn lowest_marker(&self) -> Option<Seq> {
        self.markers.values().map(|m| m.from).min()
    }

    /// Whether some key has parked messages that may go.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Up to `limit` keys whose parked messages may go, each getting its turn.
    pub(crate) fn take_ready(&mut self, limit: usize) -> Vec<KeyRef> {
        let start = match &self.visited {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let behind = self.ready.range::<KeyRef, _>((start, Bound::Unbounded));
        let around = self.ready.iter();
        let mut keys: Vec<KeyRef> = behind.chain(around).take(limit).cloned().collect();
        keys.truncate(self.ready.len());
        self.visited = keys.last().cloned();
        keys
    }

    /// Keeps `ready` and the map in step: a key with nothing left is free.
    fn refresh(&mut self, key: &KeyRef) {
        let Some(rows) = self.rows.get(key) else {
            return;
        };
        let marked = self.markers.contains_key(key);
        if rows.blockers > 0 {
            self.ready.remove(key);
        } else if rows.parked > 0 || marked {
            self.ready.insert(key.clone());
        } else {
            self.rows.remove(key);
            self.ready.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> KeyRef {
        KeyRef {
            topic: "t".into(),
            key: name.into(),
        }
    }

    #[test]
    fn a_key_is_blocked_until_its_last_row_goes() {
        let (mut keys, k) = (Keys::default(), key("k"));
        keys.block(&k);
        assert_eq!(keys.park(&k, 2, false), Park::Row);
        assert!(!keys.has_ready());
        keys.unblock(&k);
        assert_eq!(keys.take_ready(9), vec![k.clone()]);
        assert!(keys.contains(&k), "still draining: arrivals join the end");
        keys.unpark(&k);
        assert!(keys.is_empty() && !keys.has_ready());
    }

    #[test]
    fn a_key_with_too_many_rows_becomes_one_marker() {
        let (mut keys, k) = (Keys::default(), key("k"));
        keys.block(&k);
        for seq in 1..=PARKED_ROWS_PER_KEY_MAX as Seq {
            assert_eq!(keys.park(&k, 10 + seq, false), Park::Row);
        }
        assert_eq!(
            keys.park(&k, 5, true),
            Park::Row,
            "a late one never starts a marker"
        );
        assert_eq!(keys.park(&k, 5_000, false), Park::NewMarker);
        assert_eq!(keys.park(&k, 5_001, false), Park::Absorbed);
        assert_eq!(
            keys.park(&k, 4_000, true),
            Park::Row,
            "late, before the marker"
        );
        assert_eq!(keys.park(&k, 5_000, true), Park::Absorbed);
        assert_eq!(keys.lowest_marker(), Some(5_000));
    }

    #[test]
    fn a_marker_goes_only_when_everything_it_absorbed_was_passed() {
        let blocked = BlockedKey {
            key: key("k"),
            blockers: 0,
            parked: 0,
            marker: Some(100),
        };
        let (mut keys, k) = (Keys::load(&[blocked], 150, true), key("k"));
        assert!(keys.has_ready());
        assert_eq!(keys.passed(&k, 120), Some(121));
        assert_eq!(keys.park(&k, 200, false), Park::Absorbed);
        assert_eq!(keys.passed(&k, 199), Some(200));
        assert_eq!(keys.passed(&k, 200), None);
        assert!(keys.is_empty());
    }

    #[test]
    fn ready_keys_take_turns() {
        let mut keys = Keys::default();
        for name in ["a", "b", "c"] {
            keys.park(&key(name), 1, false);
        }
        assert_eq!(keys.take_ready(2), vec![key("a"), key("b")]);
        assert_eq!(keys.take_ready(2), vec![key("c"), key("a")]);
        assert_eq!(keys.take_ready(9).len(), 3, "none twice");
    }

    #[test]
    fn without_order_nothing_blocks_and_what_is_parked_drains() {
        let blocked = BlockedKey {
            key: key("k"),
            blockers: 3,
            parked: 1,
            marker: None,
        };
        assert!(Keys::load(&[blocked], 9, false).has_ready());
    }

    /// The obvious model: what waits of one key, message by message.
    #[derive(Default)]
    struct Naive {
        blockers: u32,
        rows: BTreeSet<Seq>,
        marker: Option<Seq>,
        absorbed: BTreeSet<Seq>,
    }

    proptest! {
        #[test]
        fn the_machine_agrees_with_a_model_that_remembers_every_message(
            steps in prop::collection::vec(0u8..7, 1..6_000),
        ) {
            let (mut keys, k) = (Keys::default(), key("k"));
            let mut naive = Naive::default();
            for (at, step) in steps.into_iter().enumerate() {
                let seq = 10 + at as Seq;
                match step {
                    0 => { keys.block(&k); naive.blockers += 1; }
                    1 if naive.blockers > 0 => { keys.unblock(&k); naive.blockers -= 1; }
                    2 if naive.blockers == 0 && !naive.rows.is_empty() => {
                        naive.rows.pop_first();
                        keys.unpark(&k);
                    }
                    3 if naive.blockers == 0 && naive.rows.is_empty() => {
                        if let Some(&first) = naive.absorbed.first() {
                            naive.absorbed.pop_first();
                            let left = keys.passed(&k, first);
                            naive.marker = (!naive.absorbed.is_empty()).then_some(first + 1);
                            prop_assert_eq!(left, naive.marker);
                        }
                    }
                    _ if keys.contains(&k) => match keys.park(&k, seq, false) {
                        Park::Row => {
                            prop_assert!(naive.marker.is_none());
                            naive.rows.insert(seq);
                        }
                        Park::NewMarker => {
                            prop_assert_eq!(naive.rows.len(), PARKED_ROWS_PER_KEY_MAX);
                            naive.marker = Some(seq);
                            naive.absorbed.insert(seq);
                        }
                        Park::Absorbed => {
                            prop_assert!(naive.marker.is_some_and(|m| seq >= m));
                            naive.absorbed.insert(seq);
                        }
                    },
                    _ => {}
                }
                let waits = !naive.rows.is_empty() || !naive.absorbed.is_empty();
                prop_assert_eq!(keys.contains(&k), naive.blockers > 0 || waits);
                prop_assert_eq!(keys.has_ready(), naive.blockers == 0 && waits);
                prop_assert_eq!(keys.marker(&k), naive.marker);
                prop_assert!(naive.rows.len() <= PARKED_ROWS_PER_KEY_MAX);
            }
        }
    }
}
