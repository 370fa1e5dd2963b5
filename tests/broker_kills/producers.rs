//! Producers that go on through kills, and write down what they were told.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_tests::seed::Seed;
use proto_kafka::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use proto_kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto_kafka::messages::produce_response::PartitionProduceResponse;
use proto_kafka::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest, ProducerId,
    TopicName, TransactionalId,
};
use proto_kafka::protocol::StrBytes;
use rand::RngExt;

use crate::ledger::{Fate, Ledger, Sent};
use crate::wire::Wire;
use crate::{IDEMPOTENT, PARTITIONS, PLAIN, TRANSACTIONAL};

/// Pause before another attempt to reach a broker that is down.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than any test.
const TRANSACTION_TIMEOUT_MS: i32 = 600_000;

/// One producer.
pub struct Writer<'a> {
    pub name: String,
    pub addr: &'a str,
    pub seed: Seed,
    pub stop: &'a AtomicBool,
    number: u64,
    wire: Option<Wire>,
}

/// Who a batch is of.
#[derive(Clone, Copy)]
struct Stamp {
    id: i64,
    epoch: i16,
    sequence: i32,
    transactional: bool,
}

impl<'a> Writer<'a> {
    pub fn new(name: String, addr: &'a str, seed: Seed, stop: &'a AtomicBool) -> Self {
        Self {
            name,
            addr,
            seed,
            stop,
            number: 0,
            wire: None,
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Calls the broker. After an error the connection is given up.
    fn with<T>(&mut self, call: impl FnOnce(&mut Wire) -> io::Result<T>) -> io::Result<T> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::connect(self.addr).inspect_err(|_| std::thread::sleep(PAUSE))?,
        };
        let answer = call(&mut wire)?;
        self.wire = Some(wire);
        Ok(answer)
    }

    /// A few records for one of the partitions of a topic, all of the next number.
    fn batch(&mut self, topic: &'static str, partition: i32) -> Sent {
        let values = (0..self.seed.random_range(1..8)).map(|n| {
            let padding = "x".repeat(self.seed.random_range(0..1_500));
            format!(
                "{}/{}/{topic} {partition} {n} {padding}",
                self.name, self.number
            )
        });
        Sent {
            place: (topic, partition),
            values: values.collect(),
        }
    }

    fn any_partition(&mut self) -> i32 {
        self.seed.random_range(0..PARTITIONS)
    }

    /// Sends each batch once, whatever comes of it.
    pub fn plain(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while self.goes_on() {
            self.number += 1;
            let partition = self.any_partition();
            let sent = self.batch(PLAIN, partition);
            let request = produce(&sent, None, None);
            match self.with(|wire| answer_of(wire, &request)) {
                Ok(answer) => {
                    ensure!(answer.error_code == 0, "{answer:?}");
                    ledger.acknowledged.push((sent, answer.base_offset));
                }
                Err(_) => ledger.unanswered.push(sent),
            }
        }
        Ok(ledger)
    }

    /// Sends each batch until it is acknowledged.
    pub fn idempotent(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        let (id, epoch) = self.init(None)?;
        let mut sequences = [0; PARTITIONS as usize];
        while self.goes_on() {
            self.number += 1;
            let partition = self.any_partition();
            let sent = self.batch(IDEMPOTENT, partition);
            let sequence = &mut sequences[partition as usize];
            let stamp = Stamp {
                id,
                epoch,
                sequence: *sequence,
                transactional: false,
            };
            *sequence += sent.values.len() as i32;
            let request = produce(&sent, Some(stamp), None);
            let answer = loop {
                if let Ok(answer) = self.with(|wire| answer_of(wire, &request)) {
                    break answer;
                }
            };
            ensure!(answer.error_code == 0, "{}: {answer:?}", self.name);
            ledger.acknowledged.push((sent, answer.base_offset));
        }
        Ok(ledger)
    }

    /// Writes to all partitions in each transaction, and commits most of them.
    pub fn transactional(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while self.goes_on() {
            let transactional_id = self.name.clone();
            let (id, epoch) = self.init(Some(&transactional_id))?;
            let mut sequences = [0; PARTITIONS as usize];
            // As long as all is answered; then the id is taken anew, which aborts what is open.
            while self.goes_on() {
                self.number += 1;
                let stamp = Stamp {
                    id,
                    epoch,
                    sequence: 0,
                    transactional: true,
                };
                let mut sent = BTreeSet::new();
                let fate = self.transaction(stamp, &mut sequences, &mut sent, &mut ledger);
                let known = fate.as_ref().map_or_else(|fate| *fate, |fate| *fate);
                let transaction = (self.name.clone(), self.number);
                ledger.transactions.insert(transaction, (known, sent));
                if fate.is_err() {
                    break;
                }
            }
        }
        // What is open is aborted.
        let transactional_id = self.name.clone();
        self.init(Some(&transactional_id))?;
        Ok(ledger)
    }

