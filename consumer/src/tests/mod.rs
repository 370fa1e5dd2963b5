//! The runtime against a source and an inbox in memory, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use outbox_core::{RetryPolicy, TopicPartition};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::testing::{MemoryInbox, MemorySource, record};
use crate::{Consumer, ConsumerError};

mod failures;
mod offsets;
mod once;
mod outages;
mod settings;

/// (key, payload) in the order in which they were committed.
type Inbox = MemoryInbox<(String, String)>;

/// A world with one topic `orders` and one consumer `billing`.
#[derive(Default)]
struct World {
    source: MemorySource,
    inbox: Inbox,
}

/// A consumer that runs.
struct Run {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ConsumerError>>,
}

impl World {
    fn consumer(&self) -> Consumer<Inbox> {
        Consumer::new(Arc::new(self.source.clone()), self.inbox.clone())
            .name("billing")
            .retry(policy(3))
    }

    /// A consumer that keeps what it is given, but for payloads that `refuse` refuses.
    fn keeper<R>(&self, refuse: R) -> Consumer<Inbox>
    where
        R: Fn(&str) -> Result<(), crate::HandlerError> + Send + Sync + 'static,
    {
        self.consumer().on("orders", move |record, mut tx| {
            let effect = effect_of(&record);
            let refused = refuse(&effect.1);
            async move {
                tx.push(effect);
                refused
            }
        })
    }

    fn append(&self, key: &str, payload: &str) -> i64 {
        self.source
            .append(record("orders", key, payload.to_owned()))
    }

    /// Waits until everything that is at the source is committed.
    async fn settled(&self) {
        self.committed(self.source.end(&orders())).await;
    }

    async fn committed(&self, offset: i64) {
        let committed = || self.source.committed_offset("billing", &orders());
        until(
            || committed().unwrap_or_default() >= offset,
            || format!("offset {offset} committed, it is {:?}", committed()),
        )
        .await;
    }

    fn payloads(&self) -> Vec<String> {
        self.inbox
            .effects()
            .into_iter()
            .map(|(_, payload)| payload)
            .collect()
    }

    fn payloads_of(&self, key: &str) -> Vec<String> {
        let effects = self.inbox.effects().into_iter();
        effects
            .filter(|(k, _)| k == key)
            .map(|(_, payload)| payload)
            .collect()
    }
}

impl Run {
    fn start(consumer: Consumer<Inbox>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(consumer.run(stop.clone()));
        Self { stop, task }
    }

    async fn stop(self) -> Result<(), ConsumerError> {
        self.stop.cancel();
        self.task.await.expect("no panic")
    }

    /// As a crash would end it.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn orders() -> TopicPartition {
    record("orders", "", "").partition
}

fn effect_of(record: &outbox_core::Record) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = record.key.as_deref().map(text).unwrap_or_default();
    (key, text(&record.payload))
}

fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy {
        max_attempts: Some(attempts),
        ..RetryPolicy::default()
    }
}

/// Waits (on the paused clock, so in no time) until `done`; fails after ten minutes of it.
async fn until(done: impl Fn() -> bool, what: impl Fn() -> String) {
    let limit = Instant::now() + Duration::from_secs(600);
    while !done() {
        assert!(Instant::now() < limit, "never came: {}", what());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a test that hangs.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(600), future)
        .await
        .expect("it ends")
}
