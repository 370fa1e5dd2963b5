//! The supervisor: beats, and decides which destinations this relay leads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use outbox_core::{AlertKind, Board, Broker, Class, LeaseRow, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::alerts::{Alerts, Dispatcher};
use crate::balance::{View, balance};
use crate::board::Observer;
use crate::engine::{Context, Lead, bounded_by};
use crate::error::RelayError;
use crate::health::{Health, Watched};
use crate::http::HttpServer;
use crate::lead::{LeadEnd, Leader};
use crate::lease::Deadline;
use crate::limits;
use crate::maintenance::Housekeeper;
use crate::options::RelayOptions;
use crate::telemetry;

/// Sends what is pending in one store, sharing its destinations with the other relays there.
pub struct Relay {
    store: Arc<dyn Store>,
    brokers: BTreeMap<String, Arc<dyn Broker>>,
    options: Arc<RelayOptions>,
}

impl Relay {
    /// A relay for `store`, with a broker for each destination it is willing to lead.
    pub fn new(
        store: Arc<dyn Store>,
        brokers: BTreeMap<String, Arc<dyn Broker>>,
        options: RelayOptions,
    ) -> Self {
        Self {
            store,
            brokers,
            options: Arc::new(options),
        }
    }

    /// Runs until `shutdown`. Then reading stops, what is in flight is finished and settled, and
    /// the leases are handed over; what takes longer than the grace is abandoned, and sent again
    /// by the next leader.
    ///
    /// # Errors
    /// When it cannot run at all: options without sense, a port that cannot be had, a store that
    /// refuses. An unreachable store is waited for.
    ///
    /// # Cancellation
    /// Dropping the future is like a crash: nothing is lost, some messages may be sent again, and
    /// the leases time out.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RelayError> {
        self.options.check()?;
        let clock = self.options.clock.clone();
        let health = Health::default();
        let mut services = Services::default();
        if let Some(http) = &self.options.http {
            let monitored = Watched {
                health: health.clone(),
                clock: clock.clone(),
                patience: self.options.lease_ttl * 3,
            };
            let server = HttpServer::bind(http, Arc::new(monitored)).await?;
            services.spawn(server.run(services.stop.clone()));
        }
        telemetry::describe();
        let options = &self.options.alerts;
        let (alerts, dispatcher) = Dispatcher::new(&options.sinks, options.interval, clock.clone());
        let dispatcher = AbortOnDropHandle::new(tokio::spawn(dispatcher.run()));
        let ran = self
            .checked(&health, alerts, &mut services, &shutdown)
            .await;
        services.end().await;
        // What was said last should get out, but a sink that hangs must not hold the process.
        let patience = self.options.shutdown_grace / limits::SETTLE_RESERVE_DIVISOR;
        let _ = tokio::time::timeout(patience, dispatcher).await;
        ran
    }

    /// Waits for a store that may be relayed from, then supervises.
    async fn checked(
        &self,
        health: &Health,
        alerts: Alerts,
        services: &mut Services,
        shutdown: &CancellationToken,
    ) -> Result<(), RelayError> {
        // Dropping the check leaves a connection to be closed, nothing else.
        tokio::select! {
            checked = self.wait_for_store(health) => checked?,
            () = shutdown.cancelled() => return Ok(()),
        }
        if let Some(options) = self.options.maintenance.clone() {
            let keeper = Housekeeper {
                store: self.store.clone(),
                clock: self.options.clock.clone(),
                options,
                alerts: alerts.clone(),
            };
            services.spawn(keeper.run(services.stop.clone()));
        }
        let mut supervisor = Supervisor::new(self, health.clone(), alerts, shutdown);
        supervisor.supervise(shutdown).await;
        Ok(())
    }

    async fn wait_for_store(&self, health: &Health) -> Result<(), RelayError> {
        let mut failures = 0;
        loop {
            health.turned(self.options.clock.boot());
            let check = self.store.check();
            match bounded_by(limits::STORE_CALL_MAX, "check", check).await {
                Ok(()) => return Ok(()),
                Err(error) if error.class() == Class::Permanent => return Err(error.into()),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "the store does not answer yet; waiting for it");
                    tokio::time::sleep(self.options.outage_backoff.delay(failures)).await;
                }
            }
        }
    }
}

/// Tasks that accompany the leads.
#[derive(Default)]
struct Services {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Services {
    fn spawn(&mut self, service: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(service);
    }

