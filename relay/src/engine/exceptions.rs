//! Messages with a delivery row: what is due, and what is parked behind a key that is free again.
//!
//! They are sent in turns of their own, while no stretch of the log is out or waiting: so nothing
//! is parked or absorbed by a marker between reading a key's followers and having sent them.

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, Utc};
use outbox_core::{
    Batch, DeliveryState, Failure, KeyRef, OnDead, Outcome, PageLimit, Parked, Pending, Seq,
    Waiting,
};

use super::changes::{Changes, cut, row};
use super::publisher::{Report, Work};
use super::stretch::{batch, has_expired, waves};
use super::{Ended, Engine};
use crate::limits;

/// Where a message of a turn comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A row that was due; whether it blocks its key.
    Due { blocks: bool },
    /// A parked row.
    Parked,
    /// Re-read from the log, behind the marker of its key.
    Marked,
}

/// What a turn collected.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    origins: HashMap<Seq, Origin>,
    /// Keys re-read behind their marker, and up to where.
    scans: HashMap<KeyRef, Seq>,
    changes: Changes,
}

/// Messages of a turn, within bounds.
struct Load {
    messages: Vec<Pending>,
    bytes: usize,
}

impl Exceptions {
    /// Every message of a turn has one; a stranger would be treated like a row that is not ours.
    fn origin(&self, message: &Pending) -> Origin {
        let due = Origin::Due { blocks: false };
        self.origins.get(&message.seq).copied().unwrap_or(due)
    }
}

impl Load {
    fn room(&self, limit: PageLimit) -> Option<PageLimit> {
        let rows = limits::EXCEPTION_ROWS_MAX.checked_sub(self.messages.len())?;
        let bytes = limit.bytes.checked_sub(self.bytes)?;
        (rows > 0 && bytes > 0).then_some(PageLimit { rows, bytes })
    }

    fn push(&mut self, message: Pending) {
        self.bytes += message.size();
        self.messages.push(message);
    }
}

impl Engine {
    /// Collects what is due or free and hands it to the publisher.
    pub(super) async fn turn(&mut self) -> Result<(), Ended> {
        self.streak += 1;
        if self.streak >= limits::TURNS_IN_A_ROW_MAX {
            self.pace.now();
        }
        let mut turn = Exceptions::default();
        let mut load = Load {
            messages: Vec::new(),
            bytes: 0,
        };
        self.collect_due(&mut turn, &mut load).await?;
        self.collect_parked(&mut turn, &mut load).await?;
        let batches = self.exception_batches(load.messages);
        self.publisher.send(batches, Work::Exceptions(turn));
        Ok(())
    }

    async fn collect_due(&mut self, turn: &mut Exceptions, load: &mut Load) -> Result<(), Ended> {
        let now = self.context.clock.now();
        if self.next_due.is_none_or(|at| at > now) {
            return Ok(());
        }
        let Some(limit) = load.room(self.context.options.page) else {
            return Ok(());
        };
        let due = super::bounded("due", self.session.due(now, limit)).await?;
        self.next_due = due.next;
        for waiting in due.messages {
            self.take_due(waiting, now, turn, load);
        }
        Ok(())
    }

    fn take_due(
        &mut self,
        waiting: Waiting,
        now: DateTime<Utc>,
        turn: &mut Exceptions,
        load: &mut Load,
    ) {
        let Waiting {
            message,
            blocks_key: blocks,
            ..
        } = waiting;
        if has_expired(&message, now) {
            self.expire(&message, Origin::Due { blocks }, turn);
            return;
        }
        turn.origins.insert(message.seq, Origin::Due { blocks });
        load.push(message);
    }

    async fn collect_parked(
        &mut self,
        turn: &mut Exceptions,
        load: &mut Load,
    ) -> Result<(), Ended> {
        for key in self.keys.take_ready(limits::DRAIN_KEYS_MAX) {
            let Some(limit) = load.room(self.context.options.page) else {
                return Ok(());
            };
            let parked = super::bounded("parked", self.session.parked(&key, limit)).await?;
            match parked.through {
                Some(through) => self.take_marked(&key, through, parked, turn, load),
                None => self.take_parked(&key, parked, turn, load)?,
            }
        }
        Ok(())
    }

    fn take_parked(
        &mut self,
        key: &KeyRef,
        parked: Parked,
        turn: &mut Exceptions,
        load: &mut Load,
    ) -> Result<(), Ended> {
        if parked.messages.is_empty() {
            if self.keys.marker(key).is_some() {
                return Err(super::unexpected(
                    "read parked messages",
                    "a key with a marker has neither rows nor a stretch to re-read",
                ));
            }
            // Somebody removed the rows: the count must not keep the key, and spin the loop.
            tracing::warn!(topic = %key.topic, key = %key.key, "no parked rows, though some were counted");
            self.keys.no_rows_parked(key);
        }
        let now = self.context.clock.now();
        for message in parked.messages {
            if has_expired(&message, now) {
                self.expire(&message, Origin::Parked, turn);
                continue;
            }
            turn.origins.insert(message.seq, Origin::Parked);
            load.push(message);
        }
        Ok(())
    }

    fn take_marked(
        &mut self,
        key: &KeyRef,
        through: Seq,
        parked: Parked,
        turn: &mut Exceptions,
        load: &mut Load,
    ) {
        self.keys.no_rows_parked(key);
        // What was not read as a page yet will come as one.
        let through = through.min(self.read_through);
        turn.scans.insert(key.clone(), through);
        let now = self.context.clock.now();
        let behind = parked.messages.into_iter().filter(|m| m.seq <= through);
        // Those with a due time were never parked: they have no place in the key's order.
        for message in behind.filter(|m| m.deliver_after.is_none()) {
            if has_expired(&message, now) {
                self.expire(&message, Origin::Marked, turn);
                continue;
            }
            turn.origins.insert(message.seq, Origin::Marked);
            load.push(message);
        }
    }

