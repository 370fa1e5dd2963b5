//! What producers were told, and whether the log bears it out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::reading::{Partition, Record};

/// Topic and partition.
pub type Place = (&'static str, i32);

/// A record of the tests, by its value: who wrote it, which of his it is, and padding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub writer: String,
    pub number: u64,
    pub value: String,
}

impl Entry {
    /// Reads a value.
    pub fn parse(value: &str) -> Result<Self> {
        let mut parts = value.splitn(3, '/');
        let mut part = || {
            parts
                .next()
                .with_context(|| format!("not of this test: {value:?}"))
        };
        Ok(Self {
            writer: part()?.to_owned(),
            number: part()?.parse()?,
            value: value.to_owned(),
        })
    }
}

/// One batch as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub place: Place,
    pub values: Vec<String>,
}

/// What is known about transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its end was acknowledged.
    Committed,
    /// It was never asked to be committed.
    Aborted,
    /// It was asked to be committed, and no answer came.
    Unknown,
}

/// What the producers were told: kept outside of the broker.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged batches, with the offset of their first records.
    pub acknowledged: Vec<(Sent, i64)>,
    /// Batches without an answer that were not sent again: stored whole, or not at all.
    pub unanswered: Vec<Sent>,
    /// By writer and number: what became of each transaction, and all that it sent.
    pub transactions: BTreeMap<(String, u64), (Fate, BTreeSet<String>)>,
}

impl Ledger {
    /// Adds what another producer was told.
    pub fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unanswered.extend(other.unanswered);
        self.transactions.extend(other.transactions);
    }

    /// Compares with what readers of all records see.
    pub fn check_all(&self, log: &BTreeMap<Place, Partition>) -> Result<()> {
        for (sent, first) in &self.acknowledged {
            let partition = &log[&sent.place];
            for (offset, value) in (*first..).zip(&sent.values) {
                let found = partition.at(offset);
                ensure!(
                    found == Some(value),
                    "{:?} offset {offset} was acknowledged as {value:?} and is {found:?}",
                    sent.place
                );
            }
        }
        let stored: BTreeSet<&String> = log
            .values()
            .flat_map(|p| &p.records)
            .map(|r| &r.value)
            .collect();
        for sent in &self.unanswered {
            let there = sent.values.iter().filter(|v| stored.contains(v)).count();
            ensure!(
                there == 0 || there == sent.values.len(),
                "{there} of {} records of a batch are stored: {sent:?}",
                sent.values.len()
            );
        }
        log.iter().try_for_each(|(place, partition)| {
            once_and_in_order(&partition.records).with_context(|| format!("{place:?}"))
        })
    }

    /// Compares with what readers of committed records see of the transactions.
    pub fn check_committed(&self, log: &BTreeMap<Place, Partition>) -> Result<()> {
        let mut seen: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
        for record in log.values().flat_map(|p| &p.records) {
            let entry = Entry::parse(&record.value)?;
            let of = seen.entry((entry.writer, entry.number)).or_default();
            of.insert(entry.value);
        }
        for (transaction, (fate, sent)) in &self.transactions {
            let seen = seen.remove(transaction).unwrap_or_default();
            let right = match fate {
                Fate::Committed => seen == *sent,
                Fate::Aborted => seen.is_empty(),
                Fate::Unknown => seen.is_empty() || seen == *sent,
            };
            ensure!(
                right,
                "transaction {transaction:?} is {fate:?}: {} of its {} records are seen",
                seen.len(),
                sent.len()
            );
        }
        ensure!(seen.is_empty(), "nobody's transactions are seen: {seen:?}");
        log.iter().try_for_each(|(place, partition)| {
            once_and_in_order(&partition.records).with_context(|| format!("{place:?}"))
        })
    }
}

/// No value stands twice, and the numbers of each writer never go back.
fn once_and_in_order(records: &[Record]) -> Result<()> {
    let (mut values, mut last) = (BTreeSet::new(), BTreeMap::new());
    for record in records {
        ensure!(values.insert(&record.value), "stored twice: {record:?}");
        let entry = Entry::parse(&record.value)?;
        let before = last.insert(entry.writer, entry.number);
        ensure!(
            before <= Some(entry.number),
            "behind number {before:?} of its writer: {record:?}"
        );
    }
    Ok(())
}
