//! Produce: the only request that is started before the ones before it are answered.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use outbox_log_broker::batch::{BatchHeader, DecodeError, Records, open};
use outbox_log_broker::{Append, Slice};

use super::error::{append_error, batch_error};
use super::{Call, publish};
use crate::codec::{ErrorCode, NO_ERROR, PartitionOutcome, PartitionRecords, ProduceRequest};
use crate::error::ConnectionError;
use crate::pipeline::InFlight;
use crate::security::{Operation, Resource};

/// The first version that is served; those before it carry formats of records that are not.
const SERVED_FROM: i16 = 3;
/// The first version whose readers know zstd.
const ZSTD_FROM: i16 = 7;

const COMPRESSION_MASK: i16 = 0x07;
const ZSTD: i16 = 4;

/// A partition's records that are refused, and why.
type Refusal = (ErrorCode, String);

/// Checks a request and starts its appends, each partition on its own so that each fails on its
/// own. Waits only while the log has no room for more.
pub(crate) async fn start(call: &Call<'_>, body: Bytes) -> Result<InFlight, ConnectionError> {
    let (head, version) = (call.head, call.version);
    let request = ProduceRequest::decode(body, version)?;
    if let Some(publication) = request.publication {
        let (acks, partitions) = (request.acks, request.partitions);
        return Ok(publish::start(call, acks, partitions, publication).await);
    }
    let mut started = InFlight {
        correlation_id: head.correlation_id,
        version,
        answered: request.acks != 0,
        bytes: 0,
        since: Instant::now(),
        outcomes: Vec::with_capacity(request.partitions.len()),
        submitted: VecDeque::with_capacity(request.partitions.len()),
        publishing: None,
    };
    let refusal = refused(version, request.acks);
    for partition in request.partitions {
        let mut outcome = outcome(&partition);
        let checked = match &refusal {
            Some(refusal) => Err(refusal.clone()),
            None => check(call, &partition),
        };
        let checked = checked.and_then(|()| {
            outcome.blamed = without_key(call, &partition)?;
            keyed(&outcome)
        });
        let submitted = match checked {
            Ok(()) => submit(call, &partition).await,
            Err(refusal) => Err(refusal),
        };
        match submitted {
            Ok(submitted) => {
                started.bytes += partition.records.len();
                let index = started.outcomes.len();
                started.submitted.push_back((index, submitted));
            }
            Err((code, text)) => {
                outcome.error_code = code.code();
                outcome.error_message = Some(text);
            }
        }
        started.outcomes.push(outcome);
    }
    call.shared
        .meters
        .produced_bytes
        .increment(started.bytes as u64);
    Ok(started)
}

async fn submit(
    call: &Call<'_>,
    partition: &PartitionRecords,
) -> Result<outbox_log_broker::Submitted, Refusal> {
    let append = Append {
        // The one copy of the records.
        buffer: partition.records.to_vec(),
        slices: vec![Slice {
            topic: partition.topic.clone(),
            partition: partition.partition as u32,
            bytes: partition.records.len(),
        }],
        publication: None,
    };
    let submitted = call.shared.log.submit(append).await;
    submitted.map_err(|error| (append_error(&error), error.to_string()))
}

pub(super) fn outcome(partition: &PartitionRecords) -> PartitionOutcome {
    PartitionOutcome {
        topic: partition.topic.clone(),
        partition: partition.partition,
        error_code: NO_ERROR,
        base_offset: -1,
        log_append_time: -1,
        log_start_offset: -1,
        error_message: None,
        blamed: Vec::new(),
    }
}

/// The records without a key of a batch for a topic that is compacted, where a record is known by its
/// key.
fn without_key(call: &Call<'_>, partition: &PartitionRecords) -> Result<Vec<i32>, Refusal> {
    let Some(options) = call.shared.log.topic(&partition.topic) else {
        return Ok(Vec::new());
    };
    // What is too large is refused for that, by the log: as Kafka does, and unread.
    let too_large = partition.records.len() > options.max_message_bytes as usize;
    if !options.cleanup.compacts() || too_large {
        return Ok(Vec::new());
    }
    let unreadable = |error: DecodeError| match error {
        DecodeError::Batch(error) => (batch_error(&error), error.to_string()),
        error => (ErrorCode::InvalidRecord, error.to_string()),
    };
    let batch = open(&partition.records).map_err(unreadable)?;
    let mut found = Vec::new();
    for (index, record) in Records::new(&batch).map_err(unreadable)?.enumerate() {
        if record.map_err(unreadable)?.key.is_none() {
            found.push(index as i32);
        }
    }
    Ok(found)
}

/// Refuses a batch that has records without a key where each must have one.
fn keyed(outcome: &PartitionOutcome) -> Result<(), Refusal> {
    let Some(first) = outcome.blamed.first() else {
        return Ok(());
    };
    let PartitionOutcome {
        topic, partition, ..
    } = outcome;
    let text = format!(
        "topic {topic} is compacted, where each record needs a key: {} of the batch for partition \
         {partition} have none, the first of them record {first}",
        outcome.blamed.len()
    );
    Err((ErrorCode::InvalidRecord, text))
}

/// What is wrong with the whole request.
fn refused(version: i16, acks: i16) -> Option<Refusal> {
    if version < SERVED_FROM {
        let text = format!("Produce version {version} is not served: use {SERVED_FROM} to 9");
        return Some((ErrorCode::UnsupportedVersion, text));
    }
    if !(-1..=1).contains(&acks) {
        let text = format!("acks is {acks}, it must be -1, 0 or 1");
        return Some((ErrorCode::InvalidRequiredAcks, text));
    }
    None
}

/// Checks what the log does not: what a client may not send.
fn check(call: &Call<'_>, partition: &PartitionRecords) -> Result<(), Refusal> {
    if !call.authorize(Operation::Write, Resource::Topic(&partition.topic)) {
        let text = format!("no right to write to topic {}", partition.topic);
        return Err((ErrorCode::TopicAuthorizationFailed, text));
    }
    if partition.partition < 0 {
        let text = format!("there is no partition {}", partition.partition);
        return Err((ErrorCode::UnknownTopicOrPartition, text));
    }
    let records = &partition.records;
    let invalid = |text: &str| Err((ErrorCode::InvalidRecord, text.to_owned()));
    if records.is_empty() {
        return invalid("there is no record batch: send one for each partition");
    }
    let header = BatchHeader::parse(records).map_err(|e| (batch_error(&e), e.to_string()))?;
    if header.bytes < records.len() {
        return invalid("there is more than one record batch: send one for each partition");
    }
    if header.is_control() {
        return invalid("a client may not write control records");
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return invalid("a batch with a producer id needs an epoch and a base sequence");
    }
    if header.is_append_time() {
        let text = "a client may not say that the log stamped the time".to_owned();
        return Err((ErrorCode::InvalidTimestamp, text));
    }
    match header.attributes & COMPRESSION_MASK {
        codec if codec > ZSTD || (codec == ZSTD && call.version < ZSTD_FROM) => {
            let version = call.version;
            let text = format!("compression {codec} is not known to Produce version {version}");
            Err((ErrorCode::UnsupportedCompressionType, text))
        }
        _ => Ok(()),
    }
}
