//! The reader: fetches records, spreads them over the workers by key, commits offsets.
//!
//! It never waits for one worker alone. A worker that is merely busy holds its partition up until
//! there is room in its queue (back pressure). A worker that waits for a retry does not: its
//! records are left out, and read again from the source once it has room; so one poisoned key
//! costs no memory and stops nobody else, however long it takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use outbox_core::{Record, Source, SourceError, TopicPartition, TopicPattern};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::identity::record_id;
use crate::limits;
use crate::metrics::Metrics;
use crate::notices::{Notice, Notices};
use crate::queue::{Item, QueueSender, SharedProgress, worker_of};
use crate::worker::outage_pause;

/// The partitions of one consumer, and when to do what with them.
pub(crate) struct Reader {
    link: Link,
    room: Arc<Notify>,
    partitions: BTreeMap<TopicPartition, Partition>,
    timers: Timers,
}

/// What lies between the source and the workers.
pub(crate) struct Link {
    pub(crate) consumer: String,
    pub(crate) source: Arc<dyn Source>,
    /// One for each handler, in their order.
    pub(crate) patterns: Vec<TopicPattern>,
    pub(crate) queues: Vec<QueueSender>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
}

/// When what is next due.
struct Timers {
    refreshed: Instant,
    refresh: Instant,
    commit: Instant,
    failures: u32,
    commit_failures: u32,
}

impl Default for Timers {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            refreshed: now,
            refresh: now,
            commit: now + limits::COMMIT_INTERVAL,
            failures: 0,
            commit_failures: 0,
        }
    }
}

/// One partition that is read.
struct Partition {
    of: TopicPartition,
    handler: usize,
    progress: SharedProgress,
    /// Fetched and not handed out: in offset order, from the progress' position on.
    held: VecDeque<Item>,
    /// After a failure: not before this.
    retry_at: Option<Instant>,
    failures: u32,
}

