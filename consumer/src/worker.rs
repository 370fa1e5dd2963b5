//! One worker: takes batches from its queue and applies them, in order, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{Inbox, RetryPolicy};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::consumer::DeadPolicy;
use crate::error::ConsumerError;
use crate::limits;
use crate::metrics::Metrics;
use crate::notices::{Notice, Notices};
use crate::queue::{Item, QueueReceiver};
use crate::transaction::{Applied, Applier, Failed};

/// What the inbox is called in alerts.
const INBOX: &str = "the inbox";

/// What all workers of a consumer share.
pub(crate) struct Shared<I: Inbox> {
    pub(crate) applier: Applier<I>,
    pub(crate) retry: RetryPolicy,
    pub(crate) on_dead: DeadPolicy,
    pub(crate) batch_max: usize,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
}

/// Why a worker ends.
enum End {
    /// It was told to stop; what it had not committed is read again.
    Stop,
    /// A record failed for good and the policy is to stop.
    Dead(ConsumerError),
}

/// Applies what comes through `queue` until `stop`.
///
/// A transaction in flight is finished; a pause is cut short; what waits in the queue is left.
pub(crate) async fn run<I: Inbox>(
    shared: Arc<Shared<I>>,
    queue: QueueReceiver,
    stop: CancellationToken,
) -> Result<(), ConsumerError> {
    let size = shared.batch_max;
    let mut worker = Worker {
        shared,
        queue,
        stop,
        size,
        outages: 0,
    };
    match worker.work().await {
        End::Stop => Ok(()),
        End::Dead(error) => Err(error),
    }
}

struct Worker<I: Inbox> {
    shared: Arc<Shared<I>>,
    queue: QueueReceiver,
    stop: CancellationToken,
    /// Records in the next transaction: small after a failure, growing again with success.
    size: usize,
    /// Times in a row that the inbox could not be used.
    outages: u32,
}

