//! What an operator is told: dead letters, grouped; outages, once each.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::Utc;
use outbox_core::{Alert, AlertKind, AlertSink, AlertState};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits;

/// Something worth an alert.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A record became a dead letter, or stopped the consumer.
    Dead(String),
    /// A part, named first, cannot be used.
    Outage(String, String),
    /// The part can be used again.
    Recovered(String),
    /// Records are gone from the source, or a partition cannot be read for good.
    Stopped(String),
}

/// The consumer's end. Never waits: when the sinks are slow, notices are logged only.
#[derive(Clone)]
pub(crate) struct Notices(Option<mpsc::Sender<Notice>>);

impl Notices {
    /// The sender, and the task that serves it: it ends when every sender is dropped.
    pub(crate) fn new(
        consumer: &str,
        sinks: Vec<Arc<dyn AlertSink>>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, notices) = mpsc::channel(limits::ALERTS_WAITING_MAX);
        let sender = (!sinks.is_empty()).then_some(sender);
        let task = Task {
            consumer: consumer.to_owned(),
            sinks,
            out: BTreeSet::new(),
            dead: Group::default(),
        };
        (Self(sender), task.run(notices))
    }

    pub(crate) fn send(&self, notice: Notice) {
        let Some(sender) = &self.0 else { return };
        if let Err(error) = sender.try_send(notice) {
            tracing::warn!(%error, "an alert was dropped: the sinks are too slow");
        }
    }
}

struct Task {
    consumer: String,
    sinks: Vec<Arc<dyn AlertSink>>,
    /// The parts that cannot be used, as far as was told.
    out: BTreeSet<String>,
    dead: Group,
}

/// Dead letters since the last alert about them.
#[derive(Default)]
struct Group {
    count: u64,
    last: String,
    /// No alert before this.
    quiet_until: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut notices: mpsc::Receiver<Notice>) {
        loop {
            let wake = (self.dead.count > 0)
                .then_some(self.dead.quiet_until)
                .flatten();
            tokio::select! {
                notice = notices.recv() => match notice {
                    Some(notice) => self.take(notice).await,
                    None => break,
                },
                // Nothing is lost when this arm is dropped: the group keeps its count.
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            if self
                .dead
                .quiet_until
                .is_none_or(|until| until <= Instant::now())
            {
                self.tell_dead().await;
            }
        }
        self.tell_dead().await;
    }

    async fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Dead(text) => {
                self.dead.count += 1;
                self.dead.last = text;
            }
            Notice::Outage(part, text) => {
                if self.out.insert(part) {
                    self.tell(AlertKind::Outage, AlertState::Firing, text, 1)
                        .await;
                }
            }
            Notice::Recovered(part) => {
                if self.out.remove(&part) {
                    let text = format!("consumer {:?} goes on: {part} is back", self.consumer);
                    self.tell(AlertKind::Outage, AlertState::Resolved, text, 1)
                        .await;
                }
            }
            Notice::Stopped(text) => {
                self.tell(AlertKind::Stopped, AlertState::Firing, text, 1)
                    .await;
            }
        }
    }

    async fn tell_dead(&mut self) {
        let group = std::mem::take(&mut self.dead);
        if group.count == 0 {
            self.dead.quiet_until = group.quiet_until;
            return;
        }
        self.dead.quiet_until = Some(Instant::now() + limits::ALERT_INTERVAL);
        let text = match group.count {
            1 => group.last,
            n => format!(
                "{n} records of consumer {:?} failed for good; the last: {}",
                self.consumer, group.last
            ),
        };
        self.tell(AlertKind::Dead, AlertState::Firing, text, group.count)
            .await;
    }

    async fn tell(&self, kind: AlertKind, state: AlertState, text: String, count: u64) {
        let alert = Alert {
            kind,
            state,
            destination: Some(self.consumer.clone()),
            text,
            count,
            at: Utc::now(),
        };
        for sink in &self.sinks {
            let sent = timeout(limits::ALERT_SEND_MAX, sink.send(&alert)).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(sink = sink.name(), %error, "an alert was not delivered")
                }
                Err(_) => {
                    tracing::warn!(sink = sink.name(), "an alert took too long and was dropped")
                }
            }
        }
    }
}