impl Reader {
    /// A reader that has seen nothing yet. `room` is what the queues tell when they have room.
    pub(crate) fn new(link: Link, room: Arc<Notify>) -> Self {
        Self {
            link,
            room,
            partitions: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// Reads until `stop`. Dropping the future loses nothing: what was fetched and not handed out
    /// is still in the partition's list, and what was not committed is committed at the end.
    pub(crate) async fn run(&mut self, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.read_on() => {}
        }
    }

    async fn read_on(&mut self) {
        loop {
            self.refresh().await;
            let mut moved = false;
            for partition in self.partitions.values_mut() {
                moved |= self.link.read(partition).await;
            }
            self.commit_when_due().await;
            if !moved {
                self.wait().await;
            }
        }
    }

    /// Looks for new topics and partitions; ones that are gone are forgotten.
    async fn refresh(&mut self) {
        let now = Instant::now();
        if now < self.timers.refresh {
            return;
        }
        self.timers.refreshed = now;
        self.timers.refresh = now + limits::REFRESH_INTERVAL;
        match self.find_partitions().await {
            Ok(()) if self.timers.failures > 0 => {
                self.timers.failures = 0;
                self.link
                    .notices
                    .send(Notice::Recovered("partitions".to_owned()));
            }
            Ok(()) => {}
            Err(error) => {
                self.timers.failures += 1;
                self.timers.refresh = now + outage_pause(self.timers.failures);
                self.link.source_failed(
                    "partitions",
                    "list partitions",
                    self.timers.failures,
                    &error,
                );
            }
        }
    }

    async fn find_partitions(&mut self) -> Result<(), SourceError> {
        let Link {
            source,
            patterns,
            consumer,
            ..
        } = &self.link;
        let found = source.partitions(patterns).await?;
        for of in &found {
            let handler = patterns.iter().position(|p| p.matches(&of.topic));
            if let (Some(handler), false) = (handler, self.partitions.contains_key(of)) {
                let start = source.committed(consumer, of).await?;
                tracing::info!(
                    consumer,
                    topic = &*of.topic,
                    partition = of.partition,
                    start,
                    "reading a partition"
                );
                let partition = Partition::new(of.clone(), handler, start);
                self.partitions.insert(of.clone(), partition);
            }
        }
        let found: BTreeSet<TopicPartition> = found.into_iter().collect();
        for (of, _) in self.partitions.extract_if(.., |of, _| !found.contains(of)) {
            tracing::info!(
                topic = &*of.topic,
                partition = of.partition,
                "a partition is read no more: it is another process's, or gone"
            );
        }
        Ok(())
    }

    async fn commit_when_due(&mut self) {
        let now = Instant::now();
        if now < self.timers.commit {
            return;
        }
        self.timers.commit = now + limits::COMMIT_INTERVAL;
        match self.commit().await {
            Ok(()) if self.timers.commit_failures > 0 => {
                self.timers.commit_failures = 0;
                self.link
                    .notices
                    .send(Notice::Recovered("offsets".to_owned()));
            }
            Ok(()) => {}
            Err(error) => {
                self.timers.commit_failures += 1;
                self.timers.commit = now + outage_pause(self.timers.commit_failures);
                self.link.source_failed(
                    "offsets",
                    "commit offsets",
                    self.timers.commit_failures,
                    &error,
                );
            }
        }
    }

    /// Commits what is finished and not committed yet.
    pub(crate) async fn commit(&mut self) -> Result<(), SourceError> {
        let next: Vec<(TopicPartition, i64)> = (self.partitions.values())
            .filter_map(|p| Some((p.of.clone(), p.progress.lock().uncommitted()?)))
            .collect();
        if next.is_empty() {
            return Ok(());
        }
        self.link.source.commit(&self.link.consumer, &next).await?;
        for (of, next) in next {
            if let Some(partition) = self.partitions.get(&of) {
                partition.progress.lock().committed(next);
            }
        }
        Ok(())
    }

    /// Tells the source that nothing more is read or committed.
    pub(crate) async fn close(&mut self) {
        self.link.source.close().await;
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) {
        let mut wake = (Instant::now() + limits::IDLE_POLL).min(self.timers.refresh);
        let mut wants_room = false;
        for partition in self.partitions.values() {
            let progress = partition.progress.lock();
            wants_room |= !partition.held.is_empty() || progress.count_behind() > 0;
            if progress.is_busy() || progress.uncommitted().is_some() {
                wake = wake.min(self.timers.commit);
            }
            wake = partition.retry_at.map_or(wake, |at| wake.min(at));
        }
        tokio::select! {
            // Each arm only says that it is time to look again: dropping any of them is safe, for
            // the next turn looks at everything.
            () = sleep_until(wake) => {}
            () = self.room.notified(), if wants_room => {}
            () = self.link.source.changed() => {
                let soon = self.timers.refreshed + limits::REFRESH_INTERVAL_MIN;
                self.timers.refresh = self.timers.refresh.min(soon);
            }
        }
    }
}

impl Link {
    /// Hands out what there is of one partition; whether anything moved.
    async fn read(&self, partition: &mut Partition) -> bool {
        let now = Instant::now();
        if partition.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        partition.retry_at = None;
        match self.try_read(partition).await {
            Ok(moved) => {
                if partition.failures > 0 {
                    partition.failures = 0;
                    self.notices.send(Notice::Recovered(partition.name()));
                }
                moved
            }
            Err(error) => {
                partition.failures += 1;
                partition.retry_at = Some(now + outage_pause(partition.failures));
                self.source_failed(
                    &partition.name(),
                    "read a partition",
                    partition.failures,
                    &error,
                );
                false
            }
        }
    }

    async fn try_read(&self, partition: &mut Partition) -> Result<bool, SourceError> {
        let mut moved = false;
        for (worker, queue) in self.queues.iter().enumerate() {
            let behind = partition.progress.lock().behind(worker);
            if let (Some(from), true) = (behind, queue.is_half_empty()) {
                moved |= self.catch_up(partition, worker, from).await?;
            }
        }
        let (position, all_behind) = {
            let progress = partition.progress.lock();
            (
                progress.position(),
                progress.count_behind() == self.queues.len(),
            )
        };
        // With every worker behind, reading on would only mean reading it all again.
        if partition.held.is_empty() && !all_behind {
            let records = match self.fetch(&partition.of, position).await? {
                Fetched::Records(records) => records,
                Fetched::Lost { resume } => {
                    partition.resume(resume);
                    return Ok(true);
                }
            };
            let records = records
                .into_iter()
                .filter(|record| record.offset >= position);
            partition.held = records.map(|record| partition.item(record)).collect();
        }
        Ok(self.hand_out(partition) || moved)
    }

