//! The last batches of one producer in one partition.

use super::Producer;
use crate::batch::BatchHeader;
use crate::limits::PRODUCER_BATCHES;

/// Sequences count up to `i32::MAX`, and then from 0 again.
const SEQUENCE_MASK: u32 = i32::MAX as u32;

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub producer: Producer,
    /// Sequence of the first record.
    pub first: i32,
    /// Sequence of the last record.
    pub last: i32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}

impl ProducerBatch {
    /// `None` when the batch has no producer, or is a marker.
    pub fn of(header: &BatchHeader) -> Option<Self> {
        if header.producer_id < 0 || header.is_control() {
            return None;
        }
        Some(Self {
            producer: header.producer(),
            first: header.base_sequence,
            last: plus(header.base_sequence, header.last_offset_delta),
            transactional: header.is_transactional(),
        })
    }
}

/// Whether a batch is the next of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Next,
    /// It is stored already, from this offset on.
    Duplicate { first_offset: i64 },
    /// It was stored, so long ago that its offset is forgotten.
    Forgotten,
    /// A batch before it is missing.
    OutOfOrder { expected: i32 },
    /// A newer epoch of the producer has appended.
    Stale { newer: i16 },
    /// Nothing is known of the producer here, and this is not its first batch.
    Unknown,
}

/// One producer in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub epoch: i16,
    /// When it last appended, in ms of wall time.
    pub appended_ms: i64,
    /// First offset of its open transaction.
    pub transaction: Option<i64>,
    /// The last batches of this epoch, the newest at the end; the first `count` count.
    marks: [Mark; PRODUCER_BATCHES],
    count: usize,
}

/// A batch that is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    first: i32,
    last: i32,
    first_offset: i64,
}

impl ProducerState {
    /// A producer that has appended nothing in this epoch.
    pub fn new(epoch: i16) -> Self {
        Self {
            epoch,
            appended_ms: i64::MIN,
            transaction: None,
            marks: [Mark::default(); PRODUCER_BATCHES],
            count: 0,
        }
    }

    /// Whether `batch` is the next one, given what is known of its producer.
    pub fn judge(known: Option<&Self>, batch: &ProducerBatch) -> Verdict {
        match known {
            None if batch.first == 0 => Verdict::Next,
            None => Verdict::Unknown,
            Some(state) => state.judge_known(batch),
        }
    }

    fn judge_known(&self, batch: &ProducerBatch) -> Verdict {
        let epoch = batch.producer.epoch;
        if epoch < self.epoch {
            return Verdict::Stale { newer: self.epoch };
        }
        let expected = match self.last_sequence() {
            Some(last) if epoch == self.epoch => plus(last, 1),
            _ => 0,
        };
        if batch.first == expected {
            return Verdict::Next;
        }
        if epoch > self.epoch || self.count == 0 {
            return Verdict::OutOfOrder { expected };
        }
        let same = |m: &&Mark| (m.first, m.last) == (batch.first, batch.last);
        if let Some(mark) = self.marks().iter().find(same) {
            let first_offset = mark.first_offset;
            return Verdict::Duplicate { first_offset };
        }
        let oldest = self.marks[0].first;
        if is_before(batch.last, oldest) {
            Verdict::Forgotten
        } else {
            Verdict::OutOfOrder { expected }
        }
    }

    /// Notes a batch that is stored.
    pub fn push(&mut self, batch: &ProducerBatch, first_offset: i64) {
        self.enter(batch.producer.epoch);
        if self.count == PRODUCER_BATCHES {
            self.marks.rotate_left(1);
            self.count -= 1;
        }
        self.marks[self.count] = Mark {
            first: batch.first,
            last: batch.last,
            first_offset,
        };
        self.count += 1;
        if batch.transactional {
            self.transaction.get_or_insert(first_offset);
        }
    }

    /// A new epoch counts its sequences from 0.
    pub fn enter(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }

    /// Sequence of the last record of this epoch.
    pub fn last_sequence(&self) -> Option<i32> {
        self.marks().last().map(|m| m.last)
    }

    /// The batches that are remembered: first and last sequence, first offset.
    pub fn batches(&self) -> impl Iterator<Item = (i32, i32, i64)> + '_ {
        self.marks()
            .iter()
            .map(|m| (m.first, m.last, m.first_offset))
    }

    fn marks(&self) -> &[Mark] {
        &self.marks[..self.count]
    }
}

/// The sequence `records` behind `sequence`.
pub(super) fn plus(sequence: i32, records: i32) -> i32 {
    ((sequence as u32).wrapping_add(records as u32) & SEQUENCE_MASK) as i32
}

