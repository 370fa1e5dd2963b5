//! Who leads what: a pure function of the board and of who is alive.
//!
//! Every relay computes it for itself from the same board, without talking to the others. Claims
//! are compare-and-swap, so that a race costs a round and never a double lead.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use outbox_core::LeaseRow;

/// What one relay knows when it decides.
pub(crate) struct View<'a> {
    /// This relay.
    pub me: &'a str,
    /// Relays that beat, this one included.
    pub live: &'a BTreeSet<String>,
    /// Every lease of the store.
    pub leases: &'a [LeaseRow],
    /// Destinations this relay has a broker for and is willing to lead now.
    pub serves: &'a dyn Fn(&str) -> bool,
    /// Destinations this relay leads (or is about to), but for those it is leaving.
    pub led: &'a BTreeSet<String>,
    /// Destinations this relay is about to hand over.
    pub leaving: &'a BTreeSet<String>,
    /// Destinations that lay free although somebody had room: nobody else wants them, so that
    /// shares do not count there.
    pub unwanted: &'a BTreeSet<String>,
}

/// What to do about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Leases to claim, as they were seen.
    pub take: Vec<LeaseRow>,
    /// Destinations to hand over.
    pub release: Vec<String>,
}

/// Shares the destinations evenly: with `d` destinations and `n` live relays everybody leads
/// `d / n`, and `d % n` of them one more: those that lead the most already, so that a lease moves
/// only where that makes the shares more even. A relay that comes, or comes back, takes nothing
/// from one that leads no more than its share.
pub(crate) fn balance(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut shared = Vec::new();
    for lease in view.leases {
        let led = view.led.contains(&lease.destination);
        if view.leaving.contains(&lease.destination) {
            shared.push(lease);
        } else if lease.paused || !(led || (view.serves)(&lease.destination)) {
            if led {
                plan.release.push(lease.destination.clone());
            }
        } else if view.unwanted.contains(&lease.destination) {
            if !led && is_free(lease, view) {
                plan.take.push(lease.clone());
            }
        } else {
            shared.push(lease);
        }
    }
    share(view, &shared, &mut plan);
    plan
}

fn share(view: &View<'_>, shared: &[&LeaseRow], plan: &mut Plan) {
    let mine: Vec<_> = shared
        .iter()
        .filter(|l| view.led.contains(&l.destination))
        .collect();
    let shares = Shares::of(view, shared);
    let quota = shares.quota(view.me);
    if mine.len() < quota {
        let free = shared
            .iter()
            .filter(|l| !view.led.contains(&l.destination) && is_free(l, view));
        let wanted = quota - mine.len();
        plan.take.extend(free.take(wanted).map(|l| (*l).clone()));
    } else if mine.len() > quota {
        // Only as many as somebody has room for, or they would lie idle.
        let excess = (mine.len() - quota).min(shares.room_elsewhere(view));
        let handed = mine.iter().rev().take(excess);
        plan.release.extend(handed.map(|l| l.destination.clone()));
    }
}

/// Nobody holds it, or nobody alive does, or I do without leading it (I restarted my session).
fn is_free(lease: &LeaseRow, view: &View<'_>) -> bool {
    if view.leaving.contains(&lease.destination) {
        return false;
    }
    match lease.owner.as_deref() {
        None => true,
        Some(owner) => owner == view.me || !view.live.contains(owner),
    }
}

/// How many leases each live relay holds, and how many it is due.
struct Shares<'a> {
    /// By what they hold, most first, and then by name.
    relays: Vec<(usize, &'a str)>,
    /// Leases that lie free or soon will.
    free: usize,
    destinations: usize,
}

impl<'a> Shares<'a> {
    fn of(view: &'a View<'_>, shared: &[&LeaseRow]) -> Self {
        let mut held: BTreeMap<&str, usize> = view.live.iter().map(|i| (&**i, 0)).collect();
        let mut free = 0;
        for lease in shared {
            let holder = match lease.owner.as_deref() {
                _ if view.leaving.contains(&lease.destination) => None,
                // Before the board shows what was claimed a moment ago.
                _ if view.led.contains(&lease.destination) => Some(view.me),
                owner => owner,
            };
            match holder.and_then(|holder| held.get_mut(holder)) {
                Some(count) => *count += 1,
                None => free += 1,
            }
        }
        let mut relays: Vec<_> = held
            .into_iter()
            .map(|(name, count)| (count, name))
            .collect();
        relays.sort_by_key(|&(count, name)| (Reverse(count), name));
        Self {
            relays,
            free,
            destinations: shared.len(),
        }
    }

    fn quota(&self, instance: &str) -> usize {
        let relays = self.relays.len().max(1);
        let rank = self.relays.iter().position(|(_, name)| *name == instance);
        let extra = rank.is_some_and(|rank| rank < self.destinations % relays);
        self.destinations / relays + usize::from(extra)
    }

