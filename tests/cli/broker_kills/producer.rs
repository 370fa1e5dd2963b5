//! What all producers have in common, and the ones without transactions.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outbox_broker::client::{Client, ClientError, ClientOptions, PublishAnswer, PublishRefusal};
use outbox_log_broker::{Publication, Sequence, Slice};
use outbox_tests::seed::Seed;
use proto_kafka::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use rand::RngExt;
use tokio::sync::watch;

use super::ledger::{Kind, Ledger, Outcome, PLACES, Place, Sent, Unit, topic_of};
use super::wire::{Stamp, Wire, batch, encode, transactional};

/// Batches in flight: as many as the broker remembers of a producer.
pub const IN_FLIGHT: usize = 5;
/// Most records of a batch.
const RECORDS: u64 = 6;
const INIT_PRODUCER_ID: i16 = 4;

/// What a producer works with.
pub struct Producer {
    pub number: u64,
    pub seed: Seed,
    pub ledger: Arc<Ledger>,
    pub address: String,
    /// Whether the broker serves.
    pub up: watch::Receiver<bool>,
    pub stop: Arc<AtomicBool>,
    pub next: u64,
    pub wire: Option<Wire>,
}

/// A batch on its way: it is sent again as it is.
pub struct Batch {
    pub place: Place,
    pub numbers: Vec<u64>,
    pub stamp: Option<Stamp>,
    pub offset: Option<i64>,
}

impl Batch {
    /// Its records, with the offsets that were acknowledged.
    pub fn sent(&self) -> impl Iterator<Item = Sent> {
        let (place, base) = (self.place, self.offset);
        let numbered = self.numbers.iter().zip(0..);
        numbered.map(move |(&n, at)| Sent {
            n,
            place,
            offset: base.map(|base| base + at),
        })
    }
}

