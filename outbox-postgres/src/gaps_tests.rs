//! The books of gaps, against the traps that lost messages elsewhere.

use std::collections::BTreeSet;

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn found(ranges: &[(Seq, Seq)]) -> Gaps {
    let mut gaps = Gaps::default();
    gaps.discover(ranges, NOW);
    gaps
}

fn open(gaps: &Gaps) -> Vec<(Seq, Seq)> {
    gaps.open.iter().map(|(&lo, gap)| (lo, gap.hi)).collect()
}

fn look_and_close(gaps: &mut Gaps, xmin: u64) {
    let looked = gaps.look_up(NOW);
    gaps.close(&looked, xmin);
}

fn settle(gaps: &mut Gaps, through: Seq, late: &[Seq], xid: u64) -> GapChanges {
    let changes = gaps.changes(through, late, NOW);
    gaps.settled(&changes, late, xid);
    changes
}

#[test]
fn missing_seqs_are_found_before_between_and_behind_the_seen_ones() {
    let ranges = missing(5, 12, [6, 7, 10].into_iter());
    assert_eq!(ranges, [(5, 5), (8, 9), (11, 12)]);
    assert_eq!(missing(5, 4, std::iter::empty()), []);
}

#[test]
fn a_gap_without_a_fence_is_never_closed_by_xmin() {
    let mut gaps = found(&[(5, 5)]);
    look_and_close(&mut gaps, u64::MAX);
    assert_eq!(open(&gaps), [(5, 5)]);
}

#[test]
fn a_gap_closes_when_xmin_reaches_its_fence_and_not_before() {
    let mut gaps = found(&[(5, 6)]);
    settle(&mut gaps, 10, &[], 700);
    look_and_close(&mut gaps, 699);
    assert_eq!(open(&gaps), [(5, 6)]);
    look_and_close(&mut gaps, 700);
    assert_eq!(open(&gaps), []);
    assert_eq!(settle(&mut gaps, 10, &[], 701).remove, [5]);
}

#[test]
fn a_gap_found_after_the_look_up_is_not_closed_by_it() {
    let mut gaps = found(&[(5, 5)]);
    let looked = gaps.look_up(NOW);
    gaps.discover(&[(8, 8)], NOW);
    gaps.settled(&GapChanges::default(), &[], 1);
    gaps.close(&looked, u64::MAX);
    assert_eq!(open(&gaps), [(8, 8)]);
}

#[test]
fn a_late_seq_splits_its_gap_and_stays_in_the_store_until_it_is_settled() {
    let mut gaps = found(&[(5, 9)]);
    settle(&mut gaps, 10, &[], 700);
    assert!(gaps.saw(7, true));
    assert_eq!(open(&gaps), [(5, 6), (8, 9)]);
    let changes = settle(&mut gaps, 12, &[], 701);
    let stored: Vec<_> = changes.write.iter().map(|g| (g.lo, g.hi)).collect();
    assert_eq!(stored, [(5, 6), (7, 7), (8, 9)]);
    assert_eq!(settle(&mut gaps, 12, &[7], 702).remove, [7]);
}

#[test]
fn a_late_seq_of_another_destination_only_closes_its_gap() {
    let mut gaps = found(&[(5, 5)]);
    settle(&mut gaps, 10, &[], 700);
    assert!(gaps.saw(5, false));
    assert!(!gaps.saw(5, true), "it is no gap any more");
    assert_eq!(settle(&mut gaps, 10, &[], 701).remove, [5]);
}

#[test]
fn only_what_lies_behind_the_cursor_is_stored() {
    let mut gaps = found(&[(5, 20), (30, 30)]);
    let changes = settle(&mut gaps, 10, &[], 700);
    let stored: Vec<_> = changes
        .write
        .iter()
        .map(|g| (g.lo, g.hi, g.fence))
        .collect();
    assert_eq!(stored, [(5, 10, None)]);
    let changes = settle(&mut gaps, 40, &[], 701);
    let stored: Vec<_> = changes
        .write
        .iter()
        .map(|g| (g.lo, g.hi, g.fence))
        .collect();
    assert_eq!(stored, [(5, 20, Some(700)), (30, 30, Some(700))]);
}

