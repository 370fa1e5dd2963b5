//! Consumers of some client in one group, watched from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::Client;
use crate::driver::{Driver, next};
use crate::records::Read;

/// How long a test listens before it asks once more.
const A_LITTLE: Duration = Duration::from_millis(500);

/// Members of one group, by the number they were started with.
pub struct Group<'a> {
    client: &'a Client,
    job: Value,
    members: BTreeMap<usize, Driver>,
    started: usize,
    sender: Sender<(usize, Value)>,
    events: Receiver<(usize, Value)>,
    /// What each living member last said that it holds.
    held: BTreeMap<usize, BTreeSet<i32>>,
    /// What was read, in the order in which it was told.
    pub read: Vec<Read>,
    /// The highest committed offset of each partition.
    pub committed: BTreeMap<i32, i64>,
    /// By member and partition, the last offset since its last assignment.
    last: BTreeMap<(usize, i32), i64>,
}

impl<'a> Group<'a> {
    /// A group without members. `settings`: `reset`, `isolation`, `from`, `session_timeout_ms`.
    pub fn new(
        client: &'a Client,
        bootstrap: &str,
        topic: &str,
        group: &str,
        settings: Value,
    ) -> Self {
        let mut job = settings;
        job["job"] = json!("consume");
        job["bootstrap"] = json!(bootstrap);
        job["topic"] = json!(topic);
        job["group"] = json!(group);
        let (sender, events) = channel();
        Self {
            client,
            job,
            members: BTreeMap::new(),
            started: 0,
            sender,
            events,
            held: BTreeMap::new(),
            read: Vec::new(),
            committed: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// Starts one more member; answers its number.
    pub fn join(&mut self) -> usize {
        let id = self.started;
        self.started += 1;
        let command = self
            .client
            .driver(&self.job)
            .expect("it was here a moment ago");
        let name = format!("{}'s consumer {id}", self.client.name);
        self.members
            .insert(id, Driver::start(name, command, id, self.sender.clone()));
        id
    }

    /// `kill -9` of one member.
    pub fn kill9(&mut self, id: usize) {
        let mut member = self.members.remove(&id).expect("a living member");
        member.kill9();
        while self.note("the end of a killed member") != (id, Value::Null) {}
        self.held.remove(&id);
    }

    /// One member leaves in good order.
    pub fn leave(&mut self, id: usize) {
        self.members.get_mut(&id).expect("a living member").finish();
        while self.note("the end of a leaving member") != (id, Value::Null) {}
        let mut member = self.members.remove(&id).expect("a living member");
        member.ended_well();
        self.held.remove(&id);
    }

    /// All members leave in good order, one after another.
    pub fn close(mut self) -> Vec<Read> {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.leave(id);
        }
        self.read
    }

    /// Waits until `reached` of this group.
    pub fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let (id, event) = self.note(what);
            assert!(
                !event.is_null(),
                "member {id} ended while we wait for {what}"
            );
        }
    }

    /// Notes what is told before long.
    pub fn listen(&mut self) {
        let first = self.events.recv_timeout(A_LITTLE);
        let heard: Vec<_> = first.into_iter().chain(self.events.try_iter()).collect();
        for (id, event) in heard {
            self.take(id, &event);
        }
    }

    /// Waits until so many records were read.
    pub fn until_read(&mut self, count: usize) {
        self.until(&format!("{count} records"), |it| it.read.len() >= count);
    }

    /// Waits until the living members hold all `partitions` between them, none of them twice, and
    /// each holds one at least.
    pub fn until_shared(&mut self, partitions: usize) {
        let what = format!("a fair share of {partitions} partitions");
        self.until(&what, |it| {
            let held: usize = it.held.values().map(BTreeSet::len).sum();
            let all: BTreeSet<&i32> = it.held.values().flatten().collect();
            it.held.len() == it.members.len()
                && it.held.values().all(|held| !held.is_empty())
                && (held, all.len()) == (partitions, partitions)
        });
    }

    fn note(&mut self, waiting_for: &str) -> (usize, Value) {
        let (id, event) = next(&self.events, waiting_for);
        self.take(id, &event);
        (id, event)
    }

    fn take(&mut self, id: usize, event: &Value) {
        if let Some(partitions) = event["assigned"].as_array() {
            let partitions = partitions.iter().map(partition).collect();
            self.held.insert(id, partitions);
            self.last.retain(|(member, _), _| *member != id);
        } else if event["record"].is_object() {
            let read: Read = serde_json::from_value(event["record"].clone()).expect("a record");
            self.note_record(id, read);
        } else if event["committed"].is_number() {
            let offset = event["offset"].as_i64().expect("an offset");
            let committed = self
                .committed
                .entry(partition(&event["committed"]))
                .or_default();
            *committed = offset.max(*committed);
        } else if event.is_string() {
            panic!("member {id} says no JSON: {event}");
        }
    }

    /// The two things that a group must never do: read again what was committed, and go back
    /// within one assignment.
    fn note_record(&mut self, id: usize, read: Read) {
        let (partition, offset) = (read.partition, read.offset);
        let committed = self.committed.get(&partition).copied().unwrap_or(0);
        assert!(
            offset >= committed,
            "member {id} read {offset} of partition {partition} after {committed} was committed"
        );
        let last = self.last.insert((id, partition), offset);
        assert!(
            last.is_none_or(|last| last < offset),
            "member {id} read {offset} of partition {partition} after {last:?}"
        );
        self.read.push(read);
    }
}

fn partition(value: &Value) -> i32 {
    let number = value.as_i64().expect("a partition");
    i32::try_from(number).expect("a partition")
}
