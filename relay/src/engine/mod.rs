//! The loop of one destination: read a page, publish it, settle.
//!
//! One task owns the session and makes every decision; the publisher's task only publishes. What
//! the loop knows lives as long as the session and not longer: after any error of the store both
//! are dropped, and a new session reads everything again.
//!
//! - `stretch`: from a page to batches; who is sent, parked, scheduled, expired.
//! - `publisher`: batches in order, outages waited out.
//! - `outcome`, `exceptions`: what failed, and what gets another turn.
//! - `requests`: what operators asked for.
//! - `changes`, `low_water`, `pace`, `ranges`: what those are made of.

mod changes;
mod context;
mod exceptions;
mod low_water;
mod outcome;
mod pace;
mod publisher;
mod ranges;
mod requests;
mod stretch;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{Batch, Destination, Fence, Page, Seq, Session, StoreError};
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::limits;
use changes::{Changes, Ledger};
pub(crate) use context::{Context, Lead};
use low_water::LowWater;
use pace::Pace;
use publisher::{Publisher, Report, Verdict, Work};
use stretch::{Covers, Planner, Stretch};

/// Why the loop ended. Whatever it is, the session is over.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to: everything in flight is settled.
    Stopped,
    /// An operator changed something: open again, with the same lease.
    Changed,
    /// The lease's deadline passed.
    LeaseOver,
    /// The broker has seen a newer epoch.
    Fenced,
    /// The store failed.
    Store(StoreError),
}

/// One session's loop.
pub(crate) struct Engine {
    context: Arc<Context>,
    session: Box<dyn Session>,
    destination: Destination,
    control_version: i64,
    fence: Fence,
    ordered_batches: bool,
    publisher: Publisher,
    keys: Keys,
    low_water: LowWater,
    ledger: Ledger,
    /// The settled cursor.
    cursor: Seq,
    /// Where reading has got to.
    read_through: Seq,
    /// Stretches read and not handed out, in order.
    backlog: VecDeque<Stretch>,
    serial: u64,
    carried: Option<Covers>,
    /// There may be more right behind the last page.
    more: bool,
    pace: Pace,
    settled_at: Option<Instant>,
    /// When the next row is due, as far as known.
    next_due: Option<DateTime<Utc>>,
    /// Turns of exceptions since the log had its turn.
    streak: u32,
    /// A stretch came back broken: nothing is handed out until all that was out is back too.
    recall: bool,
    rng: StdRng,
}

impl Engine {
    /// Takes over a session that was just opened.
    pub(crate) fn new(context: Arc<Context>, session: Box<dyn Session>, epoch: i64) -> Self {
        let opened = session.opened();
        let destination = opened.destination.clone();
        let ordered = destination.order == outbox_core::Order::Key;
        let options = &context.options;
        Self {
            control_version: opened.control_version,
            fence: Fence {
                incarnation: opened.incarnation.as_str().into(),
                destination: context.name.clone(),
                epoch,
            },
            ordered_batches: context.broker.capabilities().ordered_batches,
            keys: Keys::load(&opened.keys, opened.cursor, ordered),
            low_water: LowWater::load(opened),
            ledger: Ledger::default(),
            cursor: opened.cursor,
            read_through: opened.cursor,
            backlog: VecDeque::new(),
            serial: 0,
            carried: None,
            more: true,
            pace: Pace::new(options.poll_busy, options.poll_idle),
            settled_at: None,
            next_due: (opened.waiting > 0).then(|| context.clock.now()),
            streak: 0,
            recall: false,
            rng: context.random(epoch.unsigned_abs()),
            publisher: Publisher::spawn(context.clone()),
            destination,
            session,
            context,
        }
    }

    /// Runs until asked to stop, or until the session cannot go on.
    ///
    /// # Cancellation
    /// Dropping it drops the session and what is in flight; what was not settled is sent again by
    /// the next leader.
    pub(crate) async fn run(mut self) -> Ended {
        let ended = match self.work().await {
            Ok(ended) | Err(ended) => ended,
        };
        if matches!(ended, Ended::Store(_)) {
            self.let_flight_land().await;
        }
        ended
    }