#[test]
fn gaps_are_written_only_when_they_change() {
    let mut gaps = found(&[(5, 5)]);
    settle(&mut gaps, 10, &[], 700);
    assert!(gaps.changes(20, &[], NOW).is_empty());
}

#[test]
fn a_gap_is_released_when_every_holder_is_gone_and_closes_only_at_a_later_look() {
    let mut gaps = found(&[(5, 5)]);
    gaps.locks_held(&HashSet::from(["3/7".to_owned(), "4/1".to_owned()]));
    gaps.locks_held(&HashSet::from(["4/1".to_owned(), "3/8".to_owned()]));
    look_and_close(&mut gaps, 0);
    assert_eq!(open(&gaps), [(5, 5)], "4/1 may still commit it");
    gaps.locks_held(&HashSet::from(["3/8".to_owned()]));
    assert_eq!(
        open(&gaps),
        [(5, 5)],
        "it may have been committed since the last look"
    );
    look_and_close(&mut gaps, 0);
    assert_eq!(open(&gaps), []);
}

#[test]
fn a_prepared_transaction_holds_every_gap_for_it_may_be_any_holder() {
    let mut gaps = found(&[(5, 5)]);
    gaps.locks_held(&HashSet::from(["3/7".to_owned()]));
    gaps.locks_held(&HashSet::from(["-1/812".to_owned()]));
    look_and_close(&mut gaps, 0);
    assert_eq!(open(&gaps), [(5, 5)]);
    gaps.locks_held(&HashSet::new());
    look_and_close(&mut gaps, 0);
    assert_eq!(open(&gaps), []);
}

#[test]
fn a_new_timeline_fences_every_gap_again() {
    let stored = StoredGap {
        lo: 5,
        hi: 6,
        fence: Some(700),
        age: Duration::from_secs(1),
    };
    let mut same = Gaps::load(vec![stored.clone()], true, NOW);
    look_and_close(&mut same, 700);
    assert_eq!(open(&same), []);
    let mut promoted = Gaps::load(vec![stored], false, NOW);
    look_and_close(&mut promoted, u64::MAX);
    assert_eq!(open(&promoted), [(5, 6)]);
    assert_eq!(settle(&mut promoted, 10, &[], 50).write.len(), 1);
    look_and_close(&mut promoted, 50);
    assert_eq!(open(&promoted), []);
}

#[test]
fn more_gaps_than_one_page_bears_take_turns() {
    let many: Vec<_> = (0..3_000).map(|i| (i * 2 + 1, i * 2 + 1)).collect();
    let mut gaps = found(&many);
    let first = gaps.look_up(NOW);
    let second = gaps.look_up(NOW);
    let seen: BTreeSet<Seq> = first.seqs.iter().chain(&second.seqs).copied().collect();
    assert_eq!(seen.len(), 3_000);
}

#[test]
fn a_look_up_that_was_cut_short_closes_nothing_behind_the_cut() {
    let mut gaps = found(&[(5, 5), (9, 9)]);
    gaps.settled(&GapChanges::default(), &[], 1);
    let mut looked = gaps.look_up(NOW);
    looked.cut(&[Some(7)]);
    gaps.close(&looked, 10);
    assert_eq!(open(&gaps), [(9, 9)]);
}

#[test]
fn an_old_gap_is_looked_at_ten_times_a_second_and_a_young_one_at_once() {
    let mut gaps = found(&[(5, 5)]);
    assert!(gaps.wants_a_look(NOW));
    gaps.look_up(NOW);
    assert!(gaps.wants_a_look(NOW + Duration::from_micros(1)));
    let hour = NOW + Duration::from_secs(3_600);
    gaps.look_up(hour);
    assert!(!gaps.wants_a_look(hour + Duration::from_millis(99)));
    assert!(gaps.wants_a_look(hour + Duration::from_millis(100)));
}

#[test]
fn locks_are_read_for_old_gaps_only_and_not_all_the_time() {
    let mut gaps = found(&[(5, 5)]);
    assert!(!gaps.wants_locks(NOW + Duration::from_millis(100)));
    let later = NOW + Duration::from_secs(1);
    assert!(gaps.wants_locks(later));
    assert!(!gaps.wants_locks(later + Duration::from_millis(1)));
}
