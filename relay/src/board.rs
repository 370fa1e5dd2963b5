//! What this relay has seen of the others, on its own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outbox_core::{Board, LeaseRow};

use crate::limits;

/// Judges who is alive. A relay is dead when its beat has not changed for the TTL on *this*
/// observer's clock; timestamps of other machines are never compared.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    beats: BTreeMap<String, Seen<i64>>,
    /// Free leases by destination and epoch: since when they lie there.
    free: BTreeMap<String, Seen<i64>>,
    unwanted: BTreeSet<String>,
    live: BTreeSet<String>,
}

/// A value, and when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen<T> {
    value: T,
    since: Duration,
}

impl Observer {
    /// Takes a board in that was read at `now`.
    pub(crate) fn see(&mut self, board: &Board, me: &str, now: Duration, ttl: Duration) {
        self.see_beats(board, now);
        let live: BTreeSet<String> = self
            .beats
            .iter()
            .filter(|(instance, seen)| *instance == me || now.saturating_sub(seen.since) < ttl)
            .map(|(instance, _)| instance.clone())
            .chain([me.to_owned()])
            .collect();
        if live != self.live {
            // Somebody new may want what nobody wanted.
            self.unwanted.clear();
            self.free.clear();
            self.live = live;
        }
        self.see_free(&board.leases, now, ttl);
    }

    /// Relays that beat.
    pub(crate) fn live(&self) -> &BTreeSet<String> {
        &self.live
    }

    /// Destinations that lay free from one beat to the next although somebody should have taken
    /// them: because it just left, or has no broker for them. Shares do not count there.
    pub(crate) fn unwanted(&self) -> &BTreeSet<String> {
        &self.unwanted
    }

    fn see_beats(&mut self, board: &Board, now: Duration) {
        let mut current: BTreeMap<String, i64> = board
            .leases
            .iter()
            .filter_map(|lease| lease.owner.clone())
            // An owner whose beat was tidied away counts from when that was first seen.
            .map(|owner| (owner, i64::MIN))
            .collect();
        current.extend(board.instances.iter().map(|b| (b.instance.clone(), b.beat)));
        self.beats
            .retain(|instance, _| current.contains_key(instance));
        for (instance, value) in current {
            renew(&mut self.beats, instance, value, now);
        }
    }

    fn see_free(&mut self, leases: &[LeaseRow], now: Duration, ttl: Duration) {
        let is_free = |l: &LeaseRow| !l.owner.as_ref().is_some_and(|o| self.live.contains(o));
        let free: BTreeMap<_, _> = leases
            .iter()
            .filter(|l| !l.paused && is_free(l))
            .map(|l| (l.destination.clone(), l.epoch))
            .collect();
        self.free
            .retain(|destination, _| free.contains_key(destination));
        for (destination, epoch) in free {
            let since = renew(&mut self.free, destination.clone(), epoch, now);
            // Everybody has beaten in between, and could have taken it.
            if now.saturating_sub(since) >= ttl / limits::UNWANTED_DIVISOR {
                self.unwanted.insert(destination);
            }
        }
    }
}

/// Since when `name` has had `value`.
fn renew(
    seen: &mut BTreeMap<String, Seen<i64>>,
    name: String,
    value: i64,
    now: Duration,
) -> Duration {
    let entry = seen.entry(name).or_insert(Seen { value, since: now });
    if entry.value != value {
        *entry = Seen { value, since: now };
    }
    entry.since
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::Beat;

    const TTL: Duration = Duration::from_secs(5);

    fn board(beats: &[(&str, i64)], leases: &[(&str, Option<&str>)]) -> Board {
        Board {
            instances: beats
                .iter()
                .map(|&(instance, beat)| Beat {
                    instance: instance.to_owned(),
                    beat,
                })
                .collect(),
            leases: leases
                .iter()
                .map(|&(destination, owner)| LeaseRow {
                    destination: destination.to_owned(),
                    owner: owner.map(str::to_owned),
                    epoch: 1,
                    paused: false,
                    control_version: 0,
                })
                .collect(),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_relay_is_dead_when_its_beat_stands_still_for_the_ttl() {
        let mut observer = Observer::default();
        observer.see(&board(&[("a", 1), ("b", 1)], &[]), "a", at(100), TTL);
        assert!(
            observer.live().contains("b"),
            "a newcomer gives everybody a TTL"
        );
        observer.see(&board(&[("a", 2), ("b", 1)], &[]), "a", at(104), TTL);
        assert!(observer.live().contains("b"));
        observer.see(&board(&[("a", 3), ("b", 1)], &[]), "a", at(105), TTL);
        assert!(!observer.live().contains("b"));
        observer.see(&board(&[("a", 4), ("b", 2)], &[]), "a", at(106), TTL);
        assert!(observer.live().contains("b"), "it came back");
    }

    #[test]
    fn an_owner_without_a_beat_is_given_a_ttl_too() {
        let mut observer = Observer::default();
        let seen = board(&[("a", 1)], &[("d", Some("gone"))]);
        observer.see(&seen, "a", at(1), TTL);
        assert!(observer.live().contains("gone"));
        observer.see(&seen, "a", at(7), TTL);
        assert!(!observer.live().contains("gone"));
    }

    #[test]
    fn a_lease_that_lies_free_between_beats_is_unwanted_until_somebody_new_comes() {
        let mut observer = Observer::default();
        observer.see(&board(&[("a", 1)], &[("d", None)]), "a", at(1), TTL);
        assert!(observer.unwanted().is_empty());
        observer.see(&board(&[("a", 2)], &[("d", None)]), "a", at(3), TTL);
        assert!(observer.unwanted().contains("d"));
        observer.see(
            &board(&[("a", 3), ("b", 1)], &[("d", None)]),
            "a",
            at(4),
            TTL,
        );
        assert!(observer.unwanted().is_empty());
    }
}