    /// How many leases the other live relays are short of, less those that lie free or soon will.
    fn room_elsewhere(&self, view: &View<'_>) -> usize {
        let others = self.relays.iter().filter(|(_, name)| *name != view.me);
        let short = others.map(|(has, name)| self.quota(name).saturating_sub(*has));
        short.sum::<usize>().saturating_sub(self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(number: usize, owner: Option<&str>) -> LeaseRow {
        LeaseRow {
            destination: format!("d{number:02}"),
            owner: owner.map(str::to_owned),
            epoch: 1,
            paused: false,
            control_version: 0,
        }
    }

    fn plan_for(me: &str, live: &BTreeSet<String>, leases: &[LeaseRow]) -> Plan {
        let led = leases
            .iter()
            .filter(|l| l.owner.as_deref() == Some(me))
            .map(|l| l.destination.clone())
            .collect();
        balance(&View {
            me,
            live,
            leases,
            serves: &|_| true,
            led: &led,
            leaving: &BTreeSet::new(),
            unwanted: &BTreeSet::new(),
        })
    }

    /// Applies everybody's plan one after the other, each seeing the board as the round began.
    fn round(live: &BTreeSet<String>, leases: &mut [LeaseRow]) -> usize {
        let seen = leases.to_vec();
        let mut changes = 0;
        for me in live {
            let plan = plan_for(me, live, &seen);
            for taken in plan.take {
                let row = leases
                    .iter_mut()
                    .find(|l| l.destination == taken.destination)
                    .expect("known");
                if row.owner == taken.owner && row.epoch == taken.epoch {
                    row.owner = Some(me.clone());
                    row.epoch += 1;
                    changes += 1;
                }
            }
            for released in plan.release {
                let row = leases
                    .iter_mut()
                    .find(|l| l.destination == released)
                    .expect("known");
                row.owner = None;
                changes += 1;
            }
        }
        changes
    }

    fn held_by(me: &str, leases: &[LeaseRow]) -> usize {
        leases
            .iter()
            .filter(|l| l.owner.as_deref() == Some(me))
            .count()
    }

    proptest! {
        #[test]
        fn any_start_settles_into_even_shares_and_stays(
            owners in prop::collection::vec(prop::option::of(0usize..8), 0..40),
            relays in 1usize..6,
        ) {
            let live: BTreeSet<String> = (0..relays).map(|i| format!("r{i}")).collect();
            let mut leases: Vec<_> = owners.iter().enumerate()
                .map(|(n, owner)| lease(n, owner.map(|o| format!("r{o}")).as_deref()))
                .collect();
            for _ in 0..60 {
                if round(&live, &mut leases) == 0 { break; }
            }
            prop_assert_eq!(round(&live, &mut leases), 0, "still moving");
            let shares: Vec<_> = live.iter().map(|i| held_by(i, &leases)).collect();
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", shares);
            prop_assert_eq!(shares.iter().sum::<usize>(), leases.len());
        }

        #[test]
        fn nothing_is_taken_from_a_live_relay(
            owners in prop::collection::vec(prop::option::of(0usize..4), 0..20),
        ) {
            let live: BTreeSet<String> = ["r0".to_owned(), "r1".to_owned()].into();
            let leases: Vec<_> = owners.iter().enumerate()
                .map(|(n, owner)| lease(n, owner.map(|o| format!("r{o}")).as_deref()))
                .collect();
            for taken in plan_for("r0", &live, &leases).take {
                prop_assert!(taken.owner.as_deref() != Some("r1"));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_moves_where_shares_are_even(
            shares in prop::collection::vec(0usize..2, 1..6), least in 0usize..4,
        ) {
            let live: BTreeSet<String> = (0..shares.len()).map(|i| format!("r{i}")).collect();
            let owners = shares.iter().zip(&live)
                .flat_map(|(more, relay)| std::iter::repeat_n(relay, least + more));
            let mut leases: Vec<_> = owners.enumerate()
                .map(|(n, owner)| lease(n, Some(owner)))
                .collect();
            prop_assert_eq!(round(&live, &mut leases), 0);
        }
    }

    #[test]
    fn a_relay_that_comes_back_takes_nothing_from_the_one_that_took_over() {
        for heir in ["a", "z"] {
            let live: BTreeSet<String> = [heir.to_owned(), "m".to_owned()].into();
            let mut leases = [lease(0, Some(heir))];
            assert_eq!(round(&live, &mut leases), 0, "{heir}");
        }
    }

    #[test]
    fn a_paused_destination_is_handed_back_and_taken_by_nobody() {
        let live: BTreeSet<String> = ["r0".to_owned()].into();
        let mut held = lease(0, Some("r0"));
        held.paused = true;
        let mut free = lease(1, None);
        free.paused = true;
        let plan = plan_for("r0", &live, &[held, free]);
        assert_eq!(plan.release, ["d00"]);
        assert_eq!(plan.take, []);
    }

    #[test]
    fn what_nobody_else_wants_is_taken_beyond_the_share_and_kept() {
        let live: BTreeSet<String> = ["r0".to_owned(), "r1".to_owned()].into();
        let leases = [lease(0, Some("r0")), lease(1, None)];
        let led: BTreeSet<String> = ["d00".to_owned()].into();
        let unwanted: BTreeSet<String> = ["d00".to_owned(), "d01".to_owned()].into();
        let plan = balance(&View {
            me: "r0",
            live: &live,
            leases: &leases,
            serves: &|_| true,
            led: &led,
            leaving: &BTreeSet::new(),
            unwanted: &unwanted,
        });
        assert_eq!(plan.take.len(), 1);
        assert_eq!(plan.release, Vec::<String>::new());
    }

    #[test]
    fn what_is_being_handed_over_is_not_handed_over_twice() {
        let live: BTreeSet<String> = ["r0".to_owned(), "r1".to_owned()].into();
        let leases: Vec<_> = (0..7).map(|n| lease(n, Some("r0"))).collect();
        let leaving: BTreeSet<String> = (4..7).map(|n| format!("d{n:02}")).collect();
        let led: BTreeSet<String> = (0..4).map(|n| format!("d{n:02}")).collect();
        let plan = balance(&View {
            me: "r0",
            live: &live,
            leases: &leases,
            serves: &|_| true,
            led: &led,
            leaving: &leaving,
            unwanted: &BTreeSet::new(),
        });
        assert_eq!(plan, Plan::default());
    }
}
