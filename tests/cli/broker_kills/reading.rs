//! Everything that the broker holds, as a reader of committed and of all records gets it.

use std::collections::{BTreeSet, HashSet};

use outbox_log_broker::batch::{BatchHeader, Records};
use proto_kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use proto_kafka::messages::fetch_response::PartitionData;
use proto_kafka::messages::{BrokerId, FetchRequest};

use super::ledger::{Place, key_of, sender_of, topic_of, value_of};
use super::wire::{Wire, topic_name};

const FETCH: i16 = 12;
const BYTES_MAX: i32 = 4 << 20;

/// One record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub producer: u64,
    pub n: u64,
    pub offset: i64,
}

/// Every record of a partition in the order of offsets. Asserts that there is no hole among the
/// offsets, and that each record has the bytes that were sent to this partition.
pub async fn everything(wire: &mut Wire, place: Place) -> Vec<Seen> {
    let mut seen = Vec::new();
    read(wire, place, false, |header, batch, _| {
        if !header.is_control() {
            records(place, batch, &mut seen);
        }
    })
    .await;
    seen
}

/// The records that a reader of committed records sees, who leaves out what the answers name as
/// aborted.
pub async fn committed(wire: &mut Wire, place: Place) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut aborting = HashSet::new();
    let mut begun = BTreeSet::new();
    read(wire, place, true, |header, batch, aborted| {
        let producer = header.producer().id;
        for &(id, first) in aborted {
            if first <= header.base_offset && begun.insert((id, first)) {
                aborting.insert(id);
            }
        }
        if header.is_control() {
            // Ends the producer's transaction, whichever way.
            aborting.remove(&producer);
        } else if !(header.is_transactional() && aborting.contains(&producer)) {
            records(place, batch, &mut seen);
        }
    })
    .await;
    seen
}

/// Goes through the batches of a partition, with (producer id, first offset) of the transactions
/// that the answer names as aborted.
async fn read(
    wire: &mut Wire,
    place: Place,
    committed: bool,
    mut each: impl FnMut(&BatchHeader, &[u8], &[(i64, i64)]),
) {
    let mut next = 0;
    loop {
        let fetched = fetch(wire, place, next, committed).await;
        let end = fetched.high_watermark;
        let stable = fetched.last_stable_offset;
        assert_eq!(stable, end, "{:?}: a transaction is open", topic_of(place));
        if next >= end {
            assert_eq!(next, end, "{:?}", topic_of(place));
            return;
        }
        let aborted = fetched.aborted_transactions.unwrap_or_default();
        let aborted: Vec<_> = aborted
            .iter()
            .map(|a| (a.producer_id.0, a.first_offset))
            .collect();
        let bytes = fetched.records.unwrap_or_default();
        let mut rest = &bytes[..];
        assert!(!rest.is_empty(), "nothing at {next} of {end}");
        while !rest.is_empty() {
            let header = BatchHeader::verify(rest).expect("a whole batch");
            assert_eq!(
                header.base_offset,
                next,
                "{:?} has a hole or an overlap among its offsets",
                topic_of(place)
            );
            next += i64::from(header.last_offset_delta) + 1;
            let (batch, behind) = rest.split_at(header.bytes);
            each(&header, batch, &aborted);
            rest = behind;
        }
    }
}

fn records(place: Place, batch: &[u8], seen: &mut Vec<Seen>) {
    let records = Records::new(batch).expect("a batch");
    let mut next = records.header().base_offset;
    let end = next + i64::from(records.header().last_offset_delta) + 1;
    for record in records {
        let record = record.expect("a record");
        let value = record.value.expect("a value");
        let (producer, n) = sender_of(value).expect("a value that was sent");
        let sent = (key_of(producer, place, n), value_of(producer, n));
        let key = record.key.map(String::from_utf8_lossy);
        assert_eq!(key.as_deref(), Some(sent.0.as_str()), "{producer}/{n}");
        assert_eq!(value, sent.1, "{producer}/{n}");
        assert_eq!(record.offset, next, "{producer}/{n}");
        next += 1;
        seen.push(Seen {
            producer,
            n,
            offset: record.offset,
        });
    }
    assert_eq!(next, end, "a batch has fewer records than it says");
}

async fn fetch(wire: &mut Wire, place: Place, offset: i64, committed: bool) -> PartitionData {
    let (topic, partition) = topic_of(place);
    let wanted = FetchPartition::default()
        .with_partition(partition as i32)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(BYTES_MAX);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_min_bytes(1)
        .with_max_bytes(BYTES_MAX)
        .with_isolation_level(i8::from(committed))
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(topic_name(topic))
                .with_partitions(vec![wanted]),
        ]);
    let mut answer = wire.call(FETCH, &request).await.expect("an answer");
    assert_eq!(answer.error_code, 0);
    let mut topic = answer.responses.pop().expect("a topic");
    let fetched = topic.partitions.pop().expect("a partition");
    assert_eq!(fetched.error_code, 0);
    fetched
}
