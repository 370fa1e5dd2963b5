//! What operators are told, grouped and rate-limited, and where it goes.
//!
//! Whoever sees something tells [`Alerts`], which never waits. A task groups what comes in
//! (`group`) and hands notices to each sink's own task, so that a slow webhook delays nobody.

mod command;
mod group;
mod log;
mod webhook;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outbox_core::{Alert, AlertKind, AlertSink, AlertState, Clock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use command::CommandSink;
use group::{Event, Groups};
pub use log::LogSink;
pub use webhook::{InvalidWebhook, WebhookFormat, WebhookSink, ensure_crypto_provider};

use crate::limits;
use crate::telemetry;

/// The end everybody holds. Cheap to clone; no call waits.
#[derive(Clone)]
pub(crate) struct Alerts {
    events: mpsc::Sender<Event>,
    firing: Arc<Firing>,
}

/// What fires now, so that "still so" and "still not so" cost nothing.
#[derive(Default)]
struct Firing {
    count: AtomicUsize,
    set: Mutex<HashSet<(AlertKind, Option<String>)>>,
}

impl Alerts {
    /// A state began. Said once until it is resolved.
    pub(crate) fn fire(
        &self,
        kind: AlertKind,
        destination: Option<&str>,
        text: impl FnOnce() -> String,
    ) {
        if self.turn(kind, destination, true) {
            self.send(kind, AlertState::Firing, destination, 1, text());
        }
    }

    /// A state ended, if it had begun.
    pub(crate) fn resolve(
        &self,
        kind: AlertKind,
        destination: Option<&str>,
        text: impl FnOnce() -> String,
    ) {
        if self.firing.count.load(Ordering::Relaxed) > 0 && self.turn(kind, destination, false) {
            self.send(kind, AlertState::Resolved, destination, 1, text());
        }
    }

    /// Something happened `count` times.
    pub(crate) fn count(&self, kind: AlertKind, destination: &str, count: u64, text: String) {
        self.send(kind, AlertState::Firing, Some(destination), count, text);
    }

    /// Whether this changes what fires.
    fn turn(&self, kind: AlertKind, destination: Option<&str>, on: bool) -> bool {
        let key = (kind, destination.map(str::to_owned));
        let mut set = self
            .firing
            .set
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = if on {
            set.insert(key)
        } else {
            set.remove(&key)
        };
        self.firing.count.store(set.len(), Ordering::Relaxed);
        changed
    }

    fn send(
        &self,
        kind: AlertKind,
        state: AlertState,
        destination: Option<&str>,
        count: u64,
        text: String,
    ) {
        let event = Event {
            kind,
            state,
            destination: destination.map(str::to_owned),
            count,
            text,
        };
        if self.events.try_send(event).is_err() {
            metrics::counter!(telemetry::ALERTS_DROPPED).increment(1);
        }
    }
}

/// The task that groups and hands out. It ends when every [`Alerts`] is gone and what they said
/// is delivered.
pub(crate) struct Dispatcher {
    events: mpsc::Receiver<Event>,
    groups: Groups,
    sinks: Vec<mpsc::Sender<Alert>>,
    tasks: JoinSet<()>,
    clock: Arc<dyn Clock>,
    began: Instant,
}

impl Dispatcher {
    /// A dispatcher for `sinks`, and the end to tell it things.
    pub(crate) fn new(
        sinks: &[Arc<dyn AlertSink>],
        interval: std::time::Duration,
        clock: Arc<dyn Clock>,
    ) -> (Alerts, Self) {
        let (events_in, events) = mpsc::channel(limits::ALERT_QUEUE);
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for sink in sinks {
            let (sender, receiver) = mpsc::channel(limits::SINK_QUEUE);
            tasks.spawn(deliver(sink.clone(), receiver));
            senders.push(sender);
        }
        let alerts = Alerts {
            events: events_in,
            firing: Arc::default(),
        };
        let dispatcher = Self {
            events,
            groups: Groups::new(interval),
            sinks: senders,
            tasks,
            clock,
            began: Instant::now(),
        };
        (alerts, dispatcher)
    }

    /// Runs until nobody can say anything any more.
    pub(crate) async fn run(mut self) {
        loop {
            let next = self.groups.next().map(|at| self.began + at);
            // Cancel-safe: `recv` loses nothing, and the timer is set anew each round.
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.groups.add(event, self.began.elapsed()),
                    None => break,
                },
                () = sleep_until(next) => {}
            }
            let notices = self.groups.due(self.began.elapsed());
            self.hand_out(notices);
        }
        // What waited for the end of its interval is said before the process goes.
        let rest = self.groups.flush();
        self.hand_out(rest);
        self.sinks.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    fn hand_out(&self, notices: Vec<Event>) {
        for event in notices {
            let alert = event.into_alert(self.clock.now());
            let (kind, state) = (word(alert.kind), word(alert.state));
            metrics::counter!(telemetry::ALERTS, "kind" => kind, "state" => state).increment(1);
            for sink in &self.sinks {
                if sink.try_send(alert.clone()).is_err() {
                    metrics::counter!(telemetry::ALERTS_DROPPED).increment(1);
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Delivers to one sink, one notice at a time, each bounded in time.
async fn deliver(sink: Arc<dyn AlertSink>, mut alerts: mpsc::Receiver<Alert>) {
    while let Some(alert) = alerts.recv().await {
        let name = sink.name();
        match tokio::time::timeout(limits::SINK_TIMEOUT, sink.send(&alert)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(sink = name, %error, alert = %alert.text, "an alert was not delivered");
            }
            Err(_) => {
                tracing::warn!(sink = name, alert = %alert.text, "an alert was not delivered in time");
            }
        }
    }
}

/// The word serde writes for a plain enum.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