    async fn end(&mut self) {
        self.stop.cancel();
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        // A client that keeps its connection open must not hold the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), ending).await;
        self.tasks.abort_all();
    }
}

/// A destination this relay leads, or is about to.
struct Led {
    deadline: Deadline,
    stop: CancellationToken,
    abandon: CancellationToken,
    control: watch::Sender<i64>,
    epoch: Arc<AtomicI64>,
}

/// A beat, as sent at a time of the boot clock.
struct Beaten {
    sent: Duration,
    board: Result<Board, StoreError>,
}

struct Supervisor<'a> {
    relay: &'a Relay,
    health: Health,
    alerts: Alerts,
    observer: Observer,
    led: BTreeMap<String, Led>,
    leads: JoinSet<LeadEnd>,
    names: HashMap<Id, String>,
    /// Destinations left alone until a time of the boot clock.
    resting: BTreeMap<String, Duration>,
    beaten_at: Instant,
    stop: CancellationToken,
    abandon: CancellationToken,
}

impl<'a> Supervisor<'a> {
    fn new(relay: &'a Relay, health: Health, alerts: Alerts, shutdown: &CancellationToken) -> Self {
        Self {
            relay,
            health,
            alerts,
            observer: Observer::default(),
            led: BTreeMap::new(),
            leads: JoinSet::new(),
            names: HashMap::new(),
            resting: BTreeMap::new(),
            beaten_at: Instant::now(),
            stop: shutdown.child_token(),
            abandon: CancellationToken::new(),
        }
    }

