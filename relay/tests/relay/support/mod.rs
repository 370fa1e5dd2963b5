//! A bed for the relay: store and broker in memory, time that tests own.

pub mod broker;
pub mod session;
pub mod store;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use outbox_core::{
    Alert, AlertKind, AlertSink, AlertState, Broker, Clock, Destination, Message, OnDead, Order,
    RetryPolicy, Start,
};
use outbox_relay::{AlertOptions, Relay, RelayError, RelayOptions};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use broker::{Fate, ScriptedBroker};
pub use store::MemoryStore;

/// A clock on the runtime's paused time, that can be made to jump as after a suspend.
#[derive(Clone)]
pub struct TestClock {
    began: Instant,
    epoch: DateTime<Utc>,
    jumped_micros: Arc<AtomicU64>,
}

impl TestClock {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            epoch: DateTime::from_timestamp(1_800_000_000, 0).expect("in range"),
            jumped_micros: Arc::default(),
        }
    }

    /// A clock that shows the same until one of them jumps.
    pub fn twin(&self) -> Self {
        Self {
            jumped_micros: Arc::default(),
            ..self.clone()
        }
    }

    pub fn jump(&self, by: Duration) {
        let micros = by.as_micros() as u64;
        self.jumped_micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        self.epoch + TimeDelta::from_std(self.boot()).expect("in range")
    }
    fn boot(&self) -> Duration {
        self.began.elapsed() + Duration::from_micros(self.jumped_micros.load(Ordering::SeqCst))
    }
}

/// Keeps every alert.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Alert>>>);

impl Recorder {
    pub fn of(&self, kind: AlertKind, state: AlertState) -> Vec<Alert> {
        let alerts = self.0.lock().expect("never poisoned");
        let of_kind = alerts.iter().filter(|a| a.kind == kind && a.state == state);
        of_kind.cloned().collect()
    }
}

#[async_trait]
impl AlertSink for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }
    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.lock().expect("never poisoned").push(alert.clone());
        Ok(())
    }
}

/// A relay that runs in a task.
pub struct Running {
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), RelayError>>,
}

impl Running {
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }

    /// As `kill -9`.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Store, broker, clock and alerts of one test.
pub struct Bed {
    pub clock: TestClock,
    pub store: MemoryStore,
    pub broker: ScriptedBroker,
    pub alerts: Recorder,
    pub destinations: Vec<String>,
    /// Of the relays' random waits.
    pub seed: u64,
}

impl Bed {
    /// One destination `d` for everything.
    pub fn new(broker: ScriptedBroker) -> Self {
        Self::with(broker, &[destination("d")])
    }

    pub fn with(broker: ScriptedBroker, destinations: &[Destination]) -> Self {
        let clock = TestClock::new();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        destinations.iter().for_each(|d| store.declare(d.clone()));
        Self {
            clock,
            store,
            broker,
            alerts: Recorder::default(),
            destinations: destinations.iter().map(|d| d.name.clone()).collect(),
            seed: 0,
        }
    }

    pub fn options(&self, instance: &str) -> RelayOptions {
        RelayOptions {
            instance: instance.to_owned(),
            clock: Arc::new(self.clock.clone()),
            seed: Some(self.seed),
            // Virtual hours pass in these tests: fewer polls make them quick.
            poll_idle: Duration::from_millis(200),
            alerts: AlertOptions {
                sinks: vec![Arc::new(self.alerts.clone())],
                ..AlertOptions::default()
            },
            ..RelayOptions::default()
        }
    }

    pub fn start(&self, instance: &str) -> Running {
        self.start_with(self.options(instance))
    }

    pub fn start_with(&self, options: RelayOptions) -> Running {
        let broker: Arc<dyn Broker> = Arc::new(self.broker.clone());
        let brokers: BTreeMap<_, _> = self
            .destinations
            .iter()
            .map(|name| (name.clone(), broker.clone()))
            .collect();
        let relay = Relay::new(Arc::new(self.store.clone()), brokers, options);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(relay.run(shutdown.clone()));
        Running { shutdown, task }
    }

    pub fn enqueue(&self, key: &str) -> i64 {
        self.store.enqueue(message(key))
    }

    pub fn enqueue_many(&self, key: &str, count: usize) {
        for _ in 0..count {
            self.enqueue(key);
        }
    }

    /// Waits until `d` has nothing left to do.
    pub async fn done(&self) {
        self.until("everything is settled", || self.store.is_done("d"))
            .await;
    }

    /// Waits for a condition. The time between two looks is the runtime's own, which is paused: it
    /// jumps to the next timer, whosever it is, and nobody waits.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(
                began.elapsed() < Duration::from_secs(3_000),
                "never: {what}"
            );
        }
    }
}

pub fn message(key: &str) -> Message {
    Message::bytes("orders.placed", "x").key(key)
}

pub fn destination(name: &str) -> Destination {
    Destination {
        name: name.to_owned(),
        patterns: vec!["orders.*".parse().expect("valid")],
        broker: "test://".to_owned(),
        order: Order::Key,
        on_dead: OnDead::BlockKey,
        retry: RetryPolicy::default(),
        start: Start::Beginning,
        paused: false,
    }
}

/// Lets time pass.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
