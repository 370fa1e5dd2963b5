//! The source.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use outbox_broker::client::{Client, ClientError, ClientOptions, FetchWish};
use outbox_core::{Record, Source, SourceError, TopicPartition, TopicPattern};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::records::{decode, next_offset};
use super::membership::Membership;
use super::readahead::{Fetched, ROUND_BYTES, Readahead};

/// Longest time that the broker holds a long poll back. A partition that comes to be read while one
/// is under way waits so long for its news at most.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Pause after a long poll that failed.
const POLL_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a commit for the end of a rebalance.
const REBALANCE_WAIT: Duration = Duration::from_secs(10);
/// Rebalances in a row that one commit outlives.
const COMMIT_TRIES: u32 = 3;

/// Kafka's error codes that need an answer of their own.
const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// A log broker at an address as a source of records. All processes whose sources have the same
/// group share the partitions; each must give its consumer the group's name, too.
///
/// Offsets of the group are kept by the broker.
pub struct RemoteLogSource {
    reading: Arc<Reading>,
    options: ClientOptions,
    group: String,
    membership: OnceLock<Membership>,
    polling: OnceLock<DropGuard>,
    /// The news that [`Source::changed`] has told of.
    seen: AtomicU64,
    /// The assignment that [`Source::partitions`] has told of.
    told: AtomicU64,
}

/// What the source and its long poll share.
struct Reading {
    client: Client,
    ahead: Mutex<Readahead>,
    /// Somebody waits for news.
    wanted: Notify,
    /// Counts how often there was some. Not per partition: what lies here because the consumer has
    /// no room for it is no news.
    news: watch::Sender<u64>,
}

