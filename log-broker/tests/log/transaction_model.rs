//! Random producers against a log that is killed, stopped and checkpointed, and against a reference
//! that is a list of records for each partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use outbox_log_broker::{Log, Producer, TransactionState};

use crate::disk::{Chance, SimDisk};
use crate::rig::{
    As, Client, TOPIC, append, committed_values, create_topic, open, produce, run, seed, values,
};

const PARTITIONS: u32 = 3;
const IDS: [&str; 3] = ["a", "b", "c"];

/// What a partition holds at an offset.
struct Item {
    /// `None` is a marker.
    value: Option<String>,
    /// Its transaction.
    transaction: Option<usize>,
}

/// The reference: nothing but lists.
#[derive(Default)]
struct Model {
    partitions: [Vec<Item>; PARTITIONS as usize],
    /// By transaction: open, committed or aborted.
    transactions: Vec<TransactionState>,
}

impl Model {
    fn push(&mut self, partition: u32, value: &str, transaction: Option<usize>) {
        self.partitions[partition as usize].push(Item {
            value: Some(value.to_owned()),
            transaction,
        });
    }

    fn end(&mut self, transaction: usize, state: TransactionState) {
        self.transactions[transaction] = state;
        for items in &mut self.partitions {
            if items.iter().any(|i| i.transaction == Some(transaction)) {
                items.push(Item {
                    value: None,
                    transaction: None,
                });
            }
        }
    }

    fn state(&self, item: &Item) -> TransactionState {
        let of = item.transaction.map(|n| self.transactions[n]);
        of.unwrap_or(TransactionState::Committed)
    }

    fn check(&self, log: &Log, what: &str) {
        for (n, items) in self.partitions.iter().enumerate() {
            let partition = n as u32;
            let end = items.len() as i64;
            assert_eq!(
                log.offsets(TOPIC, partition).expect("there"),
                (0, end),
                "{what}"
            );
            let all: Vec<_> = items.iter().filter_map(|i| i.value.clone()).collect();
            assert_eq!(values(log, partition).expect("reads"), all, "{what}");
            let open = |i: &Item| self.state(i) == TransactionState::Ongoing;
            let stable = items.iter().position(open).unwrap_or(items.len());
            let found = log.last_stable_offset(TOPIC, partition).expect("there");
            assert_eq!(found, stable as i64, "{what}");
            let seen = items[..stable]
                .iter()
                .filter(|i| self.state(i) == TransactionState::Committed);
            let seen: Vec<_> = seen.filter_map(|i| i.value.clone()).collect();
            assert_eq!(
                committed_values(log, partition).expect("reads"),
                seen,
                "{what}"
            );
        }
    }
}

/// One holder of a transactional id, and what it has open.
struct Holder {
    client: Client,
    open: Option<usize>,
    spans: Vec<u32>,
}

/// A producer without transactions, and the batches it may send again.
struct Idempotent {
    producer: Producer,
    /// By partition: first sequence, offset and values.
    sent: BTreeMap<u32, Vec<(i32, i64, Vec<String>)>>,
}

