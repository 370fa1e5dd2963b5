//! From a page to the batches that stand for it.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};
use outbox_core::{Batch, DeliveryState, Fence, KeyRef, Page, Pending, Seq};

use super::changes::{Changes, row};
use super::ranges::normalise;
use crate::keys::{Keys, Park};
use crate::limits;
use crate::telemetry::Meters;

/// A stretch of the log on its way to the broker. It is settled when all of it is dealt with.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// Order of the pages, for stretches that come back from the publisher.
    pub serial: u64,
    /// Where it ends.
    pub through: Seq,
    /// What is not yet handed out.
    pub messages: Vec<Pending>,
    /// When the first of them was enqueued, late ones aside.
    pub oldest: Option<DateTime<Utc>>,
    /// Late seqs it accounts for.
    pub late: Vec<Seq>,
    /// What its last batch says of the log; `None` once said.
    pub covers: Option<Covers>,
    /// Rows and markers to be written with it.
    pub changes: Changes,
}

/// A range of the log with the seqs in it that may still come.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Covers {
    pub from: Seq,
    pub through: Seq,
    pub except: Vec<(Seq, Seq)>,
}

impl Stretch {
    /// The stretch a page stands for.
    pub(crate) fn of(page: Page, serial: u64) -> Self {
        let late = page.messages.iter().take_while(|m| m.late).map(|m| m.seq);
        let late: Vec<Seq> = late.collect();
        let covers = (page.through >= page.from).then_some(Covers {
            from: page.from,
            through: page.through,
            except: page.gaps,
        });
        Self {
            serial,
            through: page.through,
            oldest: page.messages.get(late.len()).map(|m| m.created_at),
            late,
            covers,
            messages: page.messages,
            changes: Changes::default(),
        }
    }

    /// A seq of this stretch that may still come.
    pub(crate) fn may_come(&mut self, seq: Seq) {
        if let Some(covers) = &mut self.covers
            && (covers.from..=covers.through).contains(&seq)
        {
            covers.except.push((seq, seq));
        }
    }
}

/// What decides about a message before it is sent.
pub(crate) struct Planner<'a> {
    pub keys: &'a mut Keys,
    pub meters: &'a Meters,
    pub now: DateTime<Utc>,
    /// The broker keeps the order of a batch; without it, waves.
    pub ordered_batches: bool,
    pub fence: &'a Fence,
    pub low_water: Seq,
    /// The range of earlier stretches that had nothing to send.
    pub carried: &'a mut Option<Covers>,
}

