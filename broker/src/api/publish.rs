//! Duplicate-proof publish: a Produce request with a publication beside the records. Its partitions
//! are stored all or none, in one append, and not at all when the publication names anything that is
//! stored already or is of a stale epoch.

use std::collections::VecDeque;
use std::time::Instant;

use outbox_log_broker::batch::BatchHeader;
use outbox_log_broker::{Append, AppendError, Appended, Publication, Slice, Submitted};

use super::Call;
use super::error::append_error;
use super::produce::outcome;
use crate::codec::{ErrorCode, PartitionOutcome, PartitionRecords, Published};
use crate::pipeline::{InFlight, Publishing};
use crate::security::{Operation, Resource};
use crate::shared::Shared;

/// Why a publication is not even tried.
type Refusal = (ErrorCode, String);

/// Checks a request and starts its append.
pub(crate) async fn start(
    call: &Call<'_>,
    acks: i16,
    partitions: Vec<PartitionRecords>,
    publication: Publication,
) -> InFlight {
    let since = Instant::now();
    let mut outcomes: Vec<PartitionOutcome> = partitions.iter().map(outcome).collect();
    let started = match check(call, acks, &partitions) {
        Ok(()) => submit(call, &partitions, publication).await,
        Err(refusal) => Err(refusal),
    };
    let publishing = match started {
        Ok(submitted) => Publishing::Submitted(submitted),
        Err((code, text)) => {
            refuse(&mut outcomes, code, &text);
            Publishing::Done(Published::Refused(text))
        }
    };
    InFlight {
        correlation_id: call.head.correlation_id,
        version: call.version,
        since,
        answered: acks != 0,
        bytes: partitions.iter().map(|p| p.records.len()).sum(),
        outcomes,
        submitted: VecDeque::new(),
        publishing: Some(publishing),
    }
}

async fn submit(
    call: &Call<'_>,
    partitions: &[PartitionRecords],
    publication: Publication,
) -> Result<Submitted, Refusal> {
    let bytes = partitions.iter().map(|p| p.records.len()).sum();
    let mut buffer = Vec::with_capacity(bytes);
    let mut slices = Vec::with_capacity(partitions.len());
    for partition in partitions {
        // The one copy of the records.
        buffer.extend_from_slice(&partition.records);
        slices.push(Slice {
            topic: partition.topic.clone(),
            partition: partition.partition as u32,
            bytes: partition.records.len(),
        });
    }
    let append = Append {
        buffer,
        slices,
        publication: Some(publication),
    };
    let submitted = call.shared.log.submit(append).await;
    submitted.map_err(|error| (append_error(&error), error.to_string()))
}

/// Writes down what became of a publication, in each of its partitions and as a whole.
pub(crate) fn note(
    outcomes: &mut [PartitionOutcome],
    result: Result<Appended, AppendError>,
    shared: &Shared,
) -> Published {
    let error = match result {
        Ok(appended) => {
            for (outcome, first) in outcomes.iter_mut().zip(&appended.first_offsets) {
                outcome.base_offset = *first;
                let offsets = shared.log.offsets(&outcome.topic, outcome.partition as u32);
                outcome.log_start_offset = offsets.map_or(-1, |(first, _)| first);
            }
            return Published::Stored;
        }
        Err(error) => error,
    };
    refuse(outcomes, append_error(&error), &error.to_string());
    match error {
        AppendError::Duplicates { indexes } => Published::Duplicates(indexes),
        AppendError::Fenced { epoch, newer, .. } => Published::Fenced { epoch, newer },
        AppendError::Batch { .. } | AppendError::Invalid(_) | AppendError::TooLarge { .. } => {
            Published::Refused(error.to_string())
        }
        _ => Published::Unavailable(error.to_string()),
    }
}

fn refuse(outcomes: &mut [PartitionOutcome], code: ErrorCode, text: &str) {
    for outcome in outcomes {
        outcome.error_code = code.code();
        outcome.error_message = Some(text.to_owned());
    }
}

fn check(call: &Call<'_>, acks: i16, partitions: &[PartitionRecords]) -> Result<(), Refusal> {
    if acks != -1 {
        let text = format!("acks is {acks}, with a publication it must be -1");
        return Err((ErrorCode::InvalidRequiredAcks, text));
    }
    for partition in partitions {
        if !call.authorize(Operation::Write, Resource::Topic(&partition.topic)) {
            let text = format!("no right to write to topic {}", partition.topic);
            return Err((ErrorCode::TopicAuthorizationFailed, text));
        }
        if partition.partition < 0 {
            let text = format!("there is no partition {}", partition.partition);
            return Err((ErrorCode::UnknownTopicOrPartition, text));
        }
        check_batches(&partition.records)?;
    }
    Ok(())
}

/// What the log does not look at: a publication takes the place of a producer's own numbers.
fn check_batches(mut records: &[u8]) -> Result<(), Refusal> {
    while let Ok(header) = BatchHeader::parse(records) {
        if header.is_control() || header.producer_id >= 0 {
            let text = "a publication has no control batches and no producer ids".to_owned();
            return Err((ErrorCode::InvalidRecord, text));
        }
        records = records.get(header.bytes..).unwrap_or_default();
    }
    Ok(())
}
