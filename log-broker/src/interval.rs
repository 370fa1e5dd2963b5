//! A set of integers that is kept as ranges.

use std::collections::BTreeMap;

/// A set of `i64` as disjoint, non-adjacent ranges with both ends included.
///
/// Cost follows the number of ranges, never the number of members: inserting a range of any width
/// is one look-up plus the ranges it swallows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet {
    /// Low end → high end.
    ranges: BTreeMap<i64, i64>,
}

impl IntervalSet {
    /// Adds every number from `lo` to `hi`; nothing when `lo > hi`.
    pub fn insert(&mut self, lo: i64, hi: i64) {
        if lo > hi {
            return;
        }
        let (mut lo, mut hi) = (lo, hi);
        // The usual case: the set grows at its end.
        if let Some(mut last) = self.ranges.last_entry()
            && *last.key() <= lo
            && last.get().saturating_add(1) >= lo
        {
            *last.get_mut() = hi.max(*last.get());
            return;
        }
        if let Some((&before, &end)) = self.ranges.range(..lo).next_back()
            && end.saturating_add(1) >= lo
        {
            lo = before;
            hi = hi.max(end);
        }
        while let Some((&next, &end)) = self.ranges.range(lo..=hi.saturating_add(1)).next() {
            hi = hi.max(end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(lo, hi);
    }

    /// Removes every number from `lo` to `hi`.
    pub fn remove(&mut self, lo: i64, hi: i64) {
        if lo > hi {
            return;
        }
        if let Some((&before, &end)) = self.ranges.range(..lo).next_back()
            && end >= lo
        {
            self.ranges.insert(before, lo - 1);
            if end > hi {
                self.ranges.insert(hi + 1, end);
            }
        }
        while let Some((&next, &end)) = self.ranges.range(lo..=hi).next() {
            self.ranges.remove(&next);
            if end > hi {
                self.ranges.insert(hi + 1, end);
            }
        }
    }

    /// Whether `n` is a member.
    pub fn contains(&self, n: i64) -> bool {
        self.intersects(n, n)
    }

    /// Whether any number from `lo` to `hi` is a member.
    pub fn intersects(&self, lo: i64, hi: i64) -> bool {
        lo <= hi && matches!(self.ranges.range(..=hi).next_back(), Some((_, &end)) if end >= lo)
    }

    /// Forgets every member below `bound`.
    pub fn forget_below(&mut self, bound: i64) {
        if bound == i64::MIN {
            return;
        }
        while let Some(first) = self.ranges.first_entry() {
            if *first.key() >= bound {
                break;
            }
            let (_, end) = first.remove_entry();
            if end >= bound {
                self.ranges.insert(bound, end);
            }
        }
    }

    /// Forgets the lowest ranges until at most `ranges` are left.
    pub fn forget_lowest(&mut self, ranges: usize) {
        while self.ranges.len() > ranges {
            self.ranges.pop_first();
        }
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.ranges.iter().map(|(&lo, &hi)| (lo, hi))
    }

    /// How many ranges there are.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set has no member.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<(i64, i64)> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = (i64, i64)>>(ranges: I) -> Self {
        let mut set = Self::default();
        for (lo, hi) in ranges {
            set.insert(lo, hi);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(i64, i64),
        Remove(i64, i64),
        ForgetBelow(i64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let ends = (-20i64..60, 0i64..12).prop_map(|(lo, width)| (lo, lo + width - 1));
        prop_oneof![
            4 => ends.clone().prop_map(|(lo, hi)| Op::Insert(lo, hi)),
            2 => ends.prop_map(|(lo, hi)| Op::Remove(lo, hi)),
            1 => (-20i64..60).prop_map(Op::ForgetBelow),
        ]
    }

    fn apply(op: &Op, set: &mut IntervalSet, model: &mut BTreeSet<i64>) {
        match *op {
            Op::Insert(lo, hi) => {
                set.insert(lo, hi);
                model.extend(lo..=hi);
            }
            Op::Remove(lo, hi) => {
                set.remove(lo, hi);
                model.retain(|n| !(lo..=hi).contains(n));
            }
            Op::ForgetBelow(bound) => {
                set.forget_below(bound);
                model.retain(|&n| n >= bound);
            }
        }
    }

    proptest! {
        #[test]
        fn an_interval_set_agrees_with_a_set_of_numbers(ops in prop::collection::vec(op(), 0..40)) {
            let (mut set, mut model) = (IntervalSet::default(), BTreeSet::new());
            for op in &ops {
                apply(op, &mut set, &mut model);
                let members: Vec<i64> = set.ranges().flat_map(|(lo, hi)| lo..=hi).collect();
                prop_assert_eq!(&members, &model.iter().copied().collect::<Vec<_>>());
                for n in -25..75 {
                    prop_assert_eq!(set.contains(n), model.contains(&n));
                    prop_assert_eq!(set.intersects(n, n + 5), model.range(n..=n + 5).next().is_some());
                }
                // Ranges are maximal: neighbours never touch.
                let ranges: Vec<_> = set.ranges().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line_do_not_overflow() {
        let mut set = IntervalSet::default();
        set.insert(i64::MAX - 1, i64::MAX);
        set.insert(i64::MIN, 0);
        set.insert(1, i64::MAX - 2);
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(i64::MIN, i64::MAX)]);
        set.remove(i64::MIN, i64::MAX);
        assert!(set.is_empty());
    }
}
