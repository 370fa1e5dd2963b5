//! Duplicate-proof publish: what a publisher has already stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interval::IntervalSet;
use crate::limits;

/// Who appends, and which of its sequence numbers the records stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// The publisher: an opaque name, at most [`limits::PUBLISHER_BYTES_MAX`] bytes.
    pub publisher: Arc<str>,
    /// A newer epoch shuts out older ones.
    pub epoch: i64,
    /// One for each record of the append, in any order.
    pub sequences: Vec<Sequence>,
    /// Every number of this range that is not in `except` is done with this append, whether or
    /// not it is in `sequences`. Both ends included.
    pub done: Option<(i64, i64)>,
    /// Numbers of `done` that may still come, as ranges with both ends included.
    pub except: Vec<(i64, i64)>,
    /// No number below this comes again with redelivery 0, so that it need not be remembered.
    pub low_water: i64,
}

/// The identity of a record at its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its number.
    pub seq: i64,
    /// How often it was asked for again: a raised number passes.
    pub redelivery: u32,
}

/// What one append adds to its publisher's memory: the very thing that goes into the WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PublisherUpdate {
    pub epoch: i64,
    pub low_water: i64,
    /// Ranges stored with redelivery 0.
    pub done: Vec<(i64, i64)>,
    /// Ranges stored with a higher one: (redelivery, lo, hi).
    pub redelivered: Vec<(u32, i64, i64)>,
}

/// What the log remembers of one publisher. Ranges, so its size follows the exceptions, not the
/// records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Publisher {
    epoch: i64,
    low_water: i64,
    done: IntervalSet,
    redelivered: BTreeMap<u32, IntervalSet>,
}

/// The form of a [`Publisher`] in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PublisherRecord {
    pub id: Arc<str>,
    epoch: i64,
    low_water: i64,
    done: Vec<(i64, i64)>,
    redelivered: Vec<(u32, i64, i64)>,
}

impl Publisher {
    /// The newest epoch seen.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Indexes of the sequences that are stored already. One look-up when none is, which is the
    /// usual case.
    pub fn duplicates(&self, publication: &Publication) -> Vec<usize> {
        let sequences = &publication.sequences;
        if !self.may_hold_any(sequences) {
            return Vec::new();
        }
        let held = |s: &&Sequence| self.holds(**s);
        let indexed = sequences.iter().enumerate();
        indexed.filter(|(_, s)| held(s)).map(|(i, _)| i).collect()
    }

    fn may_hold_any(&self, sequences: &[Sequence]) -> bool {
        let (mut lo, mut hi, mut redelivered) = (i64::MAX, i64::MIN, false);
        for s in sequences {
            lo = lo.min(s.seq);
            hi = hi.max(s.seq);
            redelivered |= s.redelivery > 0;
        }
        redelivered || self.done.intersects(lo, hi)
    }

    fn holds(&self, sequence: Sequence) -> bool {
        let set = match sequence.redelivery {
            0 => Some(&self.done),
            n => self.redelivered.get(&n),
        };
        set.is_some_and(|set| set.contains(sequence.seq))
    }

    /// Remembers what was stored. The numbers below the low water are forgotten: not assumed
    /// stored, for a message that was given up and is resent comes back with its old number.
    pub fn apply(&mut self, update: &PublisherUpdate) {
        self.epoch = self.epoch.max(update.epoch);
        self.low_water = self.low_water.max(update.low_water);
        for &(lo, hi) in &update.done {
            self.done.insert(lo, hi);
        }
        self.done.forget_below(self.low_water);
        for &(redelivery, lo, hi) in &update.redelivered {
            let set = self.redelivered.entry(redelivery).or_default();
            set.insert(lo, hi);
            set.forget_lowest(limits::REDELIVERY_INTERVALS_MAX);
        }
    }

    pub fn to_record(&self, id: Arc<str>) -> PublisherRecord {
        let redelivered = self.redelivered.iter();
        PublisherRecord {
            id,
            epoch: self.epoch,
            low_water: self.low_water,
            done: self.done.ranges().collect(),
            redelivered: redelivered
                .flat_map(|(&n, set)| set.ranges().map(move |(lo, hi)| (n, lo, hi)))
                .collect(),
        }
    }

