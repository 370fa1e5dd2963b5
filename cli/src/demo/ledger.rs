//! Holds the three ledgers against each other: what was committed, what the log holds, what was
//! applied. All three were read from the stores.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

/// One order as a table or the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id of the message about it.
    pub message_id: String,
    /// Who ordered.
    pub customer: i64,
    /// The customer's how-manieth order it is: grows by one with each commit.
    pub number: i64,
    /// For how much.
    pub cents: i64,
}

/// What the stores hold at the end.
#[derive(Clone, Debug, Default)]
pub struct Ledgers {
    /// Committed orders.
    pub committed: Vec<Entry>,
    /// Transactions that were tried and left no order.
    pub rolled_back: u64,
    /// Records of the log, in its order.
    pub log: Vec<Entry>,
    /// Effects, in the order in which they were made.
    pub applied: Vec<Entry>,
}

/// The verdict, and the JSON document of `outbox demo --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Orders that were committed.
    pub committed: u64,
    /// Order transactions that were rolled back.
    pub rolled_back: u64,
    /// Messages that the log holds, each counted once.
    pub delivered: u64,
    /// Orders that were applied, each counted once.
    pub applied: u64,
    /// Further records of a message in the log: each was read, recognised and skipped.
    pub duplicates_absorbed: u64,
    /// Committed, and not in the log or not applied.
    pub lost: u64,
    /// In the log, or applied, behind a later order of the same customer.
    pub out_of_order: u64,
    /// Applied once more than once.
    pub applied_twice: u64,
    /// How long the demo took.
    pub seconds: f64,
    /// In the log, or applied, and never committed.
    #[serde(skip)]
    pub never_committed: u64,
}

impl Verdict {
    /// Whether every promise held.
    pub fn is_clean(&self) -> bool {
        self.lost + self.out_of_order + self.applied_twice + self.never_committed == 0
    }
}

/// Compares the ledgers.
pub fn verdict(ledgers: &Ledgers, seconds: f64) -> Verdict {
    let (delivered, log_repeats) = first_of_each(&ledgers.log);
    let (applied, applied_twice) = first_of_each(&ledgers.applied);
    let committed: HashSet<&str> = ids(&ledgers.committed);
    let (delivered_ids, applied_ids) = (ids(&ledgers.log), ids(&ledgers.applied));
    let lost = committed
        .iter()
        .filter(|id| !delivered_ids.contains(*id) || !applied_ids.contains(*id))
        .count();
    let foreign = |found: &HashSet<&str>| found.difference(&committed).count();
    Verdict {
        committed: ledgers.committed.len() as u64,
        rolled_back: ledgers.rolled_back,
        delivered: delivered.len() as u64,
        applied: applied.len() as u64,
        duplicates_absorbed: log_repeats.saturating_sub(applied_twice),
        lost: lost as u64,
        out_of_order: out_of_order(&delivered) + out_of_order(&applied),
        applied_twice,
        seconds,
        never_committed: (foreign(&delivered_ids) + foreign(&applied_ids)) as u64,
    }
}

fn ids(entries: &[Entry]) -> HashSet<&str> {
    entries
        .iter()
        .map(|entry| entry.message_id.as_str())
        .collect()
}

/// The first entry of each message, and how many others there are.
fn first_of_each(entries: &[Entry]) -> (Vec<&Entry>, u64) {
    let mut seen = HashSet::with_capacity(entries.len());
    let firsts: Vec<&Entry> = entries
        .iter()
        .filter(|entry| seen.insert(entry.message_id.as_str()))
        .collect();
    let repeats = (entries.len() - firsts.len()) as u64;
    (firsts, repeats)
}

/// Entries behind a later one of their customer.
fn out_of_order(entries: &[&Entry]) -> u64 {
    let mut highest: HashMap<i64, i64> = HashMap::new();
    let mut count = 0;
    for entry in entries {
        let last = highest.entry(entry.customer).or_insert(entry.number);
        if entry.number < *last {
            count += 1;
        }
        *last = entry.number.max(*last);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(customer: i64, number: i64) -> Entry {
        Entry {
            message_id: format!("{customer}/{number}"),
            customer,
            number,
            cents: 100,
        }
    }

    fn sound() -> Ledgers {
        let entries = vec![entry(1, 1), entry(2, 1), entry(1, 2)];
        Ledgers {
            committed: entries.clone(),
            rolled_back: 1,
            log: entries.clone(),
            applied: entries,
        }
    }

    #[test]
    fn sound_ledgers_are_clean_and_repeats_in_the_log_are_absorbed() {
        let mut ledgers = sound();
        ledgers.log.push(entry(1, 1));
        let verdict = verdict(&ledgers, 1.0);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(
            (verdict.committed, verdict.delivered, verdict.applied),
            (3, 3, 3)
        );
        assert_eq!((verdict.rolled_back, verdict.duplicates_absorbed), (1, 1));
    }

    #[test]
    fn a_message_missing_in_the_log_or_among_the_effects_is_lost() {
        let mut ledgers = sound();
        ledgers.log.pop();
        ledgers.applied.remove(0);
        assert_eq!(verdict(&ledgers, 1.0).lost, 2);
    }

    #[test]
    fn an_effect_made_twice_is_counted_and_not_absorbed() {
        let mut ledgers = sound();
        ledgers.log.push(entry(1, 2));
        ledgers.applied.push(entry(1, 2));
        let verdict = verdict(&ledgers, 1.0);
        assert_eq!((verdict.applied_twice, verdict.duplicates_absorbed), (1, 0));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_later_order_that_goes_first_is_out_of_order() {
        let mut ledgers = sound();
        ledgers.log.swap(0, 2);
        assert_eq!(verdict(&ledgers, 1.0).out_of_order, 1);
    }

    #[test]
    fn a_message_of_a_rolled_back_transaction_is_not_clean() {
        let mut ledgers = sound();
        ledgers.log.push(entry(9, 1));
        let verdict = verdict(&ledgers, 1.0);
        assert_eq!((verdict.never_committed, verdict.lost), (1, 0));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn the_json_has_exactly_the_documented_keys() {
        let json = serde_json::to_value(Verdict::default()).expect("serialisable");
        let keys: Vec<&str> = json
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let mut documented = [
            "committed",
            "rolled_back",
            "delivered",
            "applied",
            "duplicates_absorbed",
            "lost",
            "out_of_order",
            "applied_twice",
            "seconds",
        ];
        documented.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, documented);
    }
}