impl<I: Inbox> Worker<I> {
    async fn work(&mut self) -> End {
        loop {
            let items = tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stop,
                // Cancel-safe; and after a stop nobody asks for the records any more.
                items = self.queue.next(self.shared.batch_max) => items,
            };
            if items.is_empty() {
                return End::Stop;
            }
            if let Err(end) = self.apply_all(&items).await {
                return end;
            }
        }
    }

    /// Applies `items` in order, in as few transactions as possible.
    ///
    /// A batch with a failing record is rolled back and cut before it, until the record stands
    /// alone: only then does it burn attempts, so that a failure that only the batch caused (a
    /// deadlock with another one) is nobody's fault.
    async fn apply_all(&mut self, mut items: &[Item]) -> Result<(), End> {
        while !items.is_empty() {
            let size = self.size.min(items.len());
            let (batch, rest) = items.split_at(size);
            if let [item] = batch {
                self.apply_alone(item).await?;
            } else {
                match self.attempt(batch).await? {
                    Ok(()) => {}
                    Err(Refusal { after, error, .. }) => {
                        self.shared.metrics.batches_split.increment(1);
                        tracing::debug!(size, after, %error, "a batch failed and is split");
                        self.size = after.unwrap_or(size / 2).clamp(1, size - 1);
                        continue;
                    }
                }
            }
            self.size = (self.size * 2).min(self.shared.batch_max);
            items = rest;
        }
        Ok(())
    }

    /// Applies one record, with retries; those behind it in the queue wait.
    async fn apply_alone(&mut self, item: &Item) -> Result<(), End> {
        let mut attempts = 0;
        let mut since = None;
        loop {
            let Err(refusal) = self.attempt(std::slice::from_ref(item)).await? else {
                return Ok(());
            };
            attempts += 1;
            let since = *since.get_or_insert_with(Instant::now);
            let delay = match refusal.permanent {
                true => None,
                false => delay(&self.shared.retry, attempts, since),
            };
            let Some(delay) = delay else {
                return self.give_up(item, attempts, &refusal.error).await;
            };
            self.shared.metrics.retries.increment(1);
            tracing::warn!(
                consumer = self.shared.applier.consumer, place = %place(item), attempts, ?delay,
                error = refusal.error, "a record failed and is tried again"
            );
            let _stalled = self.queue.stall();
            self.pause(delay).await?;
        }
    }

    /// One transaction, repeated for as long as the inbox cannot be used.
    async fn attempt(&mut self, items: &[Item]) -> Result<Result<(), Refusal>, End> {
        loop {
            match self.shared.applier.apply(items).await {
                Ok(applied) => {
                    self.recovered();
                    self.finish(items, applied);
                    return Ok(Ok(()));
                }
                Err(Failed::Record {
                    after,
                    permanent,
                    error,
                }) => {
                    self.recovered();
                    return Ok(Err(Refusal {
                        after,
                        permanent,
                        error,
                    }));
                }
                Err(Failed::Outage(error)) => self.outage(error).await?,
            }
        }
    }

    /// A record that will not be tried again: a dead letter, or the end.
    async fn give_up(&mut self, item: &Item, attempts: u32, error: &str) -> Result<(), End> {
        let consumer = self.shared.applier.consumer.clone();
        if self.shared.on_dead == DeadPolicy::Stop {
            let error = ConsumerError::Stopped {
                consumer,
                of: item.record.partition.clone(),
                offset: item.record.offset,
                id: item.id,
                attempts,
                error: error.to_owned(),
            };
            self.shared.notices.send(Notice::Dead(error.to_string()));
            return Err(End::Dead(error));
        }
        // Without its dead-letter row the record would be lost: whatever the inbox says, wait.
        while let Err(failed) = self.shared.applier.bury(item, attempts, error).await {
            let (Failed::Outage(why) | Failed::Record { error: why, .. }) = failed;
            self.outage(format!("keep a dead letter: {why}")).await?;
        }
        self.recovered();
        self.shared.metrics.dead.increment(1);
        let text = format!(
            "consumer {consumer:?} gave up {} (id {}) after {attempts} attempts: {error}",
            place(item),
            item.id
        );
        tracing::error!("{text}");
        self.shared.notices.send(Notice::Dead(text));
        item.progress.lock().finish(item.record.offset);
        Ok(())
    }

    fn finish(&self, items: &[Item], applied: Applied) {
        for item in items {
            item.progress.lock().finish(item.record.offset);
        }
        let metrics = &self.shared.metrics;
        metrics.transactions.increment(1);
        metrics.applied.increment(applied.fresh as u64);
        metrics.duplicates.increment(applied.duplicates as u64);
        metrics.batch_records.record(items.len() as f64);
        if let Some(oldest) = items.iter().map(|item| item.record.timestamp).min() {
            let lag = (Utc::now() - oldest).to_std().unwrap_or_default();
            metrics.lag_seconds.record(lag.as_secs_f64());
        }
    }

    /// Backs off from an inbox that cannot be used. No attempt is burnt.
    async fn outage(&mut self, error: String) -> Result<(), End> {
        let consumer = &self.shared.applier.consumer;
        self.outages = self.outages.saturating_add(1);
        self.shared.metrics.inbox_outages.increment(1);
        // Once is no outage: a deadlock, or a connection that the server closed while idle.
        if self.outages == 2 {
            tracing::error!(consumer, error, "the inbox cannot be used; waiting for it");
            let text = format!("consumer {consumer:?} waits for its inbox: {error}");
            self.shared
                .notices
                .send(Notice::Outage(INBOX.to_owned(), text));
        } else {
            tracing::debug!(
                consumer,
                error,
                outages = self.outages,
                "the inbox cannot be used"
            );
        }
        let pause = outage_pause(self.outages);
        self.pause(pause).await
    }

    fn recovered(&mut self) {
        if self.outages >= 2 {
            tracing::info!(
                consumer = self.shared.applier.consumer,
                "the inbox can be used again"
            );
            self.shared
                .notices
                .send(Notice::Recovered(INBOX.to_owned()));
        }
        self.outages = 0;
    }

    async fn pause(&self, time: Duration) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stop),
            () = sleep(time) => Ok(()),
        }
    }
}

/// A record that failed, or a batch with one in it.
struct Refusal {
    after: Option<usize>,
    permanent: bool,
    error: String,
}

/// The pause after so many (≥ 1) failures to reach something, with jitter.
pub(crate) fn outage_pause(failures: u32) -> Duration {
    let policy = RetryPolicy {
        initial: Duration::from_millis(50),
        max: limits::OUTAGE_PAUSE_MAX,
        max_attempts: None,
        ..RetryPolicy::default()
    };
    policy.jittered(failures, &mut rand::rng())
}

/// How long to wait after `attempts` failures, the first of them at `since`; `None` when the
/// policy is exhausted. A consumer counts `max_age` from the first failure: one that catches up
/// with old records must not give each of them a single attempt.
fn delay(policy: &RetryPolicy, attempts: u32, since: Instant) -> Option<Duration> {
    let now = Utc::now();
    let first: DateTime<Utc> = now - since.elapsed();
    let next = policy.next_attempt(attempts, first, now, &mut rand::rng())?;
    Some((next - now).to_std().unwrap_or_default())
}

fn place(item: &Item) -> String {
    let of = &item.record.partition;
    format!(
        "{} partition {} offset {}",
        of.topic, of.partition, item.record.offset
    )
}
