//! Which offset of a partition may be committed. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What became of one partition's records.
///
/// Three things hold the committable offset down: records that are with a worker, the place up to
/// which the partition was handed out, and, for a worker whose queue was full while it waited for
/// a retry, the place from which its records were left out. Memory is bounded by the queues.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Every record below was handed out, or left out for a worker that is behind.
    position: i64,
    /// Handed out and not finished.
    in_flight: BTreeSet<i64>,
    /// The first offset that was left out, by worker.
    behind: BTreeMap<usize, i64>,
    /// What was committed last.
    committed: i64,
}

impl Progress {
    /// Nothing was read yet; everything below `start` was finished by an earlier run.
    pub(crate) fn new(start: i64) -> Self {
        Self {
            position: start,
            in_flight: BTreeSet::new(),
            behind: BTreeMap::new(),
            committed: start,
        }
    }

    /// Hands out `offset`, the next one of the main pass.
    pub(crate) fn start(&mut self, offset: i64) {
        debug_assert!(offset >= self.position, "the main pass never goes back");
        self.in_flight.insert(offset);
        self.position = offset + 1;
    }

    /// Leaves `offset` out for `worker`, which is behind or falls behind now.
    pub(crate) fn leave_out(&mut self, worker: usize, offset: i64) {
        self.behind.entry(worker).or_insert(offset);
        self.position = offset + 1;
    }

    /// Hands out `offset`, which had been left out for a worker.
    pub(crate) fn start_late(&mut self, offset: i64) {
        self.in_flight.insert(offset);
    }

    /// Says that everything below `offset` that was left out for `worker` is handed out now. At
    /// the position of the main pass the worker is no longer behind.
    pub(crate) fn catch_up(&mut self, worker: usize, offset: i64) {
        if offset >= self.position {
            self.behind.remove(&worker);
        } else {
            self.behind.insert(worker, offset);
        }
    }

    /// The record was applied, skipped as a duplicate, or kept as a dead letter.
    pub(crate) fn finish(&mut self, offset: i64) {
        self.in_flight.remove(&offset);
    }

    /// Records from here to `offset` no longer exist at the source.
    pub(crate) fn skip_to(&mut self, offset: i64) {
        self.position = offset;
    }

    /// The first offset that was left out for `worker`, if it is behind.
    pub(crate) fn behind(&self, worker: usize) -> Option<i64> {
        self.behind.get(&worker).copied()
    }

    /// Where the main pass stands.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    /// The next offset to read after a restart: everything below it is finished.
    pub(crate) fn next(&self) -> i64 {
        let in_flight = self.in_flight.first().copied();
        let behind = self.behind.values().min().copied();
        let held = [in_flight, behind].into_iter().flatten().min();
        held.unwrap_or(self.position).min(self.position)
    }

    /// [`Progress::next`] where it was not committed yet.
    pub(crate) fn uncommitted(&self) -> Option<i64> {
        Some(self.next()).filter(|&next| next != self.committed)
    }

    /// `next` is committed.
    pub(crate) fn committed(&mut self, next: i64) {
        self.committed = next;
    }

