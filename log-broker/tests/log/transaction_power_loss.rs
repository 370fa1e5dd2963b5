//! The power goes in the midst of producers and transactions: a commit that was acknowledged is seen
//! in all its partitions, one that was not in all or in none, and nothing is stored twice.

use std::collections::{BTreeMap, BTreeSet};

use outbox_log_broker::{AppendError, Log, OffsetCommit, Producer, TransactionError};

use crate::disk::{Chance, SimDisk};
use crate::rig::{
    As, Client, TOPIC, committed_values, create_topic, open, produce, run, seed, values,
};

const PARTITIONS: u32 = 3;

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    /// It was aborted, or never ended.
    Unseen,
    /// Its commit was asked and not answered.
    Unknown,
}

/// By number: its fate, and the partitions that it sent a record to.
#[derive(Default)]
struct Ledger(BTreeMap<u32, (Fate, BTreeSet<u32>)>);

/// Transactions one after the other and side by side until the power goes: `Err` then.
fn work(
    log: &Log,
    ledger: &mut Ledger,
    next: &mut u32,
    chance: &mut Chance,
) -> Result<(), Option<TransactionError>> {
    let mut clients = Vec::new();
    for id in ["a", "b"] {
        clients.push(Client::try_begin(log, id)?);
    }
    for _ in 0..20 {
        let numbers: Vec<u32> = clients.iter().map(|_| take(next)).collect();
        for (client, &n) in clients.iter_mut().zip(&numbers) {
            ledger.0.insert(n, (Fate::Unseen, BTreeSet::new()));
            client.add(log, &[0, 1, 2])?;
        }
        for _ in 0..chance.below(6) {
            let which = chance.below(2) as usize;
            let partition = chance.below(u64::from(PARTITIONS)) as u32;
            send(log, ledger, &mut clients[which], numbers[which], partition)?;
        }
        for (client, &n) in clients.iter_mut().zip(&numbers) {
            end(log, ledger, client, n, chance.below(3) > 0)?;
        }
        if chance.below(6) == 0 {
            log.checkpoint().map_err(|_| None)?;
        }
    }
    Ok(())
}

fn take(next: &mut u32) -> u32 {
    *next += 1;
    *next
}

fn send(
    log: &Log,
    ledger: &mut Ledger,
    client: &mut Client,
    n: u32,
    partition: u32,
) -> Result<(), Option<TransactionError>> {
    let entry = ledger.0.get_mut(&n).expect("known");
    entry.1.insert(partition);
    client
        .send(log, partition, &n.to_string())
        .map_err(|_| None)
}

fn end(
    log: &Log,
    ledger: &mut Ledger,
    client: &mut Client,
    n: u32,
    commits: bool,
) -> Result<(), Option<TransactionError>> {
    let entry = ledger.0.get_mut(&n).expect("known");
    // The group's offset says which transaction was committed last.
    run(log.transaction_add_group(&client.id, client.producer, &client.id))?;
    let offset = [OffsetCommit::new(TOPIC.into(), 0, i64::from(n))];
    let (id, producer) = (&client.id, client.producer);
    run(log.transaction_commit_offsets(id, producer, id, &offset))?;
    if commits {
        entry.0 = Fate::Unknown;
    }
    client.end(log, commits)?;
    if commits {
        entry.0 = Fate::Committed;
    }
    Ok(())
}

impl Ledger {
    /// Aborts what was left open, checks everything, and settles what was unknown: as it is now it
    /// must be for ever.
    fn check(&mut self, log: &Log, what: &str) {
        for id in ["a", "b"] {
            Client::begin(log, id);
        }
        let seen: Vec<BTreeSet<u32>> = (0..PARTITIONS)
            .map(|partition| {
                let values = committed_values(log, partition).expect("reads");
                values
                    .iter()
                    .map(|v| v.parse().expect("a number"))
                    .collect()
            })
            .collect();
        for (n, (fate, partitions)) in &mut self.0 {
            let held = (0..PARTITIONS).filter(|&p| seen[p as usize].contains(n));
            let held: BTreeSet<u32> = held.collect();
            let all = held == *partitions;
            let known = match fate {
                Fate::Committed => all,
                Fate::Unseen => held.is_empty(),
                Fate::Unknown => all || held.is_empty(),
            };
            assert!(
                known,
                "{what}: {n} is {fate:?} in {partitions:?} and seen in {held:?}"
            );
            if !partitions.is_empty() && *fate == Fate::Unknown {
                *fate = if all { Fate::Committed } else { Fate::Unseen };
            }
        }
        self.check_offsets(log, what);
    }

