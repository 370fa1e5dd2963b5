//! Holds the ledger against what was read.

use std::collections::{HashMap, HashSet};

use super::ledger::{Kind, Outcome, Place, Unit};
use super::reading::Seen;

/// What was read of each partition.
pub struct Read {
    pub everything: Vec<Vec<Seen>>,
    pub committed: Vec<Vec<Seen>>,
}

/// How many units of each outcome there were.
#[derive(Debug, Default)]
pub struct Count {
    pub done: u64,
    pub undone: u64,
    /// Not answered, and there.
    pub unknown_there: u64,
    /// Not answered, and not there.
    pub unknown_gone: u64,
    pub records: u64,
}

/// Every promise that was broken, in words.
pub fn broken(units: &[Unit], read: &Read) -> Vec<String> {
    let mut broken = Vec::new();
    let all = index(&read.everything);
    let committed = index(&read.committed);
    for (place, seen) in read.everything.iter().enumerate() {
        in_order(place, seen, &mut broken);
    }
    let mut known = HashSet::new();
    for unit in units {
        for record in &unit.records {
            known.insert((unit.producer, record.n));
            let at = all.get(&(unit.producer, record.n));
            if let Some(offset) = record.offset
                && at != Some(&(record.place, offset))
            {
                let who = format!("{:?} {}/{}", unit.kind, unit.producer, record.n);
                broken.push(format!("{who}: acked at {record:?}, is at {at:?}"));
            }
        }
        // Only transactions make records that are there and do not count.
        let visible = visible(unit, &committed);
        let stored = visible == self::visible(unit, &all);
        let whole = visible == unit.records.len();
        let kept = match unit.outcome {
            Outcome::Done => whole,
            Outcome::Undone => visible == 0,
            Outcome::Unknown => whole || visible == 0,
        };
        if !kept || !(stored || unit.kind == Kind::Transactional) {
            broken.push(format!("{visible} records are to be read of {unit:?}"));
        }
    }
    let strangers = all.keys().filter(|record| !known.contains(*record));
    broken.extend(strangers.map(|record| format!("{record:?} was never sent")));
    broken
}

/// A producer numbers its records, and sends them to each partition in this order. So numbers that
/// rise say that no record is there twice, and that every key has its order.
fn in_order(place: Place, seen: &[Seen], broken: &mut Vec<String>) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for record in seen {
        if let Some(before) = last.insert(record.producer, record.n)
            && before >= record.n
        {
            broken.push(format!("place {place}: {record:?} follows {before}"));
        }
    }
}

fn index(read: &[Vec<Seen>]) -> HashMap<(u64, u64), (Place, i64)> {
    let places = read.iter().enumerate();
    let records = places.flat_map(|(place, seen)| seen.iter().map(move |s| (place, s)));
    records
        .map(|(place, s)| ((s.producer, s.n), (place, s.offset)))
        .collect()
}

fn visible(unit: &Unit, read: &HashMap<(u64, u64), (Place, i64)>) -> usize {
    let there = |n: u64| read.contains_key(&(unit.producer, n));
    unit.records.iter().filter(|r| there(r.n)).count()
}

/// Counts the units of one kind.
pub fn count(kind: Kind, units: &[Unit], read: &Read) -> Count {
    let committed = index(&read.committed);
    let mut count = Count::default();
    for unit in units.iter().filter(|u| u.kind == kind) {
        count.records += unit.records.len() as u64;
        match unit.outcome {
            Outcome::Done => count.done += 1,
            Outcome::Undone => count.undone += 1,
            Outcome::Unknown if visible(unit, &committed) > 0 => count.unknown_there += 1,
            Outcome::Unknown => count.unknown_gone += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Sent;
    use super::*;

    fn unit(kind: Kind, outcome: Outcome, numbers: [u64; 2], base: Option<i64>) -> Unit {
        let sent = numbers.into_iter().zip(0..).map(|(n, at)| Sent {
            n,
            place: 0,
            offset: base.map(|base| base + at),
        });
        Unit {
            producer: 1,
            kind,
            outcome,
            records: sent.collect(),
        }
    }

    fn read(everything: &[(u64, i64)], committed: &[(u64, i64)]) -> Read {
        let seen = |read: &[(u64, i64)]| {
            let seen = read.iter().map(|&(n, offset)| Seen {
                producer: 1,
                n,
                offset,
            });
            vec![seen.collect()]
        };
        Read {
            everything: seen(everything),
            committed: seen(committed),
        }
    }

    fn breaks(units: &[Unit], everything: &[(u64, i64)], committed: &[(u64, i64)]) -> usize {
        broken(units, &read(everything, committed)).len()
    }

    #[test]
    fn what_was_acknowledged_must_be_there_once_in_order_at_its_offset() {
        let acked = [unit(Kind::Plain, Outcome::Done, [0, 1], Some(5))];
        let kept = [(0, 5), (1, 6)];
        assert_eq!(breaks(&acked, &kept, &kept), 0);
        let lost = [(0, 5)];
        assert_eq!(breaks(&acked, &lost, &lost), 2, "its offset and its unit");
        let moved = [(0, 6), (1, 7)];
        assert_eq!(breaks(&acked, &moved, &moved), 2);
        let twice = [(0, 5), (1, 6), (1, 6)];
        assert_eq!(breaks(&acked, &twice, &twice), 1);
        let stranger = [(0, 5), (1, 6), (2, 7)];
        assert_eq!(breaks(&acked, &stranger, &stranger), 1);
        assert_eq!(breaks(&acked, &kept, &[]), 1, "readers of committed ones");
    }

    #[test]
    fn what_was_not_answered_may_be_there_whole_or_not_at_all() {
        let unknown = [unit(Kind::Plain, Outcome::Unknown, [0, 1], None)];
        let (whole, half) = ([(0, 0), (1, 1)], [(0, 0)]);
        assert_eq!(breaks(&unknown, &whole, &whole), 0);
        assert_eq!(breaks(&unknown, &[], &[]), 0);
        assert_eq!(breaks(&unknown, &half, &half), 1);
    }

    #[test]
    fn an_aborted_transaction_is_there_and_does_not_count() {
        let whole = [(0, 0), (1, 1)];
        let aborted = [unit(Kind::Transactional, Outcome::Undone, [0, 1], Some(0))];
        assert_eq!(breaks(&aborted, &whole, &[]), 0);
        assert_eq!(breaks(&aborted, &whole, &whole), 1);
        let unknown = [unit(Kind::Transactional, Outcome::Unknown, [0, 1], Some(0))];
        assert_eq!(breaks(&unknown, &whole, &[]), 0);
        assert_eq!(breaks(&unknown, &whole, &whole), 0);
        assert_eq!(breaks(&unknown, &whole, &whole[..1]), 1);
        let committed = [unit(Kind::Transactional, Outcome::Done, [0, 1], Some(0))];
        assert_eq!(breaks(&committed, &whole, &[]), 1);
    }
}
