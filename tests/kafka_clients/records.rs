//! What was sent and what was read: the ledger is kept here, outside of every client.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// A record as a test wants it sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<String>,
    pub value: String,
    /// Milliseconds since 1970; `None` for the client's clock.
    pub timestamp: Option<i64>,
    pub headers: BTreeMap<String, String>,
    /// `None` for the client's choice.
    pub partition: Option<i32>,
}

impl Record {
    /// A record with a key.
    pub fn keyed(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            value: value.into(),
            ..Self::default()
        }
    }

    /// As a driver takes it.
    pub fn to_send(&self, id: usize, topic: &str) -> Value {
        let mut send = json!({"id": id, "topic": topic, "key": self.key, "value": self.value});
        if let Some(timestamp) = self.timestamp {
            send["timestamp"] = json!(timestamp);
        }
        if let Some(partition) = self.partition {
            send["partition"] = json!(partition);
        }
        if !self.headers.is_empty() {
            send["headers"] = json!(self.headers);
        }
        json!({ "send": send })
    }
}

/// A record that the server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    pub record: Record,
    pub partition: i32,
    pub offset: i64,
}

/// A record as a consumer told it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: String,
    pub headers: BTreeMap<String, String>,
}

/// Asserts that what was read is what was acknowledged: every record once, at its offset, whole.
#[track_caller]
pub fn assert_same(acked: &[Acked], read: &[Read]) {
    let mut wanted: BTreeMap<(i32, i64), &Record> = BTreeMap::new();
    for Acked {
        record,
        partition,
        offset,
    } in acked
    {
        let other = wanted.insert((*partition, *offset), record);
        assert_eq!(
            other, None,
            "two records got offset {offset} of partition {partition}"
        );
    }
    for got in read {
        let at = (got.partition, got.offset);
        let Some(sent) = wanted.remove(&at) else {
            panic!("not sent, or read twice: {}", brief(got));
        };
        assert_eq!(got.key, sent.key, "the key at {at:?}");
        assert!(
            got.value == sent.value,
            "the value at {at:?}: {}",
            brief(got)
        );
        assert_eq!(got.headers, sent.headers, "the headers at {at:?}");
        if let Some(timestamp) = sent.timestamp {
            assert_eq!(got.timestamp, timestamp, "the timestamp at {at:?}");
        }
    }
    assert!(wanted.is_empty(), "{} records were not read", wanted.len());
}

/// Asserts that the values of each key came in the order in which they were sent.
#[track_caller]
pub fn assert_in_order(sent: &[Record], read: &[Read]) {
    let mut order: BTreeMap<&Option<String>, Vec<&str>> = BTreeMap::new();
    for record in sent {
        order.entry(&record.key).or_default().push(&record.value);
    }
    let mut came: BTreeMap<&Option<String>, Vec<&str>> = BTreeMap::new();
    for record in read {
        came.entry(&record.key).or_default().push(&record.value);
    }
    assert_eq!(order, came);
}

fn brief(record: &Read) -> String {
    let text = format!("{record:?}");
    text.chars().take(300).collect()
}

/// `count` records over `keys` keys, each value once.
pub fn numbered(prefix: &str, count: usize, keys: usize) -> Vec<Record> {
    (0..count)
        .map(|n| Record::keyed(format!("key {}", n % keys), format!("{prefix} {n}")))
        .collect()
}
