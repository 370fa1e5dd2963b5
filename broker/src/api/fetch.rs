//! Fetch: records from an offset on, now or when there are some.

use std::sync::Arc;
use std::time::Duration;

use outbox_log_broker::{Batches, Isolation};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Call;
use super::error::fetch_error;
use crate::codec::messages::FetchRequest;
use crate::codec::messages::fetch_request::FetchPartition;
use crate::codec::{ErrorCode, FetchAnswer, FetchedPartition, FetchedTopic, NO_ERROR};
use crate::limits::{FETCH_ANSWER_BYTES_MAX, FETCH_LEAN_BYTES, FETCH_WAIT_MAX};
use crate::security::{Operation, Resource};

/// The isolation level that leaves out open and aborted transactions.
pub(super) const READ_COMMITTED: i8 = 1;

pub(super) async fn handle(call: &Call<'_>, request: FetchRequest) -> FetchAnswer {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(FETCH_WAIT_MAX);
    let mut watch = None;
    loop {
        let mut look = Look::new(call, &request);
        let answer = look.all();
        let enough = look.bytes >= request.min_bytes.max(0) as usize || look.failed;
        if !enough && Instant::now() < deadline {
            let Some(watch) = &watch else {
                // Another look, for something may have come before the watch.
                watch = Some(call.shared.log.watch(partitions(&request)));
                continue;
            };
            if timeout_at(deadline, watch.changed()).await.is_ok() {
                // What was read is read again: it holds no room while more is waited for.
                continue;
            }
        }
        let fetched = &call.shared.meters.fetched_bytes;
        fetched.increment(look.bytes as u64);
        return answer;
    }
}

/// The partitions that are asked for.
fn partitions(request: &FetchRequest) -> Vec<(Arc<str>, u32)> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let name: Arc<str> = topic.topic.as_str().into();
        let numbers = topic.partitions.iter().map(|p| p.partition);
        let numbers = numbers.filter_map(|n| u32::try_from(n).ok());
        wanted.extend(numbers.map(|n| (name.clone(), n)));
    }
    wanted
}

/// One look at everything that is asked for.
struct Look<'a> {
    call: &'a Call<'a>,
    request: &'a FetchRequest,
    /// What the answer may still take.
    left: usize,
    /// What it has taken.
    bytes: usize,
    /// What of that is in memory.
    held: usize,
    /// Some partition cannot be read: the client is to know at once.
    failed: bool,
    permit: Option<OwnedSemaphorePermit>,
    files: Vec<OwnedSemaphorePermit>,
}

impl<'a> Look<'a> {
    fn new(call: &'a Call<'a>, request: &'a FetchRequest) -> Self {
        let wanted = usize::try_from(request.max_bytes).unwrap_or(0);
        Self {
            call,
            request,
            left: wanted.min(FETCH_ANSWER_BYTES_MAX),
            bytes: 0,
            held: 0,
            failed: false,
            permit: None,
            files: Vec::new(),
        }
    }

    fn all(&mut self) -> FetchAnswer {
        let request = self.request;
        let topics = request.topics.iter().map(|topic| {
            let name = &topic.topic;
            let allowed = self.call.authorize(Operation::Read, Resource::Topic(name));
            let partitions = topic.partitions.iter().map(|wanted| match allowed {
                true => self.partition(name, wanted),
                false => self.failed(wanted, ErrorCode::TopicAuthorizationFailed),
            });
            FetchedTopic {
                partitions: partitions.collect(),
                topic: name.0.clone(),
            }
        });
        let topics = topics.collect();
        FetchAnswer {
            topics,
            permits: self.settle(),
        }
    }

