//! Gaps: seqs that were taken but are not there (yet).
//!
//! A seq is taken before its transaction commits, so a reader sees 7 before 6. Skipping 6 loses a
//! message, waiting for the oldest transaction stalls everything behind one long one. So 6 becomes a
//! gap: it is looked up with every later page, delivered late if it appears, and forgotten once no
//! transaction is left that could commit it. `docs/gaps.md` has the proof; this module keeps the
//! books and knows no database.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use outbox_core::Seq;

/// A gap this old is also closed by locks: `xmin` is held back by any transaction of the cluster,
/// even in another database, and then closes nothing.
const LOCK_RULE_AGE: Duration = Duration::from_millis(400);

/// How often the lock table is read while such a gap is open.
const LOCK_READ_PERIOD: Duration = Duration::from_millis(250);

/// Most single seqs looked up with one page; further ones take their turn with the next pages.
const LOOK_UP_SEQS_MAX: usize = 2_048;

/// Most long ranges looked up with one page, each an arm of the page's statement.
const LOOK_UP_RANGES_MAX: usize = 16;

/// Up to this length a gap is looked up seq by seq; a longer one (a bulk insert that rolled back)
/// as a range.
const SINGLE_SEQS_MAX: i64 = 64;

/// Longest time between two looks at an open gap, so that one that stays open for hours costs
/// little: a late message waits so much longer.
const LOOK_PERIOD_MAX: Duration = Duration::from_millis(100);

/// How a prepared transaction appears in the lock table: it has no backend.
const PREPARED: &str = "-1/";

/// One open gap; its first seq is the key it is kept under.
#[derive(Clone, Debug)]
struct Gap {
    hi: Seq,
    /// Every transaction that could hold one of the seqs has an xid below this one. `None` until a
    /// settle has taken an xid after the page that found the gap.
    fence: Option<u64>,
    opened: Duration,
    /// Transactions that held the lock on the log when the lock table was first read after the gap
    /// was found, and still do.
    holders: Option<HashSet<String>>,
    /// No holder is left: if the next page lacks the row, it will never come.
    released: bool,
}

/// What a page looks up beside its own stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookUp {
    /// Single seqs.
    pub(crate) seqs: Vec<Seq>,
    /// Ranges, both ends included.
    pub(crate) ranges: Vec<(Seq, Seq)>,
}

impl LookUp {
    /// Whether there is nothing to look up.
    pub(crate) fn is_empty(&self) -> bool {
        self.seqs.is_empty() && self.ranges.is_empty()
    }

    /// What is left when each arm (the single seqs if there are any, then each range) was cut behind a
    /// seq: the rest was not looked at.
    pub(crate) fn cut(&mut self, cuts: &[Option<Seq>]) {
        let mut cuts = cuts.iter().copied();
        if !self.seqs.is_empty()
            && let Some(last) = cuts.next().flatten()
        {
            self.seqs.retain(|&seq| seq <= last);
        }
        for range in &mut self.ranges {
            if let Some(last) = cuts.next().flatten() {
                range.1 = range.1.min(last);
            }
        }
    }
}

/// A range as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredGap {
    pub(crate) lo: Seq,
    pub(crate) hi: Seq,
    /// `None`: the xid of the settle that writes it.
    pub(crate) fence: Option<u64>,
    /// How long it has been open.
    pub(crate) age: Duration,
}

/// What a settle changes in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GapChanges {
    /// By their `lo`.
    pub(crate) remove: Vec<Seq>,
    pub(crate) write: Vec<StoredGap>,
}

impl GapChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.write.is_empty()
    }
}

/// Every gap of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    /// Open gaps by first seq; they never overlap.
    open: BTreeMap<Seq, Gap>,
    /// Seqs that appeared late and were handed out, with their gap's fence and opening: in the store they
    /// stay gaps until they are settled, so that a crash in between delivers them again.
    late: BTreeMap<Seq, (Option<u64>, Duration)>,
    /// What the store holds: `lo` to `hi`.
    stored: BTreeMap<Seq, Seq>,
    /// When gaps were last looked up, and when the lock table was last read.
    looked_at: Option<Duration>,
    locks_read_at: Option<Duration>,
    /// Where the next look-up goes on when not all fit into one.
    turn: Seq,
}

