//! The builder, and the start and the end of a run.

use std::sync::Arc;
use std::time::Duration;

use outbox_core::limits::NAME_BYTES_MAX;
use outbox_core::{AlertSink, Inbox, InvalidPattern, Record, RetryPolicy, Source, TopicPattern};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::ConsumerError;
use crate::handler::{Handler, HandlerError, HandlerTx};
use crate::limits;
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::queue::{QueueReceiver, queue};
use crate::reader::{Link, Reader};
use crate::transaction::{self, Applier};
use crate::worker::{self, Shared};

/// What happens when a record fails for good: permanently, or with its attempts exhausted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadPolicy {
    /// It is kept as a dead letter in the inbox's database, and the records behind it go on.
    #[default]
    Skip,
    /// The consumer ends with [`ConsumerError::Stopped`]. The record is not kept and its offset
    /// not committed: the next run starts with it.
    Stop,
}

/// Reads records and applies each exactly once. See the crate's documentation for an example.
///
/// Records of one key (of whatever topic) are applied in the order in which the source holds
/// them, one at a time; those of different keys in parallel, by [`Consumer::workers`].
#[must_use = "nothing is read before .run(…) is awaited"]
pub struct Consumer<I: Inbox> {
    source: Arc<dyn Source>,
    inbox: I,
    name: String,
    handlers: Vec<(String, Handler<I::Tx>)>,
    workers: usize,
    batch: usize,
    /// Records that wait in front of one worker: less in tests alone.
    queue: usize,
    retry: RetryPolicy,
    on_dead: DeadPolicy,
    attempt_timeout: Duration,
    alerts: Vec<Arc<dyn AlertSink>>,
}

impl<I: Inbox> Consumer<I> {
    /// A consumer of `source` that keeps its inbox in `inbox`. It needs a name and a handler.
    pub fn new(source: Arc<dyn Source>, inbox: I) -> Self {
        Self {
            source,
            inbox,
            name: String::new(),
            handlers: Vec::new(),
            workers: limits::WORKERS,
            batch: limits::BATCH_RECORDS,
            queue: limits::QUEUE_RECORDS_MAX,
            retry: RetryPolicy::default(),
            on_dead: DeadPolicy::default(),
            attempt_timeout: limits::ATTEMPT_TIMEOUT,
            alerts: Vec::new(),
        }
    }

    /// Its name: under it offsets are committed, and ids are accepted in the inbox. Two consumers
    /// of one name on one database share the work of applying each message once; different
    /// effects need different names. 1 to 63 bytes of `[a-z0-9_-]`; required.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Applies records of the topics that `pattern` covers (`orders.placed`, `orders.*`) with
    /// `handler`. Where several patterns cover a topic, the first one added wins.
    ///
    /// The handler writes through the [`HandlerTx`], and only through it is its effect made
    /// exactly once; what it does elsewhere (a mail, a call) is done at least once.
    pub fn on<F, Fut>(mut self, pattern: &str, handler: F) -> Self
    where
        F: Fn(Arc<Record>, HandlerTx<I::Tx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = transaction::each(handler);
        self.handlers.push((pattern.to_owned(), handler));
        self
    }

    /// As [`Consumer::on`], with all records of a transaction at once (those not applied before,
    /// in order, at least one): for handlers that write many rows with one statement.
    ///
    /// When the handler fails, the batch is split until the failing record stands alone.
    pub fn on_batch<F, Fut>(mut self, pattern: &str, handler: F) -> Self
    where
        F: Fn(Vec<Arc<Record>>, HandlerTx<I::Tx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = transaction::batch(handler);
        self.handlers.push((pattern.to_owned(), handler));
        self
    }

    /// How many records of different keys are applied at a time. Default 4, at most 256. Each
    /// worker uses one connection of the inbox's pool.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Most records in one transaction. Default 256, at most 10,000; 1 gives each its own.
    pub fn batch(mut self, records: usize) -> Self {
        self.batch = records;
        self
    }

    /// Makes queues so short that workers fall behind all the time.
    #[cfg(test)]
    pub(crate) fn queue(mut self, records: usize) -> Self {
        self.queue = records;
        self
    }

    /// When a failed record is tried again; `max_age` counts from its first failure. Attempts
    /// are counted in memory: a restart gives a record a fresh set.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// What happens when a record fails for good. Default: skip, with a dead letter.
    pub fn on_dead(mut self, policy: DeadPolicy) -> Self {
        self.on_dead = policy;
        self
    }