    fn expire(&mut self, message: &Pending, origin: Origin, turn: &mut Exceptions) {
        self.context.meters.expired.increment(1);
        turn.changes.upsert(row(message, DeliveryState::Expired));
        self.leave(message, origin);
    }

    /// A row stops waiting: sent, expired, or dead without blocking.
    fn leave(&mut self, message: &Pending, origin: Origin) {
        let key = message.key_ref();
        match (origin, key) {
            (Origin::Due { blocks: true }, Some(key)) => self.keys.unblock(&key),
            (Origin::Parked, Some(key)) => self.keys.unpark(&key),
            _ => {}
        }
        if origin != Origin::Marked {
            self.low_water.left(message.seq);
        }
    }

    fn exception_batches(&mut self, messages: Vec<Pending>) -> VecDeque<Batch> {
        let low_water = self.low_water.now(self.cursor, self.keys.lowest_marker());
        let groups = match (messages.is_empty(), self.ordered_batches) {
            (true, _) => VecDeque::new(),
            (false, true) => VecDeque::from([messages]),
            (false, false) => waves(messages),
        };
        groups
            .into_iter()
            .map(|group| batch(&self.fence, low_water, group))
            .collect()
    }

    /// Books what became of a turn.
    pub(super) fn turn_is_over(&mut self, mut turn: Exceptions, report: Report) {
        let mut touched: HashSet<KeyRef> = HashSet::new();
        let mut left_behind: Vec<Pending> = Vec::new();
        for answered in report.answered {
            for (message, outcome) in answered.batch.messages.into_iter().zip(answered.outcomes) {
                let origin = turn.origin(&message);
                match outcome {
                    Outcome::Sent(_) => {
                        if origin != Origin::Marked {
                            turn.changes.remove(message.seq);
                        }
                        self.leave(&message, origin);
                    }
                    Outcome::Failed(failure) => {
                        let own = message.key_ref().is_none_or(|key| touched.insert(key));
                        if own {
                            self.failed_again(&message, origin, &failure, &mut turn.changes);
                        } else {
                            // It stays as it is, behind the one of its key that failed.
                            left_behind.push(message);
                        }
                    }
                }
            }
        }
        left_behind.extend(report.unsent.into_iter().flat_map(|b| b.messages));
        if !left_behind.is_empty() {
            self.next_due = Some(self.context.clock.now());
        }
        self.move_markers(&mut turn, &left_behind);
        self.commit_changes(turn.changes);
    }

    /// A message of a turn failed on its own account.
    fn failed_again(
        &mut self,
        message: &Pending,
        origin: Origin,
        failure: &Failure,
        changes: &mut Changes,
    ) {
        let blocks = match origin {
            Origin::Due { blocks } => blocks,
            Origin::Parked | Origin::Marked => self.keeps_order(message),
        };
        let failed = self.judge(message, failure, blocks);
        match origin {
            Origin::Due { .. } if failed.state == DeliveryState::Retrying => {
                self.low_water.stays(message.seq);
            }
            Origin::Due { blocks: true } if failed.blocks_key => self.low_water.left(message.seq),
            Origin::Due { .. } => self.leave(message, origin),
            Origin::Parked | Origin::Marked => {
                // Blocked before it is unparked, or the key would be free in between.
                if failed.blocks_key
                    && let Some(key) = message.key_ref()
                {
                    self.keys.block(&key);
                }
                self.leave(message, origin);
            }
        }
        changes.upsert(failed);
    }

    /// Moves the markers that were read behind past what is dealt with.
    fn move_markers(&mut self, turn: &mut Exceptions, left_behind: &[Pending]) {
        let mut first_left: HashMap<KeyRef, Seq> = HashMap::new();
        for message in left_behind {
            if let (Origin::Marked, Some(key)) = (turn.origin(message), message.key_ref()) {
                let first = first_left.entry(key).or_insert(message.seq);
                *first = message.seq.min(*first);
            }
        }
        for (key, through) in std::mem::take(&mut turn.scans) {
            let passed = first_left.get(&key).map_or(through, |first| first - 1);
            let left = self.keys.passed(&key, passed);
            turn.changes.marker(key, left);
        }
    }

    /// What a failed attempt makes of a message: retried, or dead.
    pub(super) fn judge(
        &mut self,
        message: &Pending,
        failure: &Failure,
        blocks: bool,
    ) -> outbox_core::Exception {
        self.context.meters.failed.increment(1);
        let now = self.context.clock.now();
        let attempts = message.attempts.saturating_add(1);
        let next = match failure.class {
            outbox_core::Class::Permanent => None,
            _ => self.destination.retry.next_attempt(
                attempts,
                message.created_at,
                now,
                &mut self.rng,
            ),
        };
        let mut failed = row(message, DeliveryState::Retrying);
        failed.attempts = attempts;
        failed.next_attempt = next;
        failed.last_error = Some(cut(&failure.text));
        failed.blocks_key = blocks;
        if next.is_none() {
            failed.state = DeliveryState::Dead;
            failed.blocks_key = blocks && self.destination.on_dead == OnDead::BlockKey;
            self.context.meters.dead.increment(1);
            self.context.died(message, attempts, &failure.text);
        }
        failed
    }
}