impl Producer {
    /// Sends until told to stop, in its way.
    pub async fn run(self, kind: Kind) {
        match kind {
            Kind::Plain => self.plain().await,
            Kind::Idempotent => self.idempotent().await,
            Kind::Transactional => super::transactional::run(self).await,
            Kind::Publishing => self.publishing().await,
        }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Connects, as soon as the broker serves.
    pub async fn connect(&mut self) -> Wire {
        loop {
            self.wait_until_up().await;
            if let Some(wire) = self.wire.take() {
                return wire;
            }
            match Wire::connect(&self.address).await {
                Ok(wire) => return wire,
                Err(_) => self.ledger.lose(),
            }
        }
    }

    async fn wait_until_up(&mut self) {
        let up = self.up.wait_for(|up| *up).await;
        up.expect("the run outlives its producers");
    }

    /// The next numbers, for one batch.
    pub fn numbers(&mut self) -> Vec<u64> {
        let first = self.next;
        self.next += self.seed.random_range(1..=RECORDS);
        (first..self.next).collect()
    }

    pub fn place(&mut self) -> Place {
        self.seed.random_range(0..PLACES)
    }

    /// Sends what has no offset yet and waits for all answers; an error leaves the rest as it is.
    pub async fn deliver(
        &mut self,
        transactional_id: Option<&str>,
        batches: &mut [Batch],
    ) -> io::Result<()> {
        let mut wire = self.connect().await;
        let mut ids = VecDeque::new();
        let number = self.number;
        let talk = async {
            for unsent in batches.iter_mut().filter(|b| b.offset.is_none()) {
                let bytes = batch(number, unsent.place, &unsent.numbers, unsent.stamp);
                let id = wire
                    .send_batch(transactional_id, unsent.place, bytes)
                    .await?;
                ids.push_back((id, unsent));
            }
            while let Some((id, unsent)) = ids.pop_front() {
                unsent.offset = Some(wire.receive_offset(id).await?);
            }
            Ok(())
        };
        let done = talk.await;
        match &done {
            Ok(()) => self.wire = Some(wire),
            Err(_) => self.ledger.lose(),
        }
        done
    }

    /// Asks for a producer id until it is answered.
    pub async fn init(&mut self, transactional_id: Option<&str>) -> InitProducerIdResponse {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(transactional))
            // Longer than any run: what is left open must be ended by its producer, not by time.
            .with_transaction_timeout_ms(900_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        loop {
            let mut wire = self.connect().await;
            match wire.call(INIT_PRODUCER_ID, &request).await {
                Ok(answer) => {
                    assert_eq!(answer.error_code, 0, "no producer id: {answer:?}");
                    self.wire = Some(wire);
                    return answer;
                }
                Err(_) => self.ledger.lose(),
            }
        }
    }

    fn settle(&self, kind: Kind, outcome: Outcome, records: Vec<Sent>) {
        self.ledger.settle(Unit {
            producer: self.number,
            kind,
            outcome,
            records,
        });
    }

    async fn plain(mut self) {
        while self.goes_on() {
            let mut batches = Vec::new();
            for _ in 0..self.seed.random_range(1..=IN_FLIGHT) {
                batches.push(Batch {
                    place: self.place(),
                    numbers: self.numbers(),
                    stamp: None,
                    offset: None,
                });
            }
            // What was not answered stays unknown: sent again, it could be there twice.
            let _ = self.deliver(None, &mut batches).await;
            for batch in &batches {
                let answered = batch.offset.map_or(Outcome::Unknown, |_| Outcome::Done);
                self.settle(Kind::Plain, answered, batch.sent().collect());
            }
        }
    }

    async fn idempotent(mut self) {
        while self.goes_on() {
            let given = self.init(None).await;
            let (id, epoch) = (given.producer_id.0, given.producer_epoch);
            self.ledger.given(id);
            let mut sequences: HashMap<Place, i32> = HashMap::new();
            // Now and then it begins anew, as a program does.
            for _ in 0..self.seed.random_range(1..200) {
                if !self.goes_on() {
                    break;
                }
                let mut batches = Vec::new();
                for _ in 0..self.seed.random_range(1..=IN_FLIGHT) {
                    let (place, numbers) = (self.place(), self.numbers());
                    let due = sequences.entry(place).or_default();
                    let sequence = std::mem::replace(due, *due + numbers.len() as i32);
                    batches.push(Batch {
                        place,
                        numbers,
                        stamp: Some(Stamp {
                            id,
                            epoch,
                            sequence,
                            transactional: false,
                        }),
                        offset: None,
                    });
                }
                while self.deliver(None, &mut batches).await.is_err() {}
                for batch in &batches {
                    self.settle(Kind::Idempotent, Outcome::Done, batch.sent().collect());
                }
            }
        }
    }

    async fn publishing(mut self) {
        let client = Client::new(ClientOptions::new(self.address.clone()));
        while self.goes_on() {
            let mut places = [0; 2].map(|_| self.place()).to_vec();
            places.sort_unstable();
            places.dedup();
            let low_water = self.next as i64;
            let (mut bytes, mut slices, mut batches) = (Vec::new(), Vec::new(), Vec::new());
            for place in places {
                let numbers = self.numbers();
                let (topic, partition) = topic_of(place);
                slices.push(Slice {
                    topic: topic.into(),
                    partition,
                    bytes: encode(&mut bytes, self.number, place, &numbers),
                });
                batches.push(Batch {
                    place,
                    numbers,
                    stamp: None,
                    offset: None,
                });
            }
            let sequences = low_water..self.next as i64;
            let publication = Publication {
                publisher: format!("publisher-{}", self.number).into(),
                epoch: 1,
                sequences: sequences
                    .map(|seq| Sequence { seq, redelivery: 0 })
                    .collect(),
                low_water,
                ..Publication::default()
            };
            let records = publication.sequences.len();
            let bytes = bytes::Bytes::from(bytes);
            loop {
                self.wait_until_up().await;
                match client.publish(bytes.clone(), &slices, &publication).await {
                    Ok(PublishAnswer::Stored { first_offsets }) => {
                        for (batch, offset) in batches.iter_mut().zip(first_offsets) {
                            batch.offset = Some(offset);
                        }
                        break;
                    }
                    // Stored, and the answer was lost.
                    Ok(PublishAnswer::Duplicates { indexes }) => {
                        assert_eq!(indexes.len(), records, "an append was stored in part");
                        break;
                    }
                    Err(PublishRefusal::Client(ClientError::Unreachable { .. })) => {
                        self.ledger.lose();
                    }
                    Err(refusal) => panic!("{refusal}"),
                }
            }
            let records = batches.iter().flat_map(Batch::sent).collect();
            self.settle(Kind::Publishing, Outcome::Done, records);
        }
    }
}
