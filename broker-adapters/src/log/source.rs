//! Consumes from the bundled log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use outbox_core::{Headers, Record, Source, SourceError, TopicPartition, TopicPattern};
use outbox_log_broker::batch::{BatchHeader, RecordView, Records};
use outbox_log_broker::{AppendError, FetchError, Log, OffsetCommit};
use uuid::Uuid;

use super::headers::{CONTENT_TYPE, ID, SOURCE, SOURCE_DEFAULT, SPEC_VERSION, TIME, TYPE};

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
        let partition = number(from)?;
        let (log, at) = (self.log.clone(), from.clone());
        // The range may have to come from the disk.
        let read = tokio::task::spawn_blocking(move || {
            let fetched = log.fetch(&at.topic, partition, offset, max_bytes);
            decode(
                &at,
                offset,
                max_bytes,
                fetched.map_err(|e| failure(&e))?.batches,
            )
        });
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

/// The records of `batches` from `offset` on, until `max_bytes` of keys and payloads.
fn decode(
    from: &TopicPartition,
    offset: i64,
    max_bytes: usize,
    batches: Bytes,
) -> Result<Vec<Record>, SourceError> {
    let mut decoded = Vec::new();
    let (mut rest, mut bytes) = (&batches[..], 0);
    while !rest.is_empty() {
        let records = Records::new(rest).map_err(|e| SourceError::Permanent(e.to_string()))?;
        let header: BatchHeader = *records.header();
        rest = &rest[header.bytes..];
        if header.is_control() {
            continue;
        }
        for record in records {
            let record = record.map_err(|e| SourceError::Permanent(e.to_string()))?;
            if record.offset < offset {
                continue;
            }
            let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if !decoded.is_empty() && bytes + size > max_bytes {
                return Ok(decoded);
            }
            bytes += size;
            decoded.push(to_record(from, &record, &batches));
        }
    }
    Ok(decoded)
}

fn to_record(from: &TopicPartition, view: &RecordView<'_>, batches: &Bytes) -> Record {
    let mut record = Record {
        partition: from.clone(),
        offset: view.offset,
        id: None,
        key: view.key.map(|k| batches.slice_ref(k)),
        payload: view.value.map(|v| batches.slice_ref(v)).unwrap_or_default(),
        content_type: None,
        headers: Headers::new(),
        timestamp: DateTime::from_timestamp_millis(view.timestamp).unwrap_or_default(),
    };
    for header in view.headers.clone() {
        let name = String::from_utf8_lossy(header.name);
        let value = String::from_utf8_lossy(header.value.unwrap_or_default());
        take_header(&mut record, &name, &value);
    }
    record
}

/// Puts a header where it belongs. The attributes that a message does not have as headers are left
/// out, so that its headers come out as they went in.
fn take_header(record: &mut Record, name: &str, value: &str) {
    match name {
        ID if record.id.is_none() => {
            record.id = Uuid::parse_str(value).ok();
            if record.id.is_none() {
                record.headers.insert(name.to_owned(), value.to_owned());
            }
        }
        TIME => match value.parse::<DateTime<Utc>>() {
            Ok(time) => record.timestamp = time,
            Err(_) => {
                record.headers.insert(name.to_owned(), value.to_owned());
            }
        },
        CONTENT_TYPE if record.content_type.is_none() => {
            record.content_type = Some(value.to_owned());
        }
        SPEC_VERSION => {}
        TYPE if *value == *record.partition.topic => {}
        SOURCE if value == SOURCE_DEFAULT => {}
        _ => {
            record.headers.insert(name.to_owned(), value.to_owned());
        }
    }
}
