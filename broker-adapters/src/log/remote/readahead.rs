//! What was fetched and not yet asked for.
//!
//! A consumer asks for one partition after the other; a broker answers for all of them at once. So
//! the first question of a round fetches for every partition that has nothing left, and the others
//! are answered from what came. While there is nothing, a long poll waits for all partitions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use outbox_broker::client::{FetchWish, FetchedRange};
use outbox_core::TopicPartition;

/// Most bytes of one answer to a fetch of several partitions (4 MiB); each partition that is read
/// holds at most as much as was asked for it.
pub(super) const ROUND_BYTES: usize = 4 * 1024 * 1024;

/// One place for each partition.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    slots: BTreeMap<TopicPartition, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// What the consumer asks for next.
    asked: i64,
    /// Where to go on reading: behind `asked` when what stands there is not for consumers (the ends
    /// of transactions, aborted records).
    at: i64,
    bytes_max: usize,
    /// What was fetched from `at` on, until it is taken.
    fetched: Option<Fetched>,
}

/// What a broker said of one partition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fetched {
    /// There is nothing yet.
    Nothing,
    /// Batches, and the (producer id, first offset) of aborted transactions in them.
    Batches(Bytes, Vec<(i64, i64)>),
    /// Kafka's error code.
    Failed(i16),
}

impl Readahead {
    /// Takes what was fetched for a consumer that asks for `offset`, if anything was. What was
    /// fetched for another offset is dropped, for the consumer has gone elsewhere.
    pub fn take(&mut self, of: &TopicPartition, offset: i64, bytes_max: usize) -> Option<Fetched> {
        let slot = self.slots.entry(of.clone()).or_insert(Slot {
            asked: offset,
            at: offset,
            bytes_max,
            fetched: None,
        });
        slot.bytes_max = bytes_max;
        if slot.asked != offset {
            slot.go_to(offset, offset);
        }
        slot.fetched.take()
    }

    /// What was taken ends before `next`. With something in it for the consumer (`given`), the
    /// consumer asks for `next` from now on; otherwise it asks for the same again, and is given what
    /// follows.
    pub fn advance(&mut self, of: &TopicPartition, next: i64, given: bool) {
        if let Some(slot) = self.slots.get_mut(of) {
            let asked = if given { next } else { slot.asked };
            slot.go_to(asked, next);
        }
    }

    /// What to fetch: every partition with nothing left, the wanted one first, for an answer has
    /// room for its first partitions at least. Those that are known to be at their end are asked
    /// again only by a long poll.
    pub fn wishes(&self, first: Option<&TopicPartition>, poll: bool) -> Vec<FetchWish> {
        let due = |slot: &Slot| match &slot.fetched {
            None => true,
            Some(Fetched::Nothing) => poll,
            Some(_) => false,
        };
        let due = self.slots.iter().filter(|(_, slot)| due(slot));
        let (mut wishes, mut others) = (Vec::new(), Vec::new());
        for (of, slot) in due {
            let wish = FetchWish {
                topic: of.topic.clone(),
                partition: of.partition as u32,
                offset: slot.at,
                bytes_max: slot.bytes_max,
            };
            match first == Some(of) {
                true => wishes.push(wish),
                false => others.push(wish),
            }
        }
        wishes.append(&mut others);
        wishes
    }

    /// Keeps an answer. Answers for how many partitions there is something in it for the consumer.
    pub fn keep(&mut self, wishes: &[FetchWish], ranges: Vec<FetchedRange>) -> usize {
        let asked: BTreeMap<(&str, u32), i64> = wishes
            .iter()
            .map(|w| ((&*w.topic, w.partition), w.offset))
            .collect();
        let mut news = 0;
        for range in ranges {
            let offset = asked.get(&(&*range.topic, range.partition)).copied();
            let of = TopicPartition {
                topic: range.topic,
                partition: range.partition as i32,
            };
            let Some(slot) = self.slots.get_mut(&of) else {
                continue;
            };
            // Somebody may have asked for another offset meanwhile, or have got an answer.
            let open = matches!(slot.fetched, None | Some(Fetched::Nothing));
            if Some(slot.at) != offset || !open {
                continue;
            }
            let fetched = match (range.code, range.batches.is_empty()) {
                (0, true) => Fetched::Nothing,
                (0, false) => Fetched::Batches(range.batches, range.aborted),
                (code, _) => Fetched::Failed(code),
            };
            news += usize::from(fetched != Fetched::Nothing);
            slot.fetched = Some(fetched);
        }
        news
    }

    /// Forgets every partition that is not among `assigned`.
    pub fn retain(&mut self, assigned: &BTreeSet<TopicPartition>) {
        self.slots.retain(|of, _| assigned.contains(of));
    }
}

impl Slot {
    fn go_to(&mut self, asked: i64, at: i64) {
        if self.at != at {
            self.fetched = None;
        }
        (self.asked, self.at) = (asked, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: "t".into(),
            partition,
        }
    }

    fn range(partition: u32, batches: &'static [u8]) -> FetchedRange {
        FetchedRange {
            topic: "t".into(),
            partition,
            batches: Bytes::from_static(batches),
            aborted: Vec::new(),
            code: 0,
        }
    }

    #[test]
    fn one_round_asks_once_for_all_partitions_and_the_wanted_one_first() {
        let mut ahead = Readahead::default();
        for partition in 0..3 {
            assert_eq!(ahead.take(&of(partition), 0, 10), None);
        }
        let wishes = ahead.wishes(Some(&of(2)), false);
        let asked: Vec<u32> = wishes.iter().map(|w| w.partition).collect();
        assert_eq!(asked, [2, 0, 1]);
        let ranges = vec![range(2, b""), range(0, b"x"), range(1, b"")];
        assert_eq!(ahead.keep(&wishes, ranges), 1);
        assert!(ahead.wishes(None, false).is_empty());
        let polled: Vec<u32> = ahead
            .wishes(None, true)
            .iter()
            .map(|w| w.partition)
            .collect();
        assert_eq!(polled, [1, 2], "what is held is not asked for again");
        assert_eq!(ahead.take(&of(1), 0, 10), Some(Fetched::Nothing));
        assert_eq!(ahead.take(&of(1), 0, 10), None, "the next round asks again");
    }

    #[test]
    fn an_answer_for_an_offset_that_nobody_wants_any_more_is_dropped() {
        let mut ahead = Readahead::default();
        ahead.take(&of(0), 0, 10);
        let wishes = ahead.wishes(None, true);
        ahead.take(&of(0), 5, 10);
        assert_eq!(ahead.keep(&wishes, vec![range(0, b"old")]), 0);
        assert_eq!(ahead.take(&of(0), 5, 10), None);
    }

    #[test]
    fn what_is_not_for_consumers_is_passed_once_and_not_read_again() {
        let mut ahead = Readahead::default();
        ahead.take(&of(0), 7, 10);
        ahead.advance(&of(0), 9, false);
        assert_eq!(
            ahead.take(&of(0), 7, 10),
            None,
            "the consumer asks for the same again"
        );
        assert_eq!(ahead.wishes(None, true)[0].offset, 9);
        ahead.advance(&of(0), 12, true);
        ahead.take(&of(0), 12, 10);
        assert_eq!(ahead.wishes(None, true)[0].offset, 12);
    }

    #[test]
    fn a_partition_that_is_another_members_is_forgotten() {
        let mut ahead = Readahead::default();
        ahead.take(&of(0), 0, 10);
        ahead.take(&of(1), 0, 10);
        ahead.retain(&[of(1)].into());
        assert_eq!(ahead.wishes(None, true).len(), 1);
    }
}