    /// The control flow of a destination, all of it.
    async fn work(&mut self) -> Result<Ended, Ended> {
        self.apply_requests().await?;
        loop {
            while let Some(report) = self.publisher.try_next() {
                self.take(report)?;
            }
            if self.context.deadline.is_over() {
                return Ok(Ended::LeaseOver);
            }
            if let Some(ended) = self.asked_to_end() {
                self.publisher.halt();
                self.finish().await?;
                return Ok(ended);
            }
            if self.settle_is_due() {
                self.settle().await?;
            } else if self.may_hand_out() {
                self.hand_out();
            } else if self.turn_is_wanted() {
                match self.publisher.out() + self.backlog.len() {
                    0 => self.turn().await?,
                    _ => self.rest().await?,
                }
            } else if self.read_is_wanted() {
                self.read().await?;
            } else {
                self.rest().await?;
            }
        }
    }

    fn asked_to_end(&self) -> Option<Ended> {
        if self.context.stop.is_cancelled() {
            return Some(Ended::Stopped);
        }
        let wanted = *self.context.control.borrow();
        (wanted > self.control_version).then_some(Ended::Changed)
    }

    /// Takes in what is in flight and settles it.
    async fn finish(&mut self) -> Result<(), Ended> {
        while self.publisher.out() > 0 {
            let report = self.publisher.next().await.ok_or_else(publisher_died)?;
            self.take(report)?;
        }
        self.settle().await
    }

    /// After a failure of the store: the batch in flight should reach its end before the next
    /// session sends the same messages, or their copies could mix.
    async fn let_flight_land(&mut self) {
        self.publisher.halt();
        let landing =
            async { while self.publisher.out() > 0 && self.publisher.next().await.is_some() {} };
        let patience = self.context.options.publish_timeout;
        // Dropping `landing` gives up waiting: the copies are duplicates, each in order.
        let _ = tokio::time::timeout(patience, landing).await;
    }

    fn take(&mut self, mut report: Report) -> Result<(), Ended> {
        match report.verdict {
            Verdict::LeaseOver => return Err(Ended::LeaseOver),
            Verdict::Fenced => return Err(Ended::Fenced),
            Verdict::Clean | Verdict::Broken => {}
        }
        self.recall |= report.verdict == Verdict::Broken;
        self.recall &= self.publisher.out() > 0;
        match std::mem::replace(&mut report.work, Work::Stretch(Stretch::default())) {
            Work::Stretch(stretch) if report.verdict == Verdict::Clean => {
                self.stretch_is_over(stretch);
            }
            Work::Stretch(stretch) => self.stretch_came_back(stretch, report),
            Work::Exceptions(turn) => self.turn_is_over(turn, report),
        }
        Ok(())
    }

    /// Everything of a stretch is sent, or in its changes.
    fn stretch_is_over(&mut self, stretch: Stretch) {
        self.note(&stretch.changes);
        self.context
            .meters
            .late
            .increment(stretch.late.len() as u64);
        self.ledger
            .passed(stretch.through, stretch.late, stretch.changes);
    }

    /// Rows changed without the cursor.
    fn commit_changes(&mut self, changes: Changes) {
        self.note(&changes);
        self.ledger.changed(changes);
    }

    /// Keeps what is known in memory in step with rows about to be written.
    fn note(&mut self, changes: &Changes) {
        for row in changes.rows() {
            self.low_water.wrote(row.seq, row.state);
        }
        self.next_due = [self.next_due, changes.next_due()]
            .into_iter()
            .flatten()
            .min();
    }

    fn settle_is_due(&self) -> bool {
        if self.ledger.is_urgent() {
            return true;
        }
        !self.ledger.is_empty() && self.settle_at().is_none_or(|at| Instant::now() >= at)
    }

    /// When the next settle may be; `None` for at once.
    fn settle_at(&self) -> Option<Instant> {
        Some(self.settled_at? + self.context.options.settle_interval)
    }

    async fn settle(&mut self) -> Result<(), Ended> {
        if self.ledger.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let settlement = self.ledger.take(self.cursor);
        bounded("settle", self.session.settle(&settlement)).await?;
        self.cursor = settlement.through.max(self.cursor);
        self.settled_at = Some(Instant::now());
        let meters = &self.context.meters;
        meters.settle.record(began.elapsed().as_secs_f64());
        meters.settles.increment(1);
        meters.cursor.set(self.cursor as f64);
        meters.blocked.set(self.keys.len() as f64);
        Ok(())
    }

    fn may_hand_out(&self) -> bool {
        let room = match self.ordered_batches {
            true => limits::JOBS_OUT_MAX,
            // A wave decides about the next one, a page's last wave about the next page.
            false => 1,
        };
        !self.recall && !self.backlog.is_empty() && self.publisher.out() < room
    }

    fn hand_out(&mut self) {
        let Some(mut stretch) = self.backlog.pop_front() else {
            return;
        };
        let batches = self.plan(&mut stretch);
        self.publisher.send(batches, Work::Stretch(stretch));
    }