    /// The main pass: hands out held records in order, until a busy worker's queue is full.
    fn hand_out(&self, partition: &mut Partition) -> bool {
        let mut moved = false;
        while let Some(item) = partition.held.front() {
            let worker = worker_of(&item.record, self.queues.len());
            let (queue, offset) = (&self.queues[worker], item.record.offset);
            let mut progress = partition.progress.lock();
            if progress.count_behind() == self.queues.len() {
                break;
            }
            let start = progress.behind(worker).is_none() && queue.fits(item);
            if start {
                progress.start(offset);
            } else if progress.behind(worker).is_some() || queue.is_stalled() {
                progress.leave_out(worker, offset);
            } else {
                break;
            }
            drop(progress);
            if let (Some(item), true) = (partition.held.pop_front(), start) {
                queue.push(item);
            }
            moved = true;
        }
        moved
    }

    /// Hands out to one worker what was left out for it, from `from` on, as far as one fetch goes
    /// and there is room.
    async fn catch_up(
        &self,
        partition: &Partition,
        worker: usize,
        from: i64,
    ) -> Result<bool, SourceError> {
        let records = match self.fetch(&partition.of, from).await? {
            Fetched::Records(records) => records,
            Fetched::Lost { resume } => {
                partition.progress.lock().catch_up(worker, resume);
                return Ok(true);
            }
        };
        let queue = &self.queues[worker];
        let mut progress = partition.progress.lock();
        let mut next = progress.position();
        if let Some(last) = records.last() {
            next = next.min(last.offset + 1);
        }
        let end = next;
        for record in records {
            let offset = record.offset;
            if offset < from || offset >= end || worker_of(&record, self.queues.len()) != worker {
                continue;
            }
            let item = partition.item(record);
            if !queue.fits(&item) {
                next = offset;
                break;
            }
            progress.start_late(offset);
            queue.push(item);
        }
        progress.catch_up(worker, next);
        Ok(next > from)
    }

    /// One fetch. Records that the source no longer holds are reported, and passed.
    async fn fetch(&self, of: &TopicPartition, offset: i64) -> Result<Fetched, SourceError> {
        let (first, end) = match self.source.fetch(of, offset, limits::FETCH_BYTES).await {
            Ok(records) => return Ok(Fetched::Records(records)),
            // A source that refuses the offset it proposes is to be backed off from.
            Err(SourceError::OffsetOutOfRange { first, end, .. }) if first != offset => {
                (first, end)
            }
            Err(error) => return Err(error),
        };
        // Before the first: retention was faster than this consumer. Behind the end: the log was
        // restored or made anew; reading all of it is safe, for what was applied is in the inbox.
        let lost = u64::try_from(first - offset).unwrap_or_default();
        self.metrics.offsets_lost.increment(lost);
        let text = format!(
            "consumer {:?} wanted offset {offset} of {} partition {}, which holds {first} to \
             {end}: it goes on at {first}",
            self.consumer, of.topic, of.partition
        );
        tracing::error!(lost, "{text}");
        self.notices.send(Notice::Stopped(text));
        Ok(Fetched::Lost { resume: first })
    }

    fn source_failed(&self, part: &str, what: &str, failures: u32, error: &SourceError) {
        self.metrics.source_errors.increment(1);
        // One failure may pass by itself; after that, say it once until it does.
        if failures == 2 {
            let text = format!(
                "consumer {:?} cannot {what} ({part}): {error}",
                self.consumer
            );
            tracing::error!("{text}; trying on");
            self.notices.send(Notice::Outage(part.to_owned(), text));
        } else {
            tracing::debug!(consumer = self.consumer, part, %error, failures, "cannot {what}");
        }
    }
}

enum Fetched {
    Records(Vec<Record>),
    Lost { resume: i64 },
}

impl Partition {
    fn new(of: TopicPartition, handler: usize, start: i64) -> Self {
        Self {
            of,
            handler,
            progress: SharedProgress::new(start),
            held: VecDeque::new(),
            retry_at: None,
            failures: 0,
        }
    }

    /// Goes on at `offset`, the first one that the source still holds.
    fn resume(&mut self, offset: i64) {
        let mut progress = self.progress.lock();
        if offset >= progress.position() {
            progress.skip_to(offset);
            return;
        }
        drop(progress);
        // The log was made anew: its offsets mean other records than those still in flight.
        self.progress = SharedProgress::new(offset);
    }

    fn name(&self) -> String {
        format!("{} partition {}", self.of.topic, self.of.partition)
    }

    fn item(&self, record: Record) -> Item {
        Item {
            id: record_id(&record),
            record: Arc::new(record),
            handler: self.handler,
            progress: self.progress.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