    /// One transaction; what is known about it, as an error when an answer did not come.
    fn transaction(
        &mut self,
        stamp: Stamp,
        sequences: &mut [i32],
        values: &mut BTreeSet<String>,
        ledger: &mut Ledger,
    ) -> Result<Fate, Fate> {
        let commits = self.seed.random_bool(0.8);
        let name = TransactionalId(StrBytes::from_string(self.name.clone()));
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(TRANSACTIONAL))
            .with_partitions((0..PARTITIONS).collect());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(name.clone())
            .with_v3_and_below_producer_id(ProducerId(stamp.id))
            .with_v3_and_below_producer_epoch(stamp.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let added = self.with(|wire| wire.call(3, &request));
        let added = added.map_err(|_| Fate::Aborted)?;
        let results = &added.results_by_topic_v3_and_below[0].results_by_partition;
        let refused = results.iter().find(|r| r.partition_error_code != 0);
        assert!(refused.is_none(), "{}: {refused:?}", self.name);
        for partition in 0..PARTITIONS {
            let sent = self.batch(TRANSACTIONAL, partition);
            values.extend(sent.values.iter().cloned());
            let sequence = &mut sequences[partition as usize];
            let stamp = Stamp {
                sequence: *sequence,
                ..stamp
            };
            *sequence += sent.values.len() as i32;
            let request = produce(&sent, Some(stamp), Some(&self.name));
            let answer = self.with(|wire| answer_of(wire, &request));
            let answer = answer.map_err(|_| Fate::Aborted)?;
            assert_eq!(answer.error_code, 0, "{}: {answer:?}", self.name);
            ledger.acknowledged.push((sent, answer.base_offset));
        }
        let request = EndTxnRequest::default()
            .with_transactional_id(name)
            .with_producer_id(ProducerId(stamp.id))
            .with_producer_epoch(stamp.epoch)
            .with_committed(commits);
        let (done, unanswered) = match commits {
            true => (Fate::Committed, Fate::Unknown),
            false => (Fate::Aborted, Fate::Aborted),
        };
        let ended = self.with(|wire| wire.call(3, &request));
        let ended = ended.map_err(|_| unanswered)?;
        assert_eq!(ended.error_code, 0, "{}: {ended:?}", self.name);
        Ok(done)
    }

    /// Takes a producer id, however long it takes.
    fn init(&mut self, transactional_id: Option<&str>) -> Result<(i64, i16)> {
        let name = transactional_id.map(|id| TransactionalId(StrBytes::from_string(id.to_owned())));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(name)
            .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS);
        loop {
            if let Ok(answer) = self.with(|wire| wire.call(4, &request)) {
                ensure!(answer.error_code == 0, "{}: {answer:?}", self.name);
                return Ok((answer.producer_id.0, answer.producer_epoch));
            }
        }
    }
}

fn topic_name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

fn answer_of(wire: &mut Wire, request: &ProduceRequest) -> io::Result<PartitionProduceResponse> {
    let mut answer = wire.call(9, request)?;
    Ok(answer.responses.remove(0).partition_responses.remove(0))
}

fn produce(sent: &Sent, stamp: Option<Stamp>, transactional_id: Option<&str>) -> ProduceRequest {
    let (topic, partition) = sent.place;
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(encode(&sent.values, stamp)));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    let id = transactional_id.map(|id| TransactionalId(StrBytes::from_string(id.to_owned())));
    ProduceRequest::default()
        .with_transactional_id(id)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

fn encode(values: &[String], stamp: Option<Stamp>) -> Bytes {
    let (headers, mut batch) = (HeaderBlock::default(), Vec::new());
    let mut encoder = BatchEncoder::begin(&mut batch);
    for value in values {
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(value.as_bytes()),
            shared: &headers,
            own: &headers,
        });
    }
    encoder.finish();
    if let Some(stamp) = stamp {
        if stamp.transactional {
            batch[22] |= 0x10;
        }
        batch[43..51].copy_from_slice(&stamp.id.to_be_bytes());
        batch[51..53].copy_from_slice(&stamp.epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&stamp.sequence.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}