    fn plan(&mut self, stretch: &mut Stretch) -> VecDeque<Batch> {
        let low_water = self.low_water.now(self.cursor, self.keys.lowest_marker());
        Planner {
            keys: &mut self.keys,
            meters: &self.context.meters,
            now: self.context.clock.now(),
            ordered_batches: self.ordered_batches,
            fence: &self.fence,
            low_water,
            carried: &mut self.carried,
        }
        .plan(stretch)
    }

    fn turn_is_wanted(&self) -> bool {
        let due = self
            .next_due
            .is_some_and(|at| at <= self.context.clock.now());
        (due || self.keys.has_ready()) && self.streak < limits::TURNS_IN_A_ROW_MAX
    }

    fn read_is_wanted(&self) -> bool {
        self.backlog.len() < limits::PAGES_READ_AHEAD
            && (self.more || Instant::now() >= self.pace.next())
    }

    async fn read(&mut self) -> Result<(), Ended> {
        self.streak = 0;
        let began = Instant::now();
        if !self.more && !bounded("poll", self.session.poll()).await? {
            self.pace.miss();
            return Ok(());
        }
        let limit = self.context.options.page;
        let page = bounded("page", self.session.page(limit)).await?;
        let found = !page.messages.is_empty() || page.through > self.read_through;
        match found {
            true => self.pace.hit(began),
            // A page may be read in vain while gaps are open.
            false => self.pace.miss(),
        }
        self.more = page.more && found;
        self.saw(&page);
        if found {
            self.read_through = self.read_through.max(page.through);
            self.serial += 1;
            self.backlog.push_back(Stretch::of(page, self.serial));
        }
        Ok(())
    }

    /// What a page says besides its messages.
    fn saw(&mut self, page: &Page) {
        let floor = match page.gaps_open {
            0 => Seq::MAX,
            _ => self.session.gap_floor(),
        };
        self.low_water.gaps(floor);
        self.context.saw(page);
    }

    /// Waits until something happens.
    async fn rest(&mut self) -> Result<(), Ended> {
        self.context.watch_lag(self.oldest());
        // The settle of its late messages closes a gap, and without one no page is read to say so.
        if self.session.gap_floor() > self.read_through {
            self.context.no_gaps();
        }
        let wake = self.wake();
        let mut control = self.context.control.clone();
        let known = self.control_version;
        // Every arm is cancel-safe: `next` takes a report only when it resolves, and the others
        // are a timer, a token and a watch, which are looked at again in the next round.
        let report = tokio::select! {
            report = self.publisher.next() => Some(report.ok_or_else(publisher_died)?),
            () = tokio::time::sleep_until(wake) => None,
            () = self.context.stop.cancelled() => None,
            Ok(_) = control.wait_for(|version| *version > known) => None,
        };
        match report {
            Some(report) => self.take(report),
            None => Ok(()),
        }
    }

    /// When to look again if nothing happens before.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + limits::TICK.min(self.context.deadline.left());
        if self.backlog.len() < limits::PAGES_READ_AHEAD && !self.turn_is_wanted() {
            wake = wake.min(self.pace.next());
        }
        if let (false, Some(at)) = (self.ledger.is_empty(), self.settle_at()) {
            wake = wake.min(at);
        }
        if let Some(due) = self.next_due {
            let left = (due - self.context.clock.now()).to_std();
            let left = left.unwrap_or_default();
            if !left.is_zero() {
                wake = wake.min(now + left);
            }
        }
        wake
    }

    fn oldest(&self) -> Option<DateTime<Utc>> {
        let waiting = self.backlog.iter().find_map(|s| s.oldest);
        self.publisher.oldest().or(waiting)
    }
}

/// A call of the store, bounded in time.
async fn bounded<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Ended> {
    bounded_by(limits::STORE_CALL_MAX, what, call)
        .await
        .map_err(Ended::Store)
}

/// A call of the store, given up after `limit`. Whatever it was part of must be dropped then.
pub(crate) async fn bounded_by<T>(
    limit: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Outage(
            format!("`{what}` gave no answer within {limit:?}").into(),
        )),
    }
}

fn unexpected(context: &str, what: &str) -> Ended {
    Ended::Store(StoreError::Other {
        context: context.to_owned(),
        source: what.into(),
    })
}

fn publisher_died() -> Ended {
    unexpected(
        "publish",
        "the publisher's task ended (a broker adapter panicked?)",
    )
}
