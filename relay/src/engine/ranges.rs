//! Sets of seqs as sorted ranges with both ends included.

use outbox_core::Seq;

/// Sorts, and joins what touches or overlaps.
pub(crate) fn normalise(ranges: &mut Vec<(Seq, Seq)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = next.0 <= kept.1.saturating_add(1);
        if joins {
            kept.1 = kept.1.max(next.1);
        }
        joins
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_same_seqs_are_in_the_fewest_ranges(
            mut ranges in prop::collection::vec((0i64..100, 0i64..5), 0..40),
        ) {
            for range in &mut ranges { range.1 += range.0; }
            let set = |r: &[(Seq, Seq)]| r.iter().flat_map(|&(a, b)| a..=b).collect::<BTreeSet<_>>();
            let before = set(&ranges);
            normalise(&mut ranges);
            prop_assert_eq!(set(&ranges), before);
            prop_assert!(ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0));
        }
    }
}
