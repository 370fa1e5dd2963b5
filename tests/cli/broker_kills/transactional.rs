//! Producers with transactions. After a kill they go on with the open transaction, or leave it and
//! begin anew, as a client does and as a program that died itself does.

use std::collections::HashMap;
use std::io;

use proto_kafka::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use proto_kafka::messages::{AddPartitionsToTxnRequest, EndTxnRequest, ProducerId};
use rand::RngExt;

use super::ledger::{Kind, Outcome, Place, Unit, topic_of};
use super::producer::{Batch, IN_FLIGHT, Producer};
use super::wire::{Stamp, topic_name, transactional};

const VERSION: i16 = 3;
/// How likely it is that a lost step is asked for again.
const GOES_ON: f64 = 0.6;
const COMMITS: f64 = 0.7;

/// Who holds the transactional id.
struct Holder {
    name: String,
    id: i64,
    epoch: i16,
    sequences: HashMap<Place, i32>,
}

pub async fn run(mut producer: Producer) {
    let name = format!("transactional-{}", producer.number);
    let mut last = (-1, -1);
    while producer.goes_on() {
        let given = producer.init(Some(&name)).await;
        let (id, epoch) = (given.producer_id.0, given.producer_epoch);
        if last.0 == -1 {
            producer.ledger.given(id);
        }
        assert!(
            last.0 == -1 || (last.0 == id && epoch > last.1),
            "({id}, {epoch}) was given out after {last:?}"
        );
        last = (id, epoch);
        let mut holder = Holder {
            name: name.clone(),
            id,
            epoch,
            sequences: HashMap::new(),
        };
        // Until a transaction is left open.
        while producer.goes_on() && transaction(&mut producer, &mut holder).await {}
    }
    // What was left open at the last stop is ended by whoever takes the id.
    producer.init(Some(&name)).await;
}

/// Answers whether the holder may go on.
async fn transaction(producer: &mut Producer, holder: &mut Holder) -> bool {
    let mut batches = Vec::new();
    for _ in 0..producer.seed.random_range(1..=IN_FLIGHT) {
        let (place, numbers) = (producer.place(), producer.numbers());
        let due = holder.sequences.entry(place).or_default();
        let sequence = std::mem::replace(due, *due + numbers.len() as i32);
        batches.push(Batch {
            place,
            numbers,
            stamp: Some(Stamp {
                id: holder.id,
                epoch: holder.epoch,
                sequence,
                transactional: true,
            }),
            offset: None,
        });
    }
    let outcome = steps(producer, holder, &mut batches).await;
    producer.ledger.settle(Unit {
        producer: producer.number,
        kind: Kind::Transactional,
        outcome: outcome.unwrap_or_else(|left| left),
        records: batches.iter().flat_map(Batch::sent).collect(),
    });
    outcome.is_ok()
}

/// The outcome of the transaction that was ended, or else of the one that was left.
async fn steps(
    producer: &mut Producer,
    holder: &Holder,
    batches: &mut [Batch],
) -> Result<Outcome, Outcome> {
    while add_partitions(producer, holder, batches).await.is_err() {
        goes_on(producer).ok_or(Outcome::Undone)?;
    }
    let transactional_id = Some(holder.name.as_str());
    while producer.deliver(transactional_id, batches).await.is_err() {
        goes_on(producer).ok_or(Outcome::Undone)?;
    }
    // A program that dies before the end.
    if producer.seed.random_bool(0.05) {
        return Err(Outcome::Undone);
    }
    let commits = producer.seed.random_bool(COMMITS);
    while end(producer, holder, commits).await.is_err() {
        let unknown = if commits {
            Outcome::Unknown
        } else {
            Outcome::Undone
        };
        goes_on(producer).ok_or(unknown)?;
    }
    Ok(if commits {
        Outcome::Done
    } else {
        Outcome::Undone
    })
}

fn goes_on(producer: &mut Producer) -> Option<()> {
    producer.seed.random_bool(GOES_ON).then_some(())
}

async fn add_partitions(
    producer: &mut Producer,
    holder: &Holder,
    batches: &[Batch],
) -> io::Result<()> {
    let mut places: Vec<Place> = batches.iter().map(|b| b.place).collect();
    places.sort_unstable();
    places.dedup();
    let topics = places.chunk_by(|a, b| topic_of(*a).0 == topic_of(*b).0);
    let topics = topics.map(|places| {
        let partitions = places.iter().map(|p| topic_of(*p).1 as i32);
        AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic_of(places[0]).0))
            .with_partitions(partitions.collect())
    });
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional(&holder.name))
        .with_v3_and_below_producer_id(ProducerId(holder.id))
        .with_v3_and_below_producer_epoch(holder.epoch)
        .with_v3_and_below_topics(topics.collect());
    let mut wire = producer.connect().await;
    let answer = wire.call(VERSION, &request).await;
    let answer = answer.inspect_err(|_| producer.ledger.lose())?;
    let topics = answer.results_by_topic_v3_and_below.iter();
    for partition in topics.flat_map(|t| &t.results_by_partition) {
        let code = partition.partition_error_code;
        assert_eq!(code, 0, "a partition was not added: {partition:?}");
    }
    producer.wire = Some(wire);
    Ok(())
}

async fn end(producer: &mut Producer, holder: &Holder, commits: bool) -> io::Result<()> {
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional(&holder.name))
        .with_producer_id(ProducerId(holder.id))
        .with_producer_epoch(holder.epoch)
        .with_committed(commits);
    let mut wire = producer.connect().await;
    let answer = wire.call(VERSION, &request).await;
    let answer = answer.inspect_err(|_| producer.ledger.lose())?;
    assert_eq!(answer.error_code, 0, "a transaction was not ended");
    producer.wire = Some(wire);
    Ok(())
}