struct World {
    disk: SimDisk,
    log: Arc<Log>,
    model: Model,
    holders: Vec<Holder>,
    idempotent: Idempotent,
    chance: Chance,
    values: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        let log = open(&disk).expect("opens");
        create_topic(&log, PARTITIONS).expect("created");
        let holders = IDS.map(|id| Holder {
            client: Client::begin(&log, id),
            open: None,
            spans: Vec::new(),
        });
        let idempotent = Idempotent {
            producer: run(log.init_producer(None, 0, None)).expect("an id"),
            sent: BTreeMap::new(),
        };
        Self {
            disk,
            log,
            model: Model::default(),
            holders: holders.into(),
            idempotent,
            chance: Chance::new(seed),
            values: 0,
        }
    }

    fn value(&mut self) -> String {
        self.values += 1;
        let padding = "x".repeat(self.chance.below(200) as usize);
        format!("{}-{padding}", self.values)
    }

    fn partition(&mut self) -> u32 {
        self.chance.below(u64::from(PARTITIONS)) as u32
    }

    fn step(&mut self) {
        let who = self.chance.below(IDS.len() as u64) as usize;
        match self.chance.below(20) {
            0..8 => self.send(who),
            8..11 => self.end(who),
            11 => self.take_over(who),
            12 => self.time_out(who),
            13 => self.append_plain(),
            14..17 => self.send_idempotent(),
            17 => self.send_again(),
            18 => self.log.checkpoint().expect("a checkpoint"),
            _ => self.restart(),
        }
    }

    fn send(&mut self, who: usize) {
        let (partition, value) = (self.partition(), self.value());
        let holder = &mut self.holders[who];
        if !holder.spans.contains(&partition) {
            holder.client.add(&self.log, &[partition]).expect("added");
            holder.spans.push(partition);
        }
        let transactions = &mut self.model.transactions;
        let n = *holder.open.get_or_insert_with(|| {
            transactions.push(TransactionState::Ongoing);
            transactions.len() - 1
        });
        holder
            .client
            .send(&self.log, partition, &value)
            .expect("appended");
        self.model.push(partition, &value, Some(n));
    }

    fn end(&mut self, who: usize) {
        let commits = self.chance.below(2) == 0;
        let holder = &mut self.holders[who];
        let Some(n) = holder.open.take() else {
            return;
        };
        holder.spans.clear();
        holder.client.end(&self.log, commits).expect("ended");
        holder.client.end(&self.log, commits).expect("ended again");
        self.model.end(
            n,
            if commits {
                TransactionState::Committed
            } else {
                TransactionState::Aborted
            },
        );
    }

    /// What was open is aborted; the old holder can do nothing more.
    fn take_over(&mut self, who: usize) {
        let new = Client::begin(&self.log, IDS[who]);
        let holder = &mut self.holders[who];
        let mut old = std::mem::replace(&mut holder.client, new);
        holder.spans.clear();
        if let Some(n) = holder.open.take() {
            self.model.end(n, TransactionState::Aborted);
        }
        old.send(&self.log, 0, "zombie").expect_err("shut out");
        old.end(&self.log, true).expect_err("shut out");
    }

    /// All that is open is aborted, and everybody shut out.
    fn time_out(&mut self, who: usize) {
        if self.chance.below(4) > 0 {
            return;
        }
        let open = self.log.transactions();
        let open = open.iter().filter(|t| t.started_ms.is_some()).count();
        let aborted = self.log.abort_timed_out(i64::MAX).expect("aborted");
        assert_eq!(aborted, open);
        for holder in &mut self.holders {
            holder.spans.clear();
            if let Some(n) = holder.open.take() {
                self.model.end(n, TransactionState::Aborted);
                holder.client.end(&self.log, true).expect_err("shut out");
                holder.client = Client::begin(&self.log, &holder.client.id.clone());
            }
        }
        self.take_over(who);
    }

    fn append_plain(&mut self) {
        let (partition, value) = (self.partition(), self.value());
        append(&self.log, &[(partition, vec![value.clone()])]).expect("appended");
        self.model.push(partition, &value, None);
    }

    fn send_idempotent(&mut self) {
        let (partition, values) = (self.partition(), vec![self.value(), self.value()]);
        let sent = self.idempotent.sent.entry(partition).or_default();
        let sequence = sent.last().map_or(0, |(first, ..)| first + 2);
        let who = As {
            producer: self.idempotent.producer,
            sequence,
            transactional: false,
        };
        let appended = produce(&self.log, who, partition, &values).expect("appended");
        sent.push((sequence, appended.first_offsets[0], values.clone()));
        for value in &values {
            self.model.push(partition, value, None);
        }
    }

    fn send_again(&mut self) {
        for (&partition, sent) in &self.idempotent.sent {
            let back = self.chance.below(5) as usize;
            let Some((sequence, offset, values)) = sent.iter().rev().nth(back) else {
                continue;
            };
            let who = As {
                producer: self.idempotent.producer,
                sequence: *sequence,
                transactional: false,
            };
            let again = produce(&self.log, who, partition, values).expect("stored already");
            assert!(again.duplicate);
            assert_eq!(again.first_offsets, [*offset]);
        }
    }

    fn restart(&mut self) {
        if self.chance.below(2) == 0 {
            self.disk = self.disk.after_kill();
        } else {
            self.log.close();
        }
        self.log = open(&self.disk).expect("opens");
        assert_eq!(self.log.damage(), None);
    }
}

#[test]
fn a_log_with_transactions_agrees_with_lists_of_records() {
    let seed = seed();
    for round in 0..40 {
        let mut world = World::new(seed.wrapping_mul(101).wrapping_add(round));
        for n in 0..80 {
            let what = format!("LOG_SEED={seed}, round {round}, step {n}");
            world.step();
            world.model.check(&world.log, &what);
        }
    }
}