impl Gaps {
    /// Takes over what the store holds. `fences_hold`: false on a new timeline, where every gap
    /// gets a new fence.
    pub(crate) fn load(stored: Vec<StoredGap>, fences_hold: bool, now: Duration) -> Self {
        let mut gaps = Self::default();
        for gap in stored {
            gaps.stored.insert(gap.lo, gap.hi);
            let fence = gap.fence.filter(|_| fences_hold);
            gaps.insert(gap.lo, gap.hi, fence, now.saturating_sub(gap.age));
        }
        gaps
    }

    fn insert(&mut self, lo: Seq, hi: Seq, fence: Option<u64>, opened: Duration) {
        let gap = Gap {
            hi,
            fence,
            opened,
            holders: None,
            released: false,
        };
        self.open.insert(lo, gap);
    }

    /// A page found these seqs missing.
    pub(crate) fn discover(&mut self, missing: &[(Seq, Seq)], now: Duration) {
        for &(lo, hi) in missing {
            self.insert(lo, hi, None, now);
        }
    }

    /// How many gaps are open, and the age of the oldest.
    pub(crate) fn count_and_age(&self, now: Duration) -> (u64, Duration) {
        let oldest = self.open.values().map(|gap| gap.opened).min();
        let age = oldest.map_or(Duration::ZERO, |opened| now.saturating_sub(opened));
        (self.open.len() as u64, age)
    }

    /// Whether it is time to look gaps up again: often while they are young, rarely once they are old.
    pub(crate) fn wants_a_look(&self, now: Duration) -> bool {
        let youngest = self.open.values().map(|gap| gap.opened).max();
        let (Some(opened), Some(looked_at)) = (youngest, self.looked_at) else {
            return youngest.is_some();
        };
        now.saturating_sub(looked_at) >= look_period(now.saturating_sub(opened))
    }

    /// What the next page looks up. Takes turns when there are more gaps than one page bears.
    pub(crate) fn look_up(&mut self, now: Duration) -> LookUp {
        self.looked_at = Some(now);
        let mut look = LookUp::default();
        let turn = self.turn;
        let in_turn = self.open.range(turn..).chain(self.open.range(..turn));
        for (&lo, gap) in in_turn {
            let long = gap.hi - lo >= SINGLE_SEQS_MAX;
            let full = if long {
                look.ranges.len() >= LOOK_UP_RANGES_MAX
            } else {
                look.seqs.len() >= LOOK_UP_SEQS_MAX
            };
            if full {
                self.turn = lo;
                break;
            }
            if long {
                look.ranges.push((lo, gap.hi));
            } else {
                look.seqs.extend(lo..=gap.hi);
            }
        }
        look
    }

    /// A row of an open gap was seen. `ours`: it is handed out, and stays a gap in the store until
    /// it is settled. Answers whether it was in an open gap.
    pub(crate) fn saw(&mut self, seq: Seq, ours: bool) -> bool {
        let Some((&lo, gap)) = self.open.range(..=seq).next_back() else {
            return false;
        };
        if gap.hi < seq {
            return false;
        }
        let gap = gap.clone();
        self.open.remove(&lo);
        if ours {
            self.late.insert(seq, (gap.fence, gap.opened));
        }
        if seq < gap.hi {
            self.open.insert(seq + 1, gap.clone());
        }
        if lo < seq {
            self.open.insert(lo, Gap { hi: seq - 1, ..gap });
        }
        true
    }

    /// Forgets the gaps that were looked up in a snapshot with this `xmin`, were not there, and
    /// can no longer come.
    pub(crate) fn close(&mut self, looked_up: &LookUp, xmin: u64) {
        let seqs: HashSet<Seq> = looked_up.seqs.iter().copied().collect();
        let dead = |lo: Seq, gap: &Gap| {
            let examined = seqs.contains(&lo) && seqs.contains(&gap.hi)
                || looked_up
                    .ranges
                    .iter()
                    .any(|&(from, to)| from <= lo && gap.hi <= to);
            examined && (gap.released || gap.fence.is_some_and(|fence| fence <= xmin))
        };
        self.open.retain(|&lo, gap| !dead(lo, gap));
    }

