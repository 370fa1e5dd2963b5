//! What a destination's loop and its publisher share, and what they tell the outside.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{AlertKind, Broker, Clock, Page, Pending, Unrouted};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::alerts::Alerts;
use crate::health::{Health, Led};
use crate::lease::Deadline;
use crate::options::RelayOptions;
use crate::telemetry::Meters;

/// One lead of one destination, across its sessions.
pub(crate) struct Context {
    pub name: Arc<str>,
    pub broker: Arc<dyn Broker>,
    pub clock: Arc<dyn Clock>,
    pub options: Arc<RelayOptions>,
    pub deadline: Deadline,
    /// Finish what is in flight, settle, and end.
    pub stop: CancellationToken,
    /// The time for that is up: drop what is in flight.
    pub abandon: CancellationToken,
    /// The control version last read from the board.
    pub control: watch::Receiver<i64>,
    pub meters: Meters,
    pub health: Health,
    pub alerts: Alerts,
    in_outage: AtomicBool,
}

/// What only the supervisor knows.
pub(crate) struct Lead {
    pub deadline: Deadline,
    pub stop: CancellationToken,
    pub abandon: CancellationToken,
    pub control: watch::Receiver<i64>,
}

impl Context {
    pub(crate) fn new(
        name: &str,
        broker: Arc<dyn Broker>,
        options: Arc<RelayOptions>,
        health: Health,
        alerts: Alerts,
        lead: Lead,
    ) -> Self {
        Self {
            name: name.into(),
            broker,
            clock: options.clock.clone(),
            options,
            deadline: lead.deadline,
            stop: lead.stop,
            abandon: lead.abandon,
            control: lead.control,
            meters: Meters::new(name),
            health,
            alerts,
            in_outage: AtomicBool::new(false),
        }
    }

    /// A source of random waits for one user of this lead; `salt` tells the users apart.
    pub(crate) fn random(&self, salt: u64) -> StdRng {
        match self.options.seed {
            None => StdRng::from_rng(&mut rand::rng()),
            Some(seed) => {
                let mut mixed = DefaultHasher::new();
                (seed, &self.name, salt).hash(&mut mixed);
                StdRng::seed_from_u64(mixed.finish())
            }
        }
    }

    /// The broker takes nothing: said once, however long it lasts. The alert waits a little, for
    /// a leader election of the broker is nothing to wake a person for.
    pub(crate) fn outage(&self, text: &str, lasted: Duration) {
        let text = super::changes::cut(text);
        if !self.in_outage.swap(true, Ordering::Relaxed) {
            tracing::warn!(destination = %self.name, error = text, "outage: the broker takes no messages");
            self.meters.outages.increment(1);
            self.meters.outage.set(1.0);
        }
        self.health
            .set(&self.name, Led::Outage { text: text.clone() });
        if lasted >= self.options.alerts.outage_after {
            self.alerts.fire(AlertKind::Outage, Some(&self.name), || {
                format!(
                    "the broker of {:?} takes no messages: {text}. Its cursor waits; nothing \
                         is lost and no attempt is burnt",
                    self.name
                )
            });
        }
    }

    /// The broker answers.
    pub(crate) fn recovered(&self) {
        if self.in_outage.swap(false, Ordering::Relaxed) {
            tracing::info!(destination = %self.name, "the broker takes messages again");
        }
        self.meters.outage.set(0.0);
        self.health.set(&self.name, Led::Running);
        self.alerts
            .resolve(AlertKind::Outage, Some(&self.name), || {
                format!("the broker of {:?} takes messages again", self.name)
            });
    }

    /// A message is dead.
    pub(crate) fn died(&self, message: &Pending, attempts: u32, error: &str) {
        let text = format!(
            "message {} (topic {:?}, seq {}) is dead at {:?} after {attempts} attempt(s): {}. See \
             `outbox dead list --destination {}`, then resend or discard",
            message.id,
            message.topic,
            message.seq,
            self.name,
            super::changes::cut(error),
            self.name,
        );
        tracing::warn!(destination = %self.name, seq = message.seq, id = %message.id, attempts, error, "a message is dead");
        self.alerts.count(AlertKind::Dead, &self.name, 1, text);
    }

    /// What a page says besides its messages.
    pub(crate) fn saw(&self, page: &Page) {
        self.meters.pages.increment(1);
        self.meters.gaps.set(page.gaps_open as f64);
        self.meters.gap_age.set(page.gap_age_max.as_secs_f64());
        self.watch_gaps(page);
        for unrouted in &page.unrouted {
            self.unrouted(unrouted);
        }
    }

    fn watch_gaps(&self, page: &Page) {
        let kind = AlertKind::StuckGap;
        if page.gaps_open > 0 && page.gap_age_max >= self.options.alerts.gap_after {
            self.alerts.fire(kind, Some(&self.name), || {
                format!(
                    "{} open gap(s) at {:?}, the oldest for {:?}: a transaction holds a seq \
                     without committing. Its own messages wait, nothing else does. `outbox \
                     doctor` names it",
                    page.gaps_open, self.name, page.gap_age_max
                )
            });
        } else {
            self.no_old_gap();
        }
    }

    /// All gaps are closed.
    pub(crate) fn no_gaps(&self) {
        self.meters.gaps.set(0.0);
        self.meters.gap_age.set(0.0);
        self.no_old_gap();
    }

    fn no_old_gap(&self) {
        self.alerts
            .resolve(AlertKind::StuckGap, Some(&self.name), || {
                format!("no gap at {:?} is old any more", self.name)
            });
    }

    fn unrouted(&self, unrouted: &Unrouted) {
        self.meters.unrouted.increment(unrouted.count);
        let text = format!(
            "{} message(s) of topic {:?} (seq {} to {}) are covered by no route: a mistyped topic, \
             or a destination that is missing",
            unrouted.count, unrouted.topic, unrouted.first, unrouted.last
        );
        self.alerts
            .count(AlertKind::Unrouted, &self.name, unrouted.count, text);
    }

    /// `oldest` is when the oldest message read and not sent was enqueued.
    pub(crate) fn watch_lag(&self, oldest: Option<DateTime<Utc>>) {
        let lag = oldest.map_or(Duration::ZERO, |at| outbox_core::age(at, self.clock.now()));
        self.meters.lag.set(lag.as_secs_f64());
        let Some(limit) = self.options.alerts.lag_after else {
            return;
        };
        if lag >= limit {
            self.alerts.fire(AlertKind::Lag, Some(&self.name), || {
                format!(
                    "{:?} lags: its oldest message waits for {} s, more than {} s",
                    self.name,
                    lag.as_secs(),
                    limit.as_secs()
                )
            });
        } else if lag < limit / 2 {
            self.alerts.resolve(AlertKind::Lag, Some(&self.name), || {
                format!("{:?} has caught up", self.name)
            });
        }
    }
}
