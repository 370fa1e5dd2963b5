//! Holds what was committed against what was applied: lost, out of order, applied twice.

use std::collections::HashMap;

/// One message as committed, or one effect as applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its topic.
    pub topic: String,
    /// Its key; `None` has no order.
    pub key: Option<String>,
    /// Its body: what tells one entry from another.
    pub payload: String,
}

/// The three counts that must be 0, and one more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Committed and never applied.
    pub lost: u64,
    /// Applied after a later one of its topic and key.
    pub out_of_order: u64,
    /// Applied more often than committed.
    pub applied_twice: u64,
    /// Applied and never committed.
    pub unexpected: u64,
    /// The first few offenders, for the failure's text.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every promise held.
    pub fn is_clean(&self) -> bool {
        self.lost + self.out_of_order + self.applied_twice + self.unexpected == 0
    }

    fn example(&mut self, what: &str, entry: &Entry) {
        if self.examples.len() < 10 {
            self.examples.push(format!("{what}: {entry:?}"));
        }
    }
}

/// Compares `committed`, in the order of commits, with `applied`, in the order of effects.
pub fn verify(committed: &[Entry], applied: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    // Equal entries are told apart by their count: the n-th applied is the n-th committed.
    let mut places: HashMap<&Entry, Vec<usize>> = HashMap::with_capacity(committed.len());
    for (at, entry) in committed.iter().enumerate() {
        places.entry(entry).or_default().push(at);
    }
    let mut taken: HashMap<&Entry, usize> = HashMap::with_capacity(applied.len());
    let mut latest: HashMap<(&str, &str), usize> = HashMap::new();
    for entry in applied {
        let Some(committed_at) = places.get(entry) else {
            verdict.unexpected += 1;
            verdict.example("unexpected", entry);
            continue;
        };
        let nth = taken.entry(entry).or_default();
        *nth += 1;
        let Some(&at) = committed_at.get(*nth - 1) else {
            verdict.applied_twice += 1;
            verdict.example("applied twice", entry);
            continue;
        };
        let Some(key) = &entry.key else { continue };
        let last = latest.entry((&entry.topic, key)).or_insert(at);
        if at < *last {
            verdict.out_of_order += 1;
            verdict.example("out of order", entry);
        }
        *last = at.max(*last);
    }
    for (entry, committed_at) in &places {
        let missing = committed_at
            .len()
            .saturating_sub(taken.get(entry).copied().unwrap_or(0));
        verdict.lost += missing as u64;
        if missing > 0 {
            verdict.example("lost", entry);
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, payload: &str) -> Entry {
        Entry {
            topic: "t".into(),
            key: Some(key.into()),
            payload: payload.into(),
        }
    }

    #[test]
    fn each_kind_of_damage_is_counted_once() {
        let committed = [
            entry("a", "1"),
            entry("b", "1"),
            entry("a", "2"),
            entry("a", "3"),
        ];
        assert!(verify(&committed, &committed).is_clean());
        let swapped = [
            committed[2].clone(),
            committed[0].clone(),
            committed[1].clone(),
            committed[3].clone(),
        ];
        assert_eq!(verify(&committed, &swapped).out_of_order, 1);
        assert_eq!(verify(&committed, &committed[1..]).lost, 1);
        let mut twice = committed.to_vec();
        twice.push(committed[0].clone());
        let verdict = verify(&committed, &twice);
        assert_eq!((verdict.applied_twice, verdict.out_of_order), (1, 0));
        twice.push(entry("a", "9"));
        assert_eq!(verify(&committed, &twice).unexpected, 1);
    }

    #[test]
    fn keys_and_topics_are_independent_and_no_key_has_no_order() {
        let committed = [entry("a", "1"), entry("b", "1")];
        assert!(verify(&committed, &[entry("b", "1"), entry("a", "1")]).is_clean());
        let loose = |p: &str| Entry {
            topic: "t".into(),
            key: None,
            payload: p.into(),
        };
        assert!(verify(&[loose("1"), loose("2")], &[loose("2"), loose("1")]).is_clean());
    }
}
