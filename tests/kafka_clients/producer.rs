//! A producer of some client, and the ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::clients::Client;
use crate::driver::{Driver, next};
use crate::records::{Acked, Record};

/// A producer that runs.
pub struct Producer {
    driver: Driver,
    events: Receiver<(usize, Value)>,
    topic: String,
    sent: Vec<Record>,
    /// By the record's number: where it is, or why it was refused.
    answers: BTreeMap<usize, Result<(i32, i64), String>>,
    /// How many of `sent` have been handed to a caller as acknowledged.
    told: usize,
}

impl Producer {
    /// Starts one with these settings: `codec`, `idempotent`, `transactional_id`.
    pub fn start(client: &Client, bootstrap: &str, topic: &str, settings: Value) -> Self {
        let mut job = settings;
        job["job"] = json!("produce");
        job["bootstrap"] = json!(bootstrap);
        let command = client.driver(&job).expect("it was here a moment ago");
        let (sender, events) = channel();
        let name = format!("{}'s producer", client.name);
        let mut producer = Self {
            driver: Driver::start(name, command, 0, sender),
            events,
            topic: topic.to_owned(),
            sent: Vec::new(),
            answers: BTreeMap::new(),
            told: 0,
        };
        if job["transactional_id"].is_string() {
            producer.outcome("init").expect("it gets its producer id");
        }
        producer
    }

    /// Sends records; does not wait.
    pub fn send(&mut self, records: &[Record]) {
        for record in records {
            let send = record.to_send(self.sent.len(), &self.topic);
            self.driver.tell(&send);
            self.sent.push(record.clone());
        }
    }

    /// Waits for the answer to each record; answers those sent since the last call.
    pub fn flush(&mut self) -> Vec<Result<Acked, String>> {
        self.driver.tell(&json!({"flush": true}));
        self.outcome("flush").expect("flushed");
        while self.answers.len() < self.sent.len() {
            self.note("an answer to each record");
        }
        let since = std::mem::replace(&mut self.told, self.sent.len());
        (since..self.sent.len())
            .map(|id| {
                let (partition, offset) = self.answers[&id].clone()?;
                let record = self.sent[id].clone();
                Ok(Acked {
                    record,
                    partition,
                    offset,
                })
            })
            .collect()
    }

    /// Sends records and waits until each is acknowledged.
    #[track_caller]
    pub fn send_all(&mut self, records: &[Record]) -> Vec<Acked> {
        self.send(records);
        self.flush()
            .into_iter()
            .map(|answer| answer.expect("acknowledged"))
            .collect()
    }

    /// Waits until so many records were answered.
    pub fn wait_for_answers(&mut self, count: usize) {
        while self.answers.len() < count {
            self.note("more answers");
        }
    }

    /// `begin`, `commit` or `abort`; the client's error when it failed.
    pub fn transaction(&mut self, command: &str) -> Result<(), String> {
        self.driver.tell(&json!({ command: true }));
        self.outcome(command)
    }

    /// Commits a group's offset in the transaction.
    pub fn offsets(&mut self, group: &str, topic: &str, offset: i64) -> Result<(), String> {
        let offsets = json!({"group": group, "topic": topic, "partition": 0, "offset": offset});
        self.driver.tell(&json!({ "offsets": offsets }));
        self.outcome("offsets")
    }

    /// Closes it in good order.
    pub fn close(mut self) {
        self.driver.ended_well();
    }

    /// `kill -9`.
    pub fn kill9(mut self) {
        self.driver.kill9();
    }

    fn outcome(&mut self, command: &str) -> Result<(), String> {
        loop {
            let event = self.note(command);
            if event["done"] == command {
                return Ok(());
            }
            if event["failed"] == command {
                return Err(event["error"].to_string());
            }
        }
    }

    fn note(&mut self, waiting_for: &str) -> Value {
        let (_, event) = next(&self.events, waiting_for);
        let number = |name: &str| event[name].as_i64();
        if let Some(id) = number("acked").or(number("refused")) {
            let answer = match (number("partition"), number("offset")) {
                (Some(partition), Some(offset)) => {
                    Ok((i32::try_from(partition).expect("a partition"), offset))
                }
                _ => Err(event["error"].to_string()),
            };
            let id = usize::try_from(id).expect("a number of ours");
            let before = self.answers.insert(id, answer);
            assert_eq!(before, None, "record {id} was answered twice");
        }
        assert!(
            !event.is_null(),
            "the producer ended while we wait for {waiting_for}"
        );
        event
    }
}