    /// Whether a worker has a record of this partition.
    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// How many workers are behind.
    pub(crate) fn count_behind(&self) -> usize {
        self.behind.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORKERS: usize = 3;

    #[derive(Clone, Debug)]
    enum Step {
        /// The main pass goes on by one record; the source may have holes before it.
        Read { hole: i64, stalled: bool },
        /// One of the records in flight ends.
        Finish(prop::sample::Index),
        /// One worker looks at so many of the offsets it was left out of.
        CatchUp { worker: usize, records: usize },
        /// The offsets are committed.
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0i64..3, any::<bool>()).prop_map(|(hole, stalled)| Step::Read { hole, stalled }),
            4 => any::<prop::sample::Index>().prop_map(Step::Finish),
            2 => (0..WORKERS, 1usize..5).prop_map(|(worker, records)| Step::CatchUp { worker, records }),
            1 => Just(Step::Commit),
        ]
    }

    /// Every record of the partition, with what became of it.
    #[derive(Default)]
    struct Model {
        records: BTreeMap<i64, (usize, State)>,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum State {
        LeftOut,
        InFlight,
        Finished,
    }

    impl Model {
        fn in_state(&self, state: State) -> Vec<i64> {
            let hits = self.records.iter().filter(|(_, (_, s))| *s == state);
            hits.map(|(offset, _)| *offset).collect()
        }
    }

    fn take(step: Step, model: &mut Model, progress: &mut Progress) {
        match step {
            Step::Read { hole, stalled } => {
                let offset = progress.position() + hole;
                let worker = offset as usize % WORKERS;
                let state = if stalled || progress.behind(worker).is_some() {
                    progress.leave_out(worker, offset);
                    State::LeftOut
                } else {
                    progress.start(offset);
                    State::InFlight
                };
                model.records.insert(offset, (worker, state));
            }
            Step::Finish(index) => {
                let in_flight = model.in_state(State::InFlight);
                if !in_flight.is_empty() {
                    let offset = in_flight[index.index(in_flight.len())];
                    progress.finish(offset);
                    model.records.get_mut(&offset).expect("known").1 = State::Finished;
                }
            }
            Step::CatchUp { worker, records } => catch_up(worker, records, model, progress),
            Step::Commit => {
                let next = progress.next();
                progress.committed(next);
                assert_eq!(progress.uncommitted(), None);
            }
        }
    }

    fn catch_up(worker: usize, records: usize, model: &mut Model, progress: &mut Progress) {
        let Some(from) = progress.behind(worker) else {
            return;
        };
        let mut at = progress.position();
        for (n, (&offset, entry)) in model.records.range_mut(from..).enumerate() {
            if n == records {
                at = offset;
                break;
            }
            if entry.0 == worker {
                assert!(entry.1 == State::LeftOut);
                progress.start_late(offset);
                entry.1 = State::InFlight;
            }
        }
        progress.catch_up(worker, at);
    }

    proptest! {
        #[test]
        fn nothing_unfinished_lies_below_the_committable_offset_and_it_never_goes_back(
            start in 0i64..5, steps in prop::collection::vec(step(), 0..200)
        ) {
            let (mut model, mut progress) = (Model::default(), Progress::new(start));
            let mut last = start;
            for step in steps {
                take(step, &mut model, &mut progress);
                let next = progress.next();
                let unfinished = model.records.iter().find(|(_, (_, s))| *s != State::Finished);
                if let Some((&offset, _)) = unfinished {
                    prop_assert!(next <= offset, "{next} would skip {offset}");
                } else {
                    // Nothing is lost by waiting, but it must not wait for ever.
                    prop_assert!(next == progress.position() || progress.count_behind() > 0);
                }
                prop_assert!(next >= last, "went back from {last} to {next}");
                last = next;
            }
        }

        #[test]
        fn once_everything_is_finished_everything_is_committable(
            steps in prop::collection::vec(step(), 0..100)
        ) {
            let (mut model, mut progress) = (Model::default(), Progress::new(0));
            for step in steps {
                take(step, &mut model, &mut progress);
            }
            for worker in 0..WORKERS {
                catch_up(worker, usize::MAX, &mut model, &mut progress);
            }
            for offset in model.in_state(State::InFlight) {
                progress.finish(offset);
            }
            prop_assert!(!progress.is_busy() && progress.count_behind() == 0);
            prop_assert_eq!(progress.next(), progress.position());
        }
    }

    #[test]
    fn the_lowest_unfinished_offset_holds_the_commit() {
        let mut progress = Progress::new(10);
        for offset in 10..14 {
            progress.start(offset);
        }
        for offset in [13, 11, 12] {
            progress.finish(offset);
        }
        assert_eq!((progress.next(), progress.uncommitted()), (10, None));
        progress.finish(10);
        assert_eq!(progress.uncommitted(), Some(14));
    }
}