    /// Whether the lock table should be read now, after the page.
    pub(crate) fn wants_locks(&mut self, now: Duration) -> bool {
        let (_, age) = self.count_and_age(now);
        let read = self
            .locks_read_at
            .is_none_or(|at| now.saturating_sub(at) >= LOCK_READ_PERIOD);
        let wants = age >= LOCK_RULE_AGE && read;
        if wants {
            self.locks_read_at = Some(now);
        }
        wants
    }

    /// The transactions that hold the lock now. A gap that has outlived all those that held it
    /// when it was first compared is released.
    pub(crate) fn locks_held(&mut self, now: &HashSet<String>) {
        // PREPARE renames its transaction, so a prepared one may be any of the holders.
        let prepared = now.iter().any(|holder| holder.starts_with(PREPARED));
        for gap in self.open.values_mut() {
            let left: HashSet<String> = match &gap.holders {
                None => now.clone(),
                Some(holders) => holders.intersection(now).cloned().collect(),
            };
            gap.released = left.is_empty() && !prepared;
            gap.holders = Some(left);
        }
    }

    /// What a settle up to `through` has to change in the store. `settled`: late seqs that are now accounted
    /// for.
    pub(crate) fn changes(&self, through: Seq, settled: &[Seq], now: Duration) -> GapChanges {
        let target = self.target(through, settled, now);
        let kept = |lo: &Seq| target.contains_key(lo);
        let remove = self.stored.keys().copied().filter(|lo| !kept(lo)).collect();
        let write = target
            .into_values()
            // A gap without a fence is written (again): the settle's xid becomes its fence.
            .filter(|gap| gap.fence.is_none() || self.stored.get(&gap.lo) != Some(&gap.hi))
            .collect();
        GapChanges { remove, write }
    }

    /// What the store should hold: gaps up to the cursor, and unsettled late seqs.
    fn target(&self, through: Seq, settled: &[Seq], now: Duration) -> BTreeMap<Seq, StoredGap> {
        let age = |opened: Duration| now.saturating_sub(opened);
        let open = self.open.range(..=through).map(|(&lo, gap)| StoredGap {
            lo,
            // Beyond the cursor a new session reads anyway, and would find the rest twice.
            hi: gap.hi.min(through),
            fence: gap.fence,
            age: age(gap.opened),
        });
        let late = self
            .late
            .range(..=through)
            .filter(|(seq, _)| !settled.contains(seq));
        let late = late.map(|(&seq, &(fence, opened))| StoredGap {
            lo: seq,
            hi: seq,
            fence,
            age: age(opened),
        });
        open.chain(late).map(|gap| (gap.lo, gap)).collect()
    }

    /// The settle committed, with transaction `xid`: it fences everything found before it.
    pub(crate) fn settled(&mut self, changes: &GapChanges, settled: &[Seq], xid: u64) {
        for lo in &changes.remove {
            self.stored.remove(lo);
        }
        for gap in &changes.write {
            self.stored.insert(gap.lo, gap.hi);
        }
        for seq in settled {
            self.late.remove(seq);
        }
        for gap in self.open.values_mut() {
            gap.fence.get_or_insert(xid);
        }
        for (fence, _) in self.late.values_mut() {
            fence.get_or_insert(xid);
        }
    }

    /// The lowest seq that may still be delivered late.
    pub(crate) fn lowest(&self) -> Option<Seq> {
        let open = self.open.keys().next().copied();
        let late = self.late.keys().next().copied();
        open.into_iter().chain(late).min()
    }
}

/// How long to wait between two looks at something that has been missing for `age`.
pub(crate) fn look_period(age: Duration) -> Duration {
    (age / 8).min(LOOK_PERIOD_MAX)
}

/// The seqs of `from..=through` that are not in `seen` (sorted), as ranges.
pub(crate) fn missing(from: Seq, through: Seq, seen: impl Iterator<Item = Seq>) -> Vec<(Seq, Seq)> {
    let mut ranges = Vec::new();
    let mut next = from;
    for seq in seen {
        if seq > next {
            ranges.push((next, seq - 1));
        }
        next = seq + 1;
    }
    if next <= through {
        ranges.push((next, through));
    }
    ranges
}

#[cfg(test)]
#[path = "gaps_tests.rs"]
mod tests;
