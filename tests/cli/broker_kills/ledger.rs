//! What the producers were told, kept outside of the broker.

use std::sync::Mutex;

use tokio::sync::watch;

/// A partition: its place in [`PLACES`].
pub type Place = usize;

/// Every topic, and how it is flushed: `kill -9` leaves what the operating system has, so that
/// both must keep what was acknowledged.
pub const TOPICS: [(&str, &str); 2] = [("synced", "sync"), ("unsynced", "async")];
/// Partitions of each topic.
pub const PARTITIONS: usize = 3;
/// All partitions of all topics, in order.
pub const PLACES: usize = TOPICS.len() * PARTITIONS;
/// Keys of each producer in each partition.
const KEYS: u64 = 3;

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `acks=all`; what is not answered is not sent again.
    Plain,
    /// With a producer id and sequences; everything is sent until it is answered.
    Idempotent,
    /// Several partitions count together or not at all.
    Transactional,
    /// As the relay does: with a publication, until it is answered.
    Publishing,
}

/// All kinds.
pub const KINDS: [Kind; 4] = [
    Kind::Plain,
    Kind::Idempotent,
    Kind::Transactional,
    Kind::Publishing,
];

/// What became of records that count together, as far as their producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, or committed: all of them are to be read.
    Done,
    /// Aborted, or never committed: none is to be read by readers of committed records.
    Undone,
    /// Asked for and not answered: all or none.
    Unknown,
}

/// One record that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its number: rising at its producer.
    pub n: u64,
    /// Where it was sent.
    pub place: Place,
    /// The offset that was acknowledged.
    pub offset: Option<i64>,
}

/// Records that count together: a batch, an append of several, a transaction.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Who sent them.
    pub producer: u64,
    /// How.
    pub kind: Kind,
    /// What became of them.
    pub outcome: Outcome,
    /// The records.
    pub records: Vec<Sent>,
}

/// Shared by all producers.
#[derive(Debug)]
pub struct Ledger {
    units: Mutex<Vec<Unit>>,
    ids: Mutex<Vec<i64>>,
    settled: watch::Sender<u64>,
    lost: watch::Sender<u64>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            units: Mutex::default(),
            ids: Mutex::default(),
            settled: watch::Sender::new(0),
            lost: watch::Sender::new(0),
        }
    }

    /// Writes down what became of a unit.
    pub fn settle(&self, unit: Unit) {
        let acked = unit.outcome != Outcome::Unknown;
        self.units.lock().expect("no panic").push(unit);
        if acked {
            self.settled.send_modify(|n| *n += 1);
        }
    }

    /// A producer id that was given out.
    pub fn given(&self, id: i64) {
        self.ids.lock().expect("no panic").push(id);
    }

    /// A kill took an answer away.
    pub fn lose(&self) {
        self.lost.send_modify(|n| *n += 1);
    }

    /// How many units have an outcome that is known: rises while the broker answers.
    pub fn settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// How often a producer lost its connection.
    pub fn lost(&self) -> u64 {
        *self.lost.borrow()
    }

    /// Everything, and the producer ids.
    pub fn take(&self) -> (Vec<Unit>, Vec<i64>) {
        let units = std::mem::take(&mut *self.units.lock().expect("no panic"));
        (
            units,
            std::mem::take(&mut *self.ids.lock().expect("no panic")),
        )
    }
}

/// Topic and partition.
pub fn topic_of(place: Place) -> (&'static str, u32) {
    (TOPICS[place / PARTITIONS].0, (place % PARTITIONS) as u32)
}

/// The key of a record. A key is that of one producer in one partition, so that its order is known.
pub fn key_of(producer: u64, place: Place, n: u64) -> String {
    format!("{producer}-{place}-{}", n % KEYS)
}

/// The value of a record follows from who sent it and its number, so that all bytes are known.
pub fn value_of(producer: u64, n: u64) -> Vec<u8> {
    let mut value = format!("{producer}/{n}/").into_bytes();
    let filler = (n * 7_919 + producer * 131) % 700;
    value.extend((0..filler).map(|i| ((n + i) * 31 % 251) as u8));
    value
}

/// Producer and number of a value, read from its front; `None` for bytes that nobody sent.
pub fn sender_of(value: &[u8]) -> Option<(u64, u64)> {
    let mut parts = value.splitn(3, |b| *b == b'/');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    Some((number()?, number()?))
}