    pub fn from_record(record: &PublisherRecord) -> Self {
        let mut publisher = Self::default();
        publisher.apply(&PublisherUpdate {
            epoch: record.epoch,
            low_water: record.low_water,
            done: record.done.clone(),
            redelivered: record.redelivered.clone(),
        });
        publisher
    }
}

impl PublisherUpdate {
    /// The update that a publication makes once it is stored: `done` less `except` as ranges,
    /// and the sequences that those do not cover.
    pub fn of(publication: &Publication) -> Self {
        let mut done = IntervalSet::default();
        if let Some((lo, hi)) = publication.done {
            done.insert(lo, hi);
            for &(lo, hi) in &publication.except {
                done.remove(lo, hi);
            }
        }
        let mut redelivered: BTreeMap<u32, IntervalSet> = BTreeMap::new();
        for s in &publication.sequences {
            match s.redelivery {
                0 if done.contains(s.seq) => {}
                0 => done.insert(s.seq, s.seq),
                n => redelivered.entry(n).or_default().insert(s.seq, s.seq),
            }
        }
        Self {
            epoch: publication.epoch,
            low_water: publication.low_water,
            done: done.ranges().collect(),
            redelivered: redelivered
                .iter()
                .flat_map(|(&n, set)| set.ranges().map(move |(lo, hi)| (n, lo, hi)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(seqs: &[i64], done: (i64, i64), except: &[(i64, i64)]) -> Publication {
        Publication {
            publisher: "p".into(),
            epoch: 1,
            sequences: seqs
                .iter()
                .map(|&seq| Sequence { seq, redelivery: 0 })
                .collect(),
            done: Some(done),
            except: except.to_vec(),
            low_water: 0,
        }
    }

    #[test]
    fn a_range_is_remembered_as_one_range_with_a_hole_for_each_exception() {
        let p = publication(&[1, 2, 4, 8], (1, 10), &[(3, 3), (6, 7)]);
        assert_eq!(PublisherUpdate::of(&p).done, [(1, 2), (4, 5), (8, 10)]);
    }

    #[test]
    fn a_sequence_that_is_also_an_exception_counts_as_stored() {
        let p = publication(&[3], (1, 5), &[(3, 4)]);
        assert_eq!(PublisherUpdate::of(&p).done, [(1, 3), (5, 5)]);
    }

    #[test]
    fn a_duplicate_is_found_and_a_raised_redelivery_passes_once() {
        let mut publisher = Publisher::default();
        let mut p = publication(&[1, 2, 3], (1, 3), &[]);
        publisher.apply(&PublisherUpdate::of(&p));
        p.sequences.push(Sequence {
            seq: 9,
            redelivery: 0,
        });
        assert_eq!(publisher.duplicates(&p), [0, 1, 2]);

        let again = Publication {
            sequences: vec![Sequence {
                seq: 2,
                redelivery: 1,
            }],
            done: None,
            ..p
        };
        assert!(publisher.duplicates(&again).is_empty());
        publisher.apply(&PublisherUpdate::of(&again));
        assert_eq!(publisher.duplicates(&again), [0]);
    }

    #[test]
    fn what_is_below_the_low_water_is_forgotten_and_a_record_keeps_the_rest() {
        let mut publisher = Publisher::default();
        let mut p = publication(&[1], (1, 100), &[(50, 50)]);
        p.low_water = 40;
        publisher.apply(&PublisherUpdate::of(&p));
        assert!(!publisher.holds(Sequence {
            seq: 39,
            redelivery: 0
        }));
        assert!(publisher.holds(Sequence {
            seq: 40,
            redelivery: 0
        }));
        assert!(!publisher.holds(Sequence {
            seq: 50,
            redelivery: 0
        }));
        let back = Publisher::from_record(&publisher.to_record("p".into()));
        assert_eq!(back, publisher);
    }
}