/// Whether `a` comes before `b`: the shorter way around the circle goes up from it.
fn is_before(a: i32, b: i32) -> bool {
    let ahead = (b as u32).wrapping_sub(a as u32) & SEQUENCE_MASK;
    (1..=SEQUENCE_MASK / 2).contains(&ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(epoch: i16, first: i32, records: i32) -> ProducerBatch {
        ProducerBatch {
            producer: Producer { id: 7, epoch },
            first,
            last: plus(first, records - 1),
            transactional: false,
        }
    }

    /// All batches ever stored, and no arithmetic on a circle: sequences are counted on.
    struct Model {
        epoch: i16,
        /// First sequence counted from `start`, records, first offset.
        stored: Vec<(i64, i64, i64)>,
        next: i64,
    }

    impl Model {
        fn judge(&self, epoch: i16, first: i64, records: i64) -> Verdict {
            if epoch < self.epoch {
                return Verdict::Stale { newer: self.epoch };
            }
            let next = if epoch > self.epoch { 0 } else { self.next };
            let expected = (next % (1 << 31)) as i32;
            if first == next {
                return Verdict::Next;
            }
            if epoch == self.epoch && !self.stored.is_empty() {
                let last_five = &self.stored[self.stored.len().saturating_sub(5)..];
                for (f, r, offset) in last_five {
                    if (*f, *r) == (first, records) {
                        let first_offset = *offset;
                        return Verdict::Duplicate { first_offset };
                    }
                }
                if first + records <= last_five[0].0 {
                    return Verdict::Forgotten;
                }
            }
            Verdict::OutOfOrder { expected }
        }
    }

    /// A batch to try: how far its epoch is from the newest, its first sequence from the next one.
    fn tries() -> impl Strategy<Value = Vec<(i16, i64, i64)>> {
        let one = prop_oneof![
            6 => Just((0, 0)),
            4 => (Just(0), -16i64..0),
            1 => (Just(0), 1i64..9),
            1 => (-1i16..2, Just(0)),
        ];
        let one = (one, 1i64..5).prop_map(|((raise, distance), n)| (raise, distance, n));
        prop::collection::vec(one, 0..120)
    }

    proptest! {
        /// Starting near the wrap-around, so that it is crossed.
        #[test]
        fn a_producer_agrees_with_one_that_remembers_all_its_batches(tries in tries()) {
            let start = i64::from(i32::MAX) - 40;
            let mut state = ProducerState::new(0);
            state.push(&batch(0, start as i32, 1), 0);
            let mut model = Model {
                stored: vec![(start, 1, 0)],
                next: start + 1,
                epoch: 0,
            };
            let mut offset = 1;
            for (raise, distance, records) in tries {
                let epoch = model.epoch + raise;
                // Every other new epoch starts as it must.
                let starts = raise > 0 && (records > 2 || model.next % (1 << 31) == 0);
                let first = if starts { 0 } else { model.next + distance };
                if first < 0 || epoch < 0 {
                    continue;
                }
                let b = batch(epoch, (first % (1 << 31)) as i32, records as i32);
                let verdict = ProducerState::judge(Some(&state), &b);
                prop_assert_eq!(verdict, model.judge(epoch, first, records));
                if verdict == Verdict::Next {
                    state.push(&b, offset);
                    if epoch > model.epoch {
                        model.stored.clear();
                    }
                    model.epoch = epoch;
                    model.stored.push((first, records, offset));
                    model.next = first + records;
                    offset += records;
                }
            }
        }
    }

    #[test]
    fn sequences_wrap_to_zero_behind_the_largest_number() {
        assert_eq!(plus(i32::MAX, 1), 0);
        assert_eq!(plus(i32::MAX - 1, 3), 1);
        let mut state = ProducerState::new(0);
        let last = batch(0, i32::MAX - 1, 2);
        assert_eq!(last.last, i32::MAX);
        state.push(&last, 100);
        assert_eq!(state.judge_known(&batch(0, 0, 1)), Verdict::Next);
        let across = batch(0, i32::MAX, 3);
        assert_eq!(across.last, 1);
    }

    #[test]
    fn a_duplicate_answers_the_original_offset_and_an_older_one_only_that_it_was_stored() {
        let mut state = ProducerState::new(3);
        for n in 0..6 {
            state.push(&batch(3, 10 * n, 10), i64::from(100 * n));
        }
        let known = Some(&state);
        let judge = |b: ProducerBatch| ProducerState::judge(known, &b);
        assert_eq!(
            judge(batch(3, 10, 10)),
            Verdict::Duplicate { first_offset: 100 }
        );
        assert_eq!(
            judge(batch(3, 50, 10)),
            Verdict::Duplicate { first_offset: 500 }
        );
        assert_eq!(judge(batch(3, 0, 10)), Verdict::Forgotten);
        assert_eq!(judge(batch(3, 50, 9)), Verdict::OutOfOrder { expected: 60 });
        assert_eq!(judge(batch(3, 70, 1)), Verdict::OutOfOrder { expected: 60 });
        assert_eq!(judge(batch(2, 60, 1)), Verdict::Stale { newer: 3 });
        assert_eq!(judge(batch(4, 60, 1)), Verdict::OutOfOrder { expected: 0 });
        assert_eq!(judge(batch(4, 0, 1)), Verdict::Next);
    }
}