    fn partition(&mut self, topic: &str, wanted: &FetchPartition) -> FetchedPartition {
        if wanted.current_leader_epoch > 0 {
            return self.failed(wanted, ErrorCode::UnknownLeaderEpoch);
        }
        let Ok(index) = u32::try_from(wanted.partition) else {
            return self.failed(wanted, ErrorCode::UnknownTopicOrPartition);
        };
        let log = &self.call.shared.log;
        let committed = self.request.isolation_level == READ_COMMITTED;
        let offsets = log.offsets(topic, index);
        let found = offsets.and_then(|found| Ok((found, log.last_stable_offset(topic, index)?)));
        let ((first, end), stable) = match found {
            Ok(found) => found,
            Err(error) => return self.failed(wanted, fetch_error(&error)),
        };
        let mut answer = FetchedPartition {
            partition: wanted.partition,
            error_code: NO_ERROR,
            high_watermark: end,
            last_stable_offset: stable,
            log_start_offset: first,
            aborted: committed.then(Vec::new),
            ..FetchedPartition::default()
        };
        if wanted.fetch_offset == end || (self.left == 0 && self.bytes > 0) {
            return answer;
        }
        let most = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
        let most = most.min(self.room());
        let isolation = match committed {
            true => Isolation::Committed,
            false => Isolation::Uncommitted,
        };
        match log.fetch_in_file(topic, index, wanted.fetch_offset, most, isolation) {
            // A batch is whole. One that is too large for what is left waits for the next request,
            // unless it would be the only one: the reader would never get beyond it.
            Ok(fetched) if fetched.batches.len() <= self.left || self.bytes == 0 => {
                let bytes = fetched.batches.len();
                let records = match self.hold(fetched.batches) {
                    Ok(records) => records,
                    Err(error) => {
                        tracing::error!(topic, index, %error, "a segment could not be read");
                        return self.failed(wanted, ErrorCode::KafkaStorageError);
                    }
                };
                self.bytes += bytes;
                self.left = self.left.saturating_sub(bytes);
                answer.high_watermark = fetched.end_offset;
                answer.last_stable_offset = fetched.last_stable_offset;
                let aborted = fetched.aborted.iter();
                let aborted = aborted.map(|a| (a.producer_id, a.first_offset)).collect();
                answer.aborted = committed.then_some(aborted);
                answer.records = records;
                answer
            }
            Ok(_) => answer,
            Err(error) => self.failed(wanted, fetch_error(&error)),
        }
    }

    /// What may be taken now: less when many answers wait for readers that do not read.
    fn room(&mut self) -> usize {
        if self.permit.is_none() {
            let room = self.call.shared.fetch_room.clone();
            self.permit = room.try_acquire_many_owned(self.left as u32).ok();
            if self.permit.is_none() {
                self.left = self.left.min(FETCH_LEAN_BYTES);
            }
        }
        self.left
    }

    /// Holds records until they are sent: in their file, if there is room for one more.
    fn hold(&mut self, batches: Batches) -> std::io::Result<Batches> {
        let batches = match batches {
            Batches::InFile(range) => {
                let files = self.call.shared.fetch_files.clone();
                match files.try_acquire_owned() {
                    Ok(permit) => {
                        self.files.push(permit);
                        return Ok(Batches::InFile(range));
                    }
                    Err(_) => range.read(range.len())?,
                }
            }
            Batches::Read(bytes) => bytes,
        };
        self.held += batches.len();
        Ok(Batches::Read(batches))
    }

    /// Gives back the room that was not needed, and answers what is.
    fn settle(&mut self) -> Vec<OwnedSemaphorePermit> {
        let mut permits = std::mem::take(&mut self.files);
        if let Some(mut permit) = self.permit.take() {
            let unused = permit.num_permits().saturating_sub(self.held);
            drop(permit.split(unused));
            permits.push(permit);
        }
        permits
    }

    fn failed(&mut self, wanted: &FetchPartition, error: ErrorCode) -> FetchedPartition {
        self.failed = true;
        FetchedPartition {
            partition: wanted.partition,
            error_code: error.code(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: None,
            ..FetchedPartition::default()
        }
    }
}