    async fn supervise(&mut self, shutdown: &CancellationToken) {
        let (beats_out, mut beats) = mpsc::channel(1);
        let beater = beat(
            self.relay.store.clone(),
            self.relay.options.clone(),
            beats_out,
        );
        let beater = AbortOnDropHandle::new(tokio::spawn(beater));
        loop {
            self.health.turned(self.relay.options.clock.boot());
            // Cancel-safe: both receivers lose nothing, and the token stays cancelled.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(beaten) = beats.recv() => self.beaten(beaten),
                Some(ended) = self.leads.join_next_with_id() => self.ended(ended),
            }
        }
        self.shut_down(&mut beats).await;
        drop(beater);
        self.leave().await;
    }

    /// Beats no more, and says so.
    async fn leave(&self) {
        let options = &self.relay.options;
        let leave = self.relay.store.leave(&options.instance);
        if let Err(error) = bounded_by(options.beat_interval(), "leave", leave).await {
            tracing::warn!(%error, "the others have to notice the silence of this relay");
        }
    }

    /// Waits for the leads, which have seen the token too, and keeps their leases alive meanwhile.
    async fn shut_down(&mut self, beats: &mut mpsc::Receiver<Beaten>) {
        let grace = self.relay.options.shutdown_grace;
        let end = Instant::now() + grace;
        let reserve = end - grace / limits::SETTLE_RESERVE_DIVISOR;
        tracing::info!(
            leads = self.led.len(),
            "stopping: finishing what is in flight"
        );
        while !self.leads.is_empty() {
            let abandoned = self.abandon.is_cancelled();
            // Cancel-safe for the same reasons as above; the others are timers.
            tokio::select! {
                Some(beaten) = beats.recv() => self.beaten(beaten),
                Some(ended) = self.leads.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep_until(reserve), if !abandoned => self.abandon.cancel(),
                () = tokio::time::sleep_until(end) => {
                    tracing::warn!(leads = self.led.len(), "abandoned what was still in flight");
                    self.leads.shutdown().await;
                }
            }
        }
    }

    fn beaten(&mut self, beaten: Beaten) {
        match beaten.board {
            Ok(board) => {
                metrics::counter!(telemetry::BEATS).increment(1);
                self.beaten_at = Instant::now();
                self.health.beat(self.relay.options.clock.boot());
                self.alerts
                    .resolve(AlertKind::Outage, None, || "the store answers again".into());
                self.saw(beaten.sent, &board);
            }
            Err(error) => self.missed(&error),
        }
    }

    fn missed(&self, error: &StoreError) {
        metrics::counter!(telemetry::BEAT_FAILURES).increment(1);
        tracing::warn!(%error, "a beat did not come through");
        if self.beaten_at.elapsed() >= self.relay.options.alerts.outage_after {
            self.alerts.fire(AlertKind::Outage, None, || {
                format!(
                    "the store does not answer: failed to {error}. Nothing is sent until it does"
                )
            });
        }
    }

    fn saw(&mut self, sent: Duration, board: &Board) {
        let options = &self.relay.options;
        let now = options.clock.boot();
        self.observer
            .see(board, &options.instance, now, options.lease_ttl);
        metrics::gauge!(telemetry::RELAYS).set(self.observer.live().len() as f64);
        self.renew(sent, board);
        if !self.stop.is_cancelled() {
            self.rebalance(sent, board, now);
        }
    }

    /// Extends the leases that still are ours, and ends the leads of those that are not.
    fn renew(&mut self, sent: Duration, board: &Board) {
        let options = &self.relay.options;
        for (name, led) in &self.led {
            let row = board.leases.iter().find(|l| l.destination == *name);
            match row {
                Some(row) if led.still_ours(row, &options.instance) => {
                    led.deadline.extend(sent, options.lease_ttl);
                    led.control.send_if_modified(|known| {
                        let newer = row.control_version > *known;
                        *known = row.control_version.max(*known);
                        newer
                    });
                }
                _ => {
                    // One that was leaving has just given its lease back.
                    if !led.stop.is_cancelled() {
                        tracing::warn!(destination = %name, "another relay leads it now");
                    }
                    led.stop.cancel();
                    led.abandon.cancel();
                }
            }
        }
    }

    fn rebalance(&mut self, sent: Duration, board: &Board, now: Duration) {
        self.resting.retain(|_, until| *until > now);
        let ending = |led: &Led| led.stop.is_cancelled();
        let names = |which: bool| -> BTreeSet<String> {
            let chosen = self.led.iter().filter(|(_, led)| ending(led) == which);
            chosen.map(|(name, _)| name.clone()).collect()
        };
        let (led, leaving) = (names(false), names(true));
        let serves =
            |name: &str| self.relay.brokers.contains_key(name) && !self.resting.contains_key(name);
        let plan = balance(&View {
            me: &self.relay.options.instance,
            live: self.observer.live(),
            leases: &board.leases,
            serves: &serves,
            led: &led,
            leaving: &leaving,
            unwanted: self.observer.unwanted(),
        });
        for name in plan.release {
            if let Some(led) = self.led.get(&name) {
                tracing::info!(destination = %name, "handing it over");
                led.stop.cancel();
            }
        }
        for seen in plan.take {
            self.take(seen, sent);
        }
    }

    fn take(&mut self, seen: LeaseRow, sent: Duration) {
        let options = &self.relay.options;
        let name = seen.destination.clone();
        let Some(broker) = self.relay.brokers.get(&name) else {
            return;
        };
        let (control, control_seen) = watch::channel(seen.control_version);
        let led = Led {
            deadline: Deadline::new(options.clock.clone(), sent, options.lease_ttl),
            stop: self.stop.child_token(),
            abandon: self.abandon.child_token(),
            control,
            epoch: Arc::default(),
        };
        let context = Context::new(
            &name,
            broker.clone(),
            options.clone(),
            self.health.clone(),
            self.alerts.clone(),
            Lead {
                deadline: led.deadline.clone(),
                stop: led.stop.clone(),
                abandon: led.abandon.clone(),
                control: control_seen,
            },
        );
        let leader = Leader {
            store: self.relay.store.clone(),
            instance: options.instance.clone(),
            context: Arc::new(context),
            epoch: led.epoch.clone(),
        };
        let span = tracing::info_span!("lead", destination = %name);
        let task = self.leads.spawn(leader.lead(seen).instrument(span));
        self.names.insert(task.id(), name.clone());
        self.led.insert(name, led);
    }

    fn ended(&mut self, ended: Result<(Id, LeadEnd), JoinError>) {
        let (id, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a destination's loop panicked; it is started again");
                }
                (error.id(), LeadEnd::Lost)
            }
        };
        let Some(name) = self.names.remove(&id) else {
            return;
        };
        self.led.remove(&name);
        let rest = match end {
            LeadEnd::HandedOver => return,
            LeadEnd::Lost => limits::LOST_RETRY.min(self.relay.options.lease_ttl),
            LeadEnd::NeedsPerson => limits::STOPPED_RETRY,
        };
        let until = self.relay.options.clock.boot() + rest;
        self.resting.insert(name, until);
    }
}

impl Led {
    /// A board that was read before our claim shows the epoch before it: that is no loss.
    fn still_ours(&self, row: &LeaseRow, instance: &str) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        epoch == 0
            || row.epoch < epoch
            || (row.epoch == epoch && row.owner.as_deref() == Some(instance))
    }
}

/// Beats until nobody listens, each call bounded by the TTL: a later answer is worth nothing.
async fn beat(store: Arc<dyn Store>, options: Arc<RelayOptions>, out: mpsc::Sender<Beaten>) {
    loop {
        let next = Instant::now() + options.beat_interval();
        let sent = options.clock.boot();
        let call = store.beat(&options.instance);
        let board = bounded_by(options.lease_ttl, "beat", call).await;
        if out.send(Beaten { sent, board }).await.is_err() {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}
