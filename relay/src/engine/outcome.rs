//! What becomes of a stretch when not all of it was sent.

use std::collections::HashSet;

use outbox_core::{DeliveryState, Failure, KeyRef, Order, Outcome, Pending};

use super::Engine;
use super::changes::{cut, row};
use super::publisher::Report;
use super::stretch::{Covers, Stretch, park};

impl Engine {
    /// Books the failures of a stretch, and puts what was not tried back in its place.
    pub(super) fn stretch_came_back(&mut self, mut stretch: Stretch, report: Report) {
        // A stretch that came back untried keeps its place, even with nothing to send: the one in
        // front of it is not over.
        let untried = report.answered.is_empty();
        for batch in report.unsent {
            if let Some((from, through)) = batch.range {
                let except = batch.except;
                stretch.covers = Some(Covers {
                    from,
                    through,
                    except,
                });
            }
            // Waves hold each key's messages one after the other: put together they are in order
            // again within each key, which is all that is promised.
            stretch.messages.extend(batch.messages);
        }
        let mut touched = HashSet::new();
        for answered in report.answered {
            for (message, outcome) in answered.batch.messages.iter().zip(answered.outcomes) {
                if let Outcome::Failed(failure) = outcome {
                    self.failed(message, &failure, &mut touched, &mut stretch);
                }
            }
        }
        self.hold_back(&touched, &mut stretch);
        if stretch.messages.is_empty() && !untried {
            self.stretch_is_over(stretch);
        } else {
            let at = self.backlog.partition_point(|s| s.serial < stretch.serial);
            self.backlog.insert(at, stretch);
        }
    }

    /// Later messages of a key that failed wait for the settle of their own page, even where a
    /// dead message does not block: after a crash in between it would be read, and sent, again,
    /// behind them.
    fn hold_back(&mut self, touched: &HashSet<KeyRef>, stretch: &mut Stretch) {
        if touched.is_empty() {
            return;
        }
        for message in std::mem::take(&mut stretch.messages) {
            let key = message.key_ref().filter(|key| touched.contains(key));
            match key {
                Some(key) if self.keeps_order(&message) => {
                    park(
                        &mut self.keys,
                        &self.context.meters,
                        &message,
                        &key,
                        stretch,
                    );
                }
                _ => stretch.messages.push(message),
            }
        }
    }

    /// A message failed for the first time.
    fn failed(
        &mut self,
        message: &Pending,
        failure: &Failure,
        touched: &mut HashSet<KeyRef>,
        stretch: &mut Stretch,
    ) {
        let ordered = self.keeps_order(message);
        let key = message.key_ref();
        let follows = key.as_ref().is_some_and(|key| {
            !touched.insert(key.clone()) || (ordered && self.keys.contains(key))
        });
        match key {
            // An earlier message of its key failed in this batch, so this one was not stored: it
            // waits its turn, and has not had an attempt.
            Some(key) if follows && ordered => {
                park(&mut self.keys, &self.context.meters, message, &key, stretch);
            }
            Some(_) if follows => {
                let mut untried = row(message, DeliveryState::Retrying);
                untried.next_attempt =
                    Some(self.context.clock.now() + self.destination.retry.delay(1));
                untried.last_error = Some(cut(&failure.text));
                stretch.changes.upsert(untried);
                stretch.may_come(message.seq);
            }
            key => {
                let judged = self.judge(message, failure, ordered);
                if let (true, Some(key)) = (judged.blocks_key, key) {
                    self.keys.block(&key);
                }
                if judged.state == DeliveryState::Retrying {
                    stretch.may_come(message.seq);
                }
                stretch.changes.upsert(judged);
            }
        }
    }

    /// Whether later messages of its key wait for this one.
    pub(super) fn keeps_order(&self, message: &Pending) -> bool {
        self.destination.order == Order::Key
            && message.key.is_some()
            && message.deliver_after.is_none()
    }
}