    /// How long one call of a handler may take; then it is dropped and counts as failed.
    /// Default 60 s. Longer than 90 s makes a second instance of the consumer that waits for the
    /// same record believe that its inbox is away.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = limit;
        self
    }

    /// Sends alerts about dead letters, outages and lost records there. May be called again to
    /// add another sink.
    pub fn alerts(mut self, sink: Arc<dyn AlertSink>) -> Self {
        self.alerts.push(sink);
        self
    }

    /// Reads and applies until `shutdown`, then finishes what is in flight and commits offsets;
    /// that takes at most 10 s, after which transactions still open are rolled back.
    ///
    /// An inbox or a source that cannot be reached does not end it: it waits for them.
    ///
    /// # Errors
    /// A wrong setting, before anything is read; [`ConsumerError::Stopped`] under
    /// [`DeadPolicy::Stop`].
    ///
    /// # Cancellation
    /// Dropping the future is like a crash: open transactions are rolled back, and what was
    /// applied since the last commit of offsets is read again and skipped.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ConsumerError> {
        let patterns = self.check()?;
        let (notices, notifying) = Notices::new(&self.name, self.alerts);
        let metrics = Arc::new(Metrics::new(&self.name));
        let room = Arc::new(Notify::new());
        let (queues, receivers) = (0..self.workers)
            .map(|_| queue(self.queue, room.clone()))
            .unzip();
        let link = Link {
            consumer: self.name.clone(),
            source: self.source,
            patterns,
            queues,
            metrics: metrics.clone(),
            notices: notices.clone(),
        };
        let shared = Shared {
            applier: Applier {
                consumer: self.name.clone(),
                inbox: self.inbox,
                handlers: self
                    .handlers
                    .into_iter()
                    .map(|(_, handler)| handler)
                    .collect(),
                attempt_timeout: self.attempt_timeout,
            },
            retry: self.retry,
            on_dead: self.on_dead,
            batch_max: self.batch,
            metrics,
            notices,
        };
        let mut notifier = JoinSet::new();
        notifier.spawn(notifying);
        let running = Running {
            name: self.name,
            reader: Reader::new(link, room),
            stop: shutdown.child_token(),
            workers: JoinSet::new(),
        };
        let result = running.run(Arc::new(shared), receivers).await;
        // The senders are gone by now, so that the task ends once it has sent what waits.
        let _ = timeout(limits::STOP_NOTICES_MAX, notifier.join_next()).await;
        result
    }

    fn check(&self) -> Result<Vec<TopicPattern>, ConsumerError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let (len, limit) = (self.name.len(), NAME_BYTES_MAX);
        if len == 0 || len > limit || !self.name.bytes().all(allowed) {
            let name = self.name.clone();
            return Err(ConsumerError::Name { name, len, limit });
        }
        let consumer = || self.name.clone();
        if self.handlers.is_empty() {
            return Err(ConsumerError::NoHandler {
                consumer: consumer(),
            });
        }
        let bounds = [
            ("workers", self.workers, limits::WORKERS_MAX),
            ("batch", self.batch, limits::BATCH_RECORDS_MAX),
        ];
        for (field, value, limit) in bounds {
            if value == 0 || value > limit {
                let consumer = consumer();
                return Err(ConsumerError::OutOfBounds {
                    consumer,
                    field,
                    value,
                    limit,
                });
            }
        }
        let parse = |pattern: &String| {
            pattern
                .parse()
                .map_err(|source: InvalidPattern| ConsumerError::Pattern {
                    consumer: consumer(),
                    pattern: pattern.clone(),
                    source,
                })
        };
        self.handlers
            .iter()
            .map(|(pattern, _)| parse(pattern))
            .collect()
    }
}

/// How a worker's task ended.
type Ended = Result<Result<(), ConsumerError>, JoinError>;

/// A consumer with its tasks. Dropping it aborts them.
struct Running {
    name: String,
    reader: Reader,
    stop: CancellationToken,
    workers: JoinSet<Result<(), ConsumerError>>,
}

impl Running {
    async fn run<I: Inbox>(
        mut self,
        shared: Arc<Shared<I>>,
        queues: Vec<QueueReceiver>,
    ) -> Result<(), ConsumerError> {
        for queue in queues {
            let worker = worker::run(shared.clone(), queue, self.stop.clone());
            self.workers.spawn(worker);
        }
        drop(shared);
        let first = tokio::select! {
            // Dropped when a worker ends by itself: the reader can be stopped anywhere.
            () = self.reader.run(&self.stop) => None,
            // Dropped when the reader ends: the set keeps what has not been asked for.
            ended = self.workers.join_next() => ended,
        };
        self.stop.cancel();
        let result = self.stop_workers(first).await;
        self.commit_last().await;
        result
    }

    /// Waits for the workers, and answers with the first error among them.
    async fn stop_workers(&mut self, first: Option<Ended>) -> Result<(), ConsumerError> {
        let mut result = first.map_or(Ok(()), |ended| ended_of(&self.name, ended));
        let all = async {
            while let Some(ended) = self.workers.join_next().await {
                let ended = ended_of(&self.name, ended);
                result = std::mem::replace(&mut result, Ok(())).and(ended);
            }
        };
        if timeout(limits::STOP_WORKERS_MAX, all).await.is_err() {
            tracing::warn!(
                consumer = self.name,
                workers = self.workers.len(),
                "transactions took too long to finish and are rolled back"
            );
            self.workers.shutdown().await;
        }
        result
    }

    /// What cannot be committed now is read again by the next run, and skipped.
    async fn commit_last(&mut self) {
        match timeout(limits::STOP_COMMIT_MAX, self.reader.commit()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(consumer = self.name, %error, "cannot commit the last offsets")
            }
            Err(_) => tracing::warn!(
                consumer = self.name,
                "committing the last offsets took too long"
            ),
        }
        // A source that could not say goodbye is taken for gone after a while.
        let _ = timeout(limits::STOP_CLOSE_MAX, self.reader.close()).await;
    }
}

fn ended_of(consumer: &str, ended: Ended) -> Result<(), ConsumerError> {
    ended.unwrap_or_else(|error| {
        Err(ConsumerError::Worker {
            consumer: consumer.to_owned(),
            text: error.to_string(),
        })
    })
}
