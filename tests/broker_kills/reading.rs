//! Reads partitions whole, as a client does.

use anyhow::{Result, ensure};
use outbox_log_broker::batch::{BatchHeader, Records};
use proto_kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use proto_kafka::messages::fetch_response::PartitionData;
use proto_kafka::messages::{BrokerId, FetchRequest, TopicName};
use proto_kafka::protocol::StrBytes;

use crate::ledger::Place;
use crate::wire::Wire;

/// Isolation levels of a Fetch.
pub const ALL: i8 = 0;
/// See [`ALL`].
pub const COMMITTED: i8 = 1;

/// What control batches say.
const ABORT: u8 = 0;

/// One record.
#[derive(Debug)]
pub struct Record {
    pub offset: i64,
    pub value: String,
}

/// All records of a partition, in order.
#[derive(Debug, Default)]
pub struct Partition {
    pub records: Vec<Record>,
}

impl Partition {
    /// The value at an offset.
    pub fn at(&self, offset: i64) -> Option<&String> {
        let index = self.records.binary_search_by_key(&offset, |r| r.offset);
        Some(&self.records[index.ok()?].value)
    }
}

/// Reads a partition from its first offset to its end. Between its offsets there may be no hole.
pub fn read(wire: &mut Wire, place: Place, isolation: i8) -> Result<Partition> {
    let (mut partition, mut next) = (Partition::default(), 0);
    loop {
        let fetched = fetch(wire, place, next, isolation)?;
        ensure!(fetched.error_code == 0, "{place:?} at {next}: {fetched:?}");
        let end = match isolation {
            COMMITTED => fetched.last_stable_offset,
            _ => fetched.high_watermark,
        };
        // Producers that are aborted at this point of the range.
        let mut aborted = fetched.aborted_transactions.unwrap_or_default();
        aborted.sort_by_key(|a| a.first_offset);
        let batches = fetched.records.unwrap_or_default();
        let mut rest = &batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::verify(rest)?;
            ensure!(
                header.base_offset == next,
                "{place:?}: offset {next} is due, {} follows",
                header.base_offset
            );
            next = header.next_offset();
            let producer = header.producer_id;
            let is_aborted = |a: &proto_kafka::messages::fetch_response::AbortedTransaction| {
                a.producer_id.0 == producer && a.first_offset <= header.base_offset
            };
            for record in Records::new(rest)? {
                let record = record?;
                if header.is_control() {
                    let is_abort = record.key.is_some_and(|key| key.get(3) == Some(&ABORT));
                    if let (true, Some(over)) = (is_abort, aborted.iter().position(is_aborted)) {
                        aborted.remove(over);
                    }
                } else if !(header.is_transactional() && aborted.iter().any(is_aborted)) {
                    let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
                    let offset = record.offset;
                    partition.records.push(Record { offset, value });
                }
            }
            rest = &rest[header.bytes..];
        }
        if next >= end {
            ensure!(
                next == end,
                "{place:?} ends at {end}, its batches at {next}"
            );
            return Ok(partition);
        }
    }
}

fn fetch(wire: &mut Wire, place: Place, offset: i64, isolation: i8) -> Result<PartitionData> {
    let partition = FetchPartition::default()
        .with_partition(place.1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str(place.0)))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let mut answer = wire.call(11, &request)?;
    ensure!(answer.error_code == 0, "{answer:?}");
    Ok(answer.responses.remove(0).partitions.remove(0))
}