impl Planner<'_> {
    /// Takes the messages out of `stretch` that can be sent now, as batches; the others become
    /// rows in its changes.
    pub(crate) fn plan(&mut self, stretch: &mut Stretch) -> VecDeque<Batch> {
        let mut messages = std::mem::take(&mut stretch.messages);
        if let Some(first) = messages.iter().position(|m| self.diverts(m)) {
            let rest = messages.split_off(first);
            messages.extend(rest.into_iter().filter_map(|m| self.divert(m, stretch)));
        }
        let covers = self.covers(stretch);
        if messages.is_empty() {
            *self.carried = covers;
            return VecDeque::new();
        }
        let mut batches = self.batches(messages);
        if let (Some(last), Some(mut covers)) = (batches.back_mut(), covers) {
            normalise(&mut covers.except);
            last.range = Some((covers.from, covers.through));
            last.except = covers.except;
        }
        batches
    }

    /// Whether a message might not simply be sent. With no blocked keys, as usual, nothing is
    /// hashed and nothing allocated.
    fn diverts(&self, message: &Pending) -> bool {
        message.expires_at.is_some()
            || message.deliver_after.is_some()
            || (!self.keys.is_empty() && message.key.is_some())
    }

    /// The message, if it is to be sent now.
    fn divert(&mut self, message: Pending, stretch: &mut Stretch) -> Option<Pending> {
        if has_expired(&message, self.now) {
            self.meters.expired.increment(1);
            stretch
                .changes
                .upsert(row(&message, DeliveryState::Expired));
            return None;
        }
        if let Some(at) = message.deliver_after {
            if at <= self.now {
                return Some(message);
            }
            self.meters.scheduled.increment(1);
            let mut scheduled = row(&message, DeliveryState::Scheduled);
            scheduled.next_attempt = Some(at);
            stretch.changes.upsert(scheduled);
            stretch.may_come(message.seq);
            return None;
        }
        match message.key_ref() {
            Some(key) if self.keys.contains(&key) => {
                park(self.keys, self.meters, &message, &key, stretch);
                None
            }
            _ => Some(message),
        }
    }

    /// The range this stretch can speak for, that of silent ones before it included.
    fn covers(&mut self, stretch: &mut Stretch) -> Option<Covers> {
        let Some(mut own) = stretch.covers.take() else {
            return self.carried.take();
        };
        match self.carried.take() {
            Some(carried) if carried.through + 1 == own.from => {
                own.from = carried.from;
                own.except.extend(carried.except);
            }
            _ => {}
        }
        if own.except.len() > limits::CARRIED_RANGES_MAX {
            normalise(&mut own.except);
        }
        (own.except.len() <= limits::CARRIED_RANGES_MAX).then_some(own)
    }

    fn batches(&self, messages: Vec<Pending>) -> VecDeque<Batch> {
        let waves = if self.ordered_batches {
            VecDeque::from([messages])
        } else {
            waves(messages)
        };
        let batch = |messages| batch(self.fence, self.low_water, messages);
        waves.into_iter().map(batch).collect()
    }
}

/// A batch that says nothing of the log.
pub(crate) fn batch(fence: &Fence, low_water: Seq, messages: Vec<Pending>) -> Batch {
    Batch {
        fence: fence.clone(),
        messages,
        low_water,
        range: None,
        except: Vec::new(),
    }
}

/// Parks `message` behind its blocked key.
pub(crate) fn park(
    keys: &mut Keys,
    meters: &Meters,
    message: &Pending,
    key: &KeyRef,
    stretch: &mut Stretch,
) {
    meters.parked.increment(1);
    match keys.park(key, message.seq, message.late) {
        Park::Row => {
            let mut parked = row(message, DeliveryState::Parked);
            parked.blocks_key = true;
            stretch.changes.upsert(parked);
        }
        Park::NewMarker => stretch.changes.marker(key.clone(), Some(message.seq)),
        Park::Absorbed => {}
    }
    stretch.may_come(message.seq);
}

/// Whether `message` may no longer be sent. One that an operator asked for again may.
pub(crate) fn has_expired(message: &Pending, now: DateTime<Utc>) -> bool {
    message.redelivery == 0 && message.expires_at.is_some_and(|at| at <= now)
}