    /// The offset that a group has is that of a committed transaction, and no acknowledged commit
    /// came later.
    fn check_offsets(&mut self, log: &Log, what: &str) {
        let offset = |id| {
            log.committed(id, TOPIC, 0)
                .map_or(0, |c| c.next_offset as u32)
        };
        for held in [offset("a"), offset("b")] {
            let fate = self.0.get(&held).map(|(fate, _)| *fate);
            assert_ne!(fate, Some(Fate::Unseen), "{what}: offset {held}");
        }
        let last = |parity: u32| {
            let mut committed = self.0.iter().rev();
            committed.find(|(n, (fate, _))| *n % 2 == parity && *fate == Fate::Committed)
        };
        for (id, parity) in [("a", 1), ("b", 0)] {
            let due = last(parity).map_or(0, |(n, _)| *n);
            assert!(
                offset(id) >= due,
                "{what}: {id} has offset {}, not {due}",
                offset(id)
            );
        }
    }
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all_wherever_the_power_goes() {
    let seed = seed();
    for operation in 1..120 {
        let mut chance = Chance::new(seed.wrapping_mul(7).wrapping_add(operation));
        let what = format!("LOG_SEED={seed}, operation {operation}");
        let mut disk = SimDisk::default();
        let (mut ledger, mut next) = (Ledger::default(), 0);
        for life in 0..4 {
            let what = format!("{what}, life {life}");
            disk.power_off_after(if life == 0 {
                operation
            } else {
                1 + chance.below(90)
            });
            if let Ok(log) = open(&disk)
                && create_topic(&log, PARTITIONS).is_ok()
            {
                assert_eq!(log.damage(), None, "{what}");
                // Odd numbers are of a, even ones of b.
                next += next % 2;
                let _ = work(&log, &mut ledger, &mut next, &mut chance);
            }
            disk = disk.after_power_loss(&mut chance);
            // On a copy, so that its recovery is not part of the next life.
            let log = open(&disk.after_kill()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(log.damage(), None, "{what}");
            if log.topic(TOPIC).is_some() {
                ledger.check(&log, &what);
            }
        }
    }
}

/// Sends numbered batches until the power goes; what was not answered is sent again first, with its
/// sequence.
fn produce_from(
    log: &Log,
    producer: Producer,
    next: &mut i32,
    chance: &mut Chance,
) -> Result<(), AppendError> {
    loop {
        let who = As {
            producer,
            sequence: *next,
            transactional: false,
        };
        // The size of a batch follows from its number, so that it is the same when sent again.
        let count = 1 + *next % 3;
        let values: Vec<_> = (*next..*next + count).map(|n| n.to_string()).collect();
        produce(log, who, 0, &values)?;
        *next += count;
        if chance.below(10) == 0 {
            log.checkpoint()?;
        }
    }
}

#[test]
fn a_producer_that_sends_again_after_each_power_loss_is_stored_once_and_in_order() {
    let seed = seed();
    for round in 0..60 {
        let mut chance = Chance::new(seed.wrapping_mul(13).wrapping_add(round));
        let what = format!("LOG_SEED={seed}, round {round}");
        let mut disk = SimDisk::default();
        let (mut producer, mut next) = (None, 0);
        while next <= 60 {
            disk.power_off_after(30 + chance.below(80));
            if let Ok(log) = open(&disk)
                && create_topic(&log, 1).is_ok()
            {
                if producer.is_none() {
                    producer = run(log.init_producer(None, 0, None)).ok();
                }
                if let Some(producer) = producer {
                    let ended = produce_from(&log, producer, &mut next, &mut chance);
                    let powered = matches!(ended, Err(AppendError::Failed(_)));
                    assert!(powered, "{what}: {ended:?}");
                }
            }
            disk = disk.after_power_loss(&mut chance);
        }
        let log = open(&disk).expect("opens");
        let found = values(&log, 0).expect("reads");
        assert!(found.len() >= next as usize, "{what}");
        let expected: Vec<_> = (0..found.len()).map(|n| n.to_string()).collect();
        assert_eq!(found, expected, "{what}");
    }
}
