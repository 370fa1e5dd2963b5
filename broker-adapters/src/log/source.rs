//! Consumes from the bundled log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use outbox_core::{Record, Source, SourceError, TopicPartition, TopicPattern};
use outbox_log_broker::{AppendError, FetchError, Isolation, Log, OffsetCommit};

use super::records::{decode, next_offset};

/// The bundled log as a source of records. Offsets of consumer groups are kept in the log.
#[derive(Debug)]
pub struct LogSource {
    log: Arc<Log>,
    /// The version of the log that [`Source::changed`] has told of.
    seen: AtomicU64,
}

impl LogSource {
    /// A source on an open log.
    pub fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            seen: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Source for LogSource {
    async fn partitions(
        &self,
        topics: &[TopicPattern],
    ) -> Result<Vec<TopicPartition>, SourceError> {
        let mut partitions = Vec::new();
        for (topic, options) in self.log.topics() {
            if topics.iter().any(|p| p.matches(&topic)) {
                partitions.extend(
                    (0..options.partitions as i32).map(|partition| TopicPartition {
                        topic: topic.clone(),
                        partition,
                    }),
                );
            }
        }
        Ok(partitions)
    }

    async fn committed(&self, group: &str, of: &TopicPartition) -> Result<i64, SourceError> {
        let partition = number(of)?;
        let (first, _) = self
            .log
            .offsets(&of.topic, partition)
            .map_err(|e| failure(&e))?;
        let committed = self.log.committed(group, &of.topic, partition);
        Ok(committed.map_or(first, |c| c.next_offset))
    }

    async fn fetch(
        &self,
        from: &TopicPartition,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Record>, SourceError> {
        let (log, at) = (self.log.clone(), from.clone());
        // The range may have to come from the disk.
        let read = tokio::task::spawn_blocking(move || read(&log, &at, offset, max_bytes));
        let result = read.await;
        result.map_err(|e| SourceError::Outage(e.to_string()))?
    }

    async fn changed(&self) {
        let mut version = self.log.version();
        let seen = self.seen.load(Ordering::Acquire);
        // The sender lives as long as the log, which we hold.
        if let Ok(now) = version.wait_for(|&now| now > seen).await {
            self.seen.fetch_max(*now, Ordering::AcqRel);
        }
    }

    async fn commit(&self, group: &str, next: &[(TopicPartition, i64)]) -> Result<(), SourceError> {
        let mut offsets = Vec::with_capacity(next.len());
        for (of, offset) in next {
            offsets.push(OffsetCommit::new(of.topic.clone(), number(of)?, *offset));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let committed = self.log.commit(group, &offsets).await;
        committed.map_err(|e| match e {
            AppendError::Invalid(_) | AppendError::Unknown { .. } => {
                SourceError::Permanent(e.to_string())
            }
            _ => SourceError::Outage(e.to_string()),
        })
    }
}

/// Committed records from `offset` on. What is not for consumers, the ends of transactions and aborted
/// records, is passed over: nothing at all means that there is nothing more.
fn read(
    log: &Log,
    from: &TopicPartition,
    offset: i64,
    max_bytes: usize,
) -> Result<Vec<Record>, SourceError> {
    let partition = number(from)?;
    let mut at = offset;
    loop {
        let isolation = Isolation::Committed;
        let fetched = log.fetch_isolated(&from.topic, partition, at, max_bytes, isolation);
        let fetched = fetched.map_err(|e| failure(&e))?;
        if fetched.batches.is_empty() {
            return Ok(Vec::new());
        }
        at = next_offset(&fetched.batches);
        let aborted = fetched.aborted.iter();
        let aborted: Vec<_> = aborted.map(|a| (a.producer_id, a.first_offset)).collect();
        let records = decode(from, offset, max_bytes, fetched.batches, &aborted)?;
        if !records.is_empty() {
            return Ok(records);
        }
    }
}

fn number(of: &TopicPartition) -> Result<u32, SourceError> {
    u32::try_from(of.partition)
        .map_err(|_| SourceError::Permanent(format!("partition {} is negative", of.partition)))
}

fn failure(error: &FetchError) -> SourceError {
    match *error {
        FetchError::OffsetOutOfRange {
            offset, first, end, ..
        } => SourceError::OffsetOutOfRange { offset, first, end },
        FetchError::Disk(_) => SourceError::Outage(error.to_string()),
        _ => SourceError::Permanent(error.to_string()),
    }
}