/// Splits messages into waves in which a key appears once; the n-th wave holds the n-th message
/// of each key.
pub(crate) fn waves(messages: Vec<Pending>) -> VecDeque<Vec<Pending>> {
    let mut waves: VecDeque<Vec<Pending>> = VecDeque::new();
    let mut seen: HashMap<KeyRef, usize> = HashMap::new();
    for message in messages {
        let wave = match message.key_ref() {
            None => 0,
            Some(key) => {
                let count = seen.entry(key).or_default();
                *count += 1;
                *count - 1
            }
        };
        if waves.len() <= wave {
            waves.push_back(Vec::new());
        }
        waves[wave].push(message);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{fence, pending};
    use chrono::TimeDelta;

    struct Bench {
        keys: Keys,
        meters: Meters,
        carried: Option<Covers>,
        fence: Fence,
        now: DateTime<Utc>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                keys: Keys::default(),
                meters: Meters::new("d"),
                carried: None,
                fence: fence(),
                now: Utc::now(),
            }
        }

        fn plan(&mut self, stretch: &mut Stretch, ordered_batches: bool) -> VecDeque<Batch> {
            Planner {
                keys: &mut self.keys,
                meters: &self.meters,
                now: self.now,
                ordered_batches,
                fence: &self.fence,
                low_water: 1,
                carried: &mut self.carried,
            }
            .plan(stretch)
        }
    }

    fn page(from: Seq, through: Seq, messages: Vec<Pending>, gaps: Vec<(Seq, Seq)>) -> Stretch {
        let page = Page {
            messages,
            from,
            through,
            gaps,
            ..Page::default()
        };
        Stretch::of(page, 0)
    }

    fn seqs(batch: &Batch) -> Vec<Seq> {
        batch.messages.iter().map(|m| m.seq).collect()
    }

    #[test]
    fn an_ordinary_page_becomes_one_batch_without_copying_a_message() {
        let messages: Vec<_> = (1..=8_192).map(|seq| pending(seq, Some("k"))).collect();
        let before = messages.as_ptr();
        let mut stretch = page(1, 8_192, messages, vec![]);
        let batches = Bench::new().plan(&mut stretch, true);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].messages.as_ptr(), before);
        assert_eq!(batches[0].range, Some((1, 8_192)));
        assert!(stretch.changes.is_empty());
    }

    #[test]
    fn what_may_still_come_is_excepted_and_what_never_will_is_not() {
        let mut bench = Bench::new();
        let mut scheduled = pending(4, Some("s"));
        scheduled.deliver_after = Some(bench.now + TimeDelta::hours(1));
        let mut expired = pending(5, None);
        expired.expires_at = Some(bench.now);
        let blocked = pending(6, Some("blocked"));
        bench.keys.block(&blocked.key_ref().expect("has a key"));
        let mut late = pending(1, Some("blocked"));
        late.late = true;
        let messages = vec![late, pending(3, Some("k")), scheduled, expired, blocked];
        let mut stretch = page(3, 10, messages, vec![(7, 8)]);
        let batches = bench.plan(&mut stretch, true);
        assert_eq!(seqs(&batches[0]), [3]);
        assert_eq!(batches[0].range, Some((3, 10)));
        assert_eq!(
            batches[0].except,
            [(4, 4), (6, 8)],
            "1 is outside, 5 never comes"
        );
        assert_eq!(stretch.late, [1]);
    }

    #[test]
    fn stretches_without_anything_to_send_are_spoken_for_by_the_next_batch() {
        let mut bench = Bench::new();
        assert!(
            bench
                .plan(&mut page(1, 5, vec![], vec![(2, 2)]), true)
                .is_empty()
        );
        assert!(bench.plan(&mut page(6, 5, vec![], vec![]), true).is_empty());
        let batches = bench.plan(&mut page(6, 9, vec![pending(9, None)], vec![]), true);
        assert_eq!(batches[0].range, Some((1, 9)));
        assert_eq!(batches[0].except, [(2, 2)]);
        assert_eq!(bench.carried, None);
    }

    #[test]
    fn without_ordered_batches_a_key_appears_once_in_a_wave() {
        let keys = [
            Some("a"),
            Some("b"),
            None,
            Some("a"),
            None,
            Some("a"),
            Some("b"),
        ];
        let messages = keys
            .iter()
            .enumerate()
            .map(|(at, key)| pending(at as Seq, *key));
        let batches = Bench::new().plan(&mut page(0, 6, messages.collect(), vec![]), false);
        let waves: Vec<_> = batches.iter().map(seqs).collect();
        assert_eq!(waves, [vec![0, 1, 2, 4], vec![3, 6], vec![5]]);
        assert_eq!(
            batches[0].range, None,
            "only the last wave speaks for the page"
        );
        assert_eq!(batches[2].range, Some((0, 6)));
    }

    #[test]
    fn a_message_that_was_asked_for_again_does_not_expire() {
        let mut message = pending(1, None);
        message.expires_at = Some(DateTime::UNIX_EPOCH);
        assert!(has_expired(&message, Utc::now()));
        message.redelivery = 1;
        assert!(!has_expired(&message, Utc::now()));
    }
}