impl std::fmt::Debug for RemoteLogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteLogSource")
            .field("client", &self.reading.client)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl RemoteLogSource {
    /// A source for one member of `group`. It connects, and joins, when it is first used.
    pub fn new(options: ClientOptions, group: impl Into<String>) -> Self {
        let reading = Reading {
            client: Client::new(options.clone()),
            ahead: Mutex::default(),
            wanted: Notify::new(),
            news: watch::Sender::new(0),
        };
        Self {
            reading: Arc::new(reading),
            options,
            group: group.into(),
            membership: OnceLock::new(),
            polling: OnceLock::new(),
            seen: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    fn start_polling(&self) {
        self.polling.get_or_init(|| {
            let stop = CancellationToken::new();
            let (token, reading) = (stop.clone(), self.reading.clone());
            let client = Client::new(self.options.clone());
            tokio::spawn(async move {
                // A poll that is dropped leaves nothing behind but its connection.
                token.run_until_cancelled(reading.poll(&client)).await;
            });
            stop.drop_guard()
        });
    }

    async fn lost(&self, of: &TopicPartition, offset: i64) -> SourceError {
        let (client, partition) = (&self.reading.client, of.partition as u32);
        match client.offsets(&of.topic, partition).await {
            Ok(Some(held)) => SourceError::OffsetOutOfRange {
                offset,
                first: held.first,
                end: held.end,
            },
            Ok(None) => gone(of),
            Err(error) => outage(&error),
        }
    }
}

#[async_trait]
impl Source for RemoteLogSource {
    async fn partitions(
        &self,
        topics: &[TopicPattern],
    ) -> Result<Vec<TopicPartition>, SourceError> {
        let start = || Membership::start(self.options.clone(), self.group.clone(), topics.to_vec());
        let membership = self.membership.get_or_init(start);
        membership.subscribe(topics);
        let standing = membership.first().await;
        // An assignment holds until there is another one, even if the broker is away meanwhile.
        if let (None, Some(problem)) = (standing.member, standing.problem) {
            return Err(SourceError::Outage(problem));
        }
        self.told.store(standing.assignments, Ordering::Release);
        self.reading.ahead().retain(&standing.partitions);
        Ok(standing.partitions.into_iter().collect())
    }

    async fn committed(&self, group: &str, of: &TopicPartition) -> Result<i64, SourceError> {
        let (client, partition) = (&self.reading.client, of.partition as u32);
        let place = (of.topic.clone(), partition);
        let committed = client.committed(group, std::slice::from_ref(&place)).await;
        if let Some(&offset) = committed.map_err(|e| outage(&e))?.get(&place) {
            return Ok(offset);
        }
        let held = client.offsets(&of.topic, partition).await;
        match held.map_err(|e| outage(&e))? {
            Some(held) => Ok(held.first),
            None => Err(gone(of)),
        }
    }

    async fn fetch(
        &self,
        from: &TopicPartition,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Record>, SourceError> {
        loop {
            match self.reading.next(from, offset, max_bytes).await? {
                Fetched::Nothing => return Ok(Vec::new()),
                Fetched::Failed(OFFSET_OUT_OF_RANGE) => return Err(self.lost(from, offset).await),
                Fetched::Failed(UNKNOWN_TOPIC_OR_PARTITION) => return Err(gone(from)),
                Fetched::Failed(code) => {
                    let text = format!("the broker answers with error {code}");
                    return Err(SourceError::Outage(text));
                }
                Fetched::Batches(batches, aborted) => {
                    let end = next_offset(&batches);
                    let records = decode(from, offset, max_bytes, batches, &aborted)?;
                    let next = records.last().map_or(end, |last| last.offset + 1);
                    let given = !records.is_empty();
                    self.reading.ahead().advance(from, next, given);
                    if given {
                        return Ok(records);
                    }
                }
            }
        }
    }

    async fn changed(&self) {
        self.start_polling();
        self.reading.wanted.notify_one();
        let mut news = self.reading.news.subscribe();
        let seen = self.seen.load(Ordering::Acquire);
        let reassigned = async {
            match self.membership.get().map(Membership::watch) {
                Some(mut standing) => {
                    let told = self.told.load(Ordering::Acquire);
                    let other = standing.wait_for(|s| s.assignments != told);
                    // It fails when the membership has ended: then nothing changes any more.
                    if other.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        // Both only say that there may be something new: dropping either loses nothing, for the
        // count of the news stays, and the partitions are looked at regularly.
        tokio::select! {
            now = news.wait_for(|&now| now > seen) => {
                if let Ok(now) = now {
                    self.seen.fetch_max(*now, Ordering::AcqRel);
                }
            }
            () = reassigned => {}
        }
    }

    async fn commit(
        &self,
        _group: &str,
        next: &[(TopicPartition, i64)],
    ) -> Result<(), SourceError> {
        let Some(membership) = self.membership.get() else {
            return Err(SourceError::Permanent(
                "no partition was asked for yet".to_owned(),
            ));
        };
        let mut standing = membership.watch();
        let mut tries = 0;
        loop {
            let now = standing.borrow_and_update().clone();
            let own = own(next, &now.partitions);
            if own.is_empty() {
                return Ok(());
            }
            let (client, member) = (&self.reading.client, now.member.as_ref());
            match client.commit(&self.group, member, &own).await {
                // The next assignment tells whose the partitions are.
                Err(error) if error.is_rebalance() && tries < COMMIT_TRIES => {
                    tries += 1;
                    let changed = timeout(REBALANCE_WAIT, standing.changed()).await;
                    if !matches!(changed, Ok(Ok(()))) {
                        return Err(outage(&error));
                    }
                }
                committed => return committed.map_err(|e| outage(&e)),
            }
        }
    }

    async fn close(&self) {
        if let Some(membership) = self.membership.get() {
            membership.leave().await;
        }
    }
}

impl Reading {
    /// What follows in one partition: from what was fetched ahead, or else from the broker, together
    /// with all other partitions that have nothing left.
    async fn next(
        &self,
        from: &TopicPartition,
        offset: i64,
        bytes_max: usize,
    ) -> Result<Fetched, SourceError> {
        let held = self.ahead().take(from, offset, bytes_max);
        if let Some(fetched) = held {
            return Ok(fetched);
        }
        let wishes = self.ahead().wishes(Some(from), false);
        let ranges = self
            .client
            .fetch(&wishes, ROUND_BYTES, Duration::ZERO)
            .await;
        let mut ahead = self.ahead();
        let news = ahead.keep(&wishes, ranges.map_err(|e| outage(&e))?);
        let fetched = ahead.take(from, offset, bytes_max);
        let fetched = fetched.unwrap_or(Fetched::Nothing);
        // The consumer may have asked for the others in this round already: without a word it would
        // wait for what lies here.
        if news > usize::from(fetched != Fetched::Nothing) {
            self.news.send_modify(|n| *n += 1);
        }
        Ok(fetched)
    }

    fn ahead(&self) -> MutexGuard<'_, Readahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for news at the broker whenever somebody waits here.
    async fn poll(&self, client: &Client) {
        loop {
            self.wanted.notified().await;
            let wishes = self.ahead().wishes(None, true);
            // When everything that is read has something in hand there is nothing to wait for.
            if !wishes.is_empty() {
                self.poll_for(client, &wishes).await;
            }
        }
    }

    async fn poll_for(&self, client: &Client, wishes: &[FetchWish]) {
        match client.fetch(wishes, ROUND_BYTES, POLL_WAIT).await {
            Ok(ranges) => {
                if self.ahead().keep(wishes, ranges) == 0 {
                    // Whoever waited still does.
                    self.wanted.notify_one();
                    return;
                }
            }
            // The next fetch of the consumer says what is wrong.
            Err(_) => sleep(POLL_PAUSE).await,
        }
        self.news.send_modify(|n| *n += 1);
    }
}

/// What of `next` is this member's to commit, sorted. Partitions that are another member's now have
/// their offsets committed by that one.
fn own(
    next: &[(TopicPartition, i64)],
    assigned: &BTreeSet<TopicPartition>,
) -> Vec<((Arc<str>, u32), i64)> {
    let own = next.iter().filter(|(of, _)| assigned.contains(of));
    let mut own: Vec<_> = own
        .map(|(of, offset)| ((of.topic.clone(), of.partition as u32), *offset))
        .collect();
    own.sort();
    own
}

fn outage(error: &ClientError) -> SourceError {
    SourceError::Outage(error.to_string())
}

fn gone(of: &TopicPartition) -> SourceError {
    let text = format!(
        "there is no partition {} of topic {:?}",
        of.partition, of.topic
    );
    SourceError::Permanent(text)
}
