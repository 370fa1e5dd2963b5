//! What an administrator asks for, step by step.

use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::clients::Client;
use crate::consumers::Group;
use crate::driver::{Driver, next, until};
use crate::producer::Producer;
use crate::records::numbered;
use crate::server::{Server, unique};
use crate::wire;

/// A client's administrator.
struct Admin {
    driver: Driver,
    events: Receiver<(usize, Value)>,
    /// Kafka's brokers hear of changes some time after they were answered; ours is one.
    by_and_by: bool,
}

impl Admin {
    fn start(client: &Client, server: &Server) -> Self {
        let job = json!({"job": "admin", "bootstrap": server.bootstrap()});
        let (sender, events) = channel();
        let command = client.driver(&job).expect("it was here a moment ago");
        let name = format!("{}'s administrator", client.name);
        Self {
            driver: Driver::start(name, command, 0, sender),
            events,
            by_and_by: !server.is_ours(),
        }
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.driver.tell(&json!({ command: arguments }));
        next(&self.events, command).1
    }

    /// The answer; `None` when the client does not offer it.
    #[track_caller]
    fn get(&mut self, command: &str, arguments: Value) -> Option<Value> {
        let mut event = self.ask(command, arguments);
        if event["unsupported"].is_string() {
            return None;
        }
        let answer = event.get_mut("answer").map(Value::take);
        Some(answer.unwrap_or_else(|| panic!("{command} failed: {event}")))
    }

    /// Changes something.
    #[track_caller]
    fn does(&mut self, command: &str, arguments: Value) {
        let answer = self.get(command, arguments);
        assert!(answer.is_none_or(|it| it == true), "{command}");
    }

    /// Reads something that must be so.
    #[track_caller]
    fn sees(&mut self, command: &str, arguments: Value, is_so: impl Fn(&Value) -> bool) {
        let mut answer = self.get(command, arguments.clone());
        if self.by_and_by {
            until(command, || {
                answer = self.get(command, arguments.clone());
                answer.as_ref().is_none_or(&is_so)
            });
        }
        assert!(answer.as_ref().is_none_or(is_so), "{command}: {answer:?}");
    }

    #[track_caller]
    fn reads(&mut self, command: &str, arguments: Value, wanted: Value) {
        self.sees(command, arguments, |answer| *answer == wanted);
    }

    #[track_caller]
    fn refuses(&mut self, command: &str, arguments: Value) {
        let event = self.ask(command, arguments);
        assert!(
            event["error"].is_string(),
            "{command} is not refused: {event}"
        );
    }
}

/// Whether a list of names has this one.
fn has(names: &Value, name: &str) -> bool {
    let names = names.as_array().expect("a list");
    names.iter().any(|it| it == name)
}

pub fn an_administrator_manages_topics(client: &Client) {
    let server = Server::start();
    let topic = &unique("managed");
    let mut admin = Admin::start(client, &server);
    admin.reads("nodes", json!({}), json!(1));
    let configs = json!({"retention.ms": "3600000"});
    let create = json!({"name": topic, "partitions": 2, "configs": configs});
    admin.does("create_topic", create.clone());
    admin.refuses("create_topic", create);
    admin.sees("topics", json!({}), |names| has(names, topic));
    admin.reads("partitions", json!({"topic": topic}), json!(2));
    admin.does("grow", json!({"topic": topic, "count": 3}));
    admin.reads("partitions", json!({"topic": topic}), json!(3));
    admin.refuses("grow", json!({"topic": topic, "count": 1}));

    admin.sees("configs", json!({"topic": topic}), |configs| {
        configs["retention.ms"] == "3600000" && configs["cleanup.policy"] == "delete"
    });
    let change = json!({"topic": topic, "name": "retention.ms", "value": "7200000"});
    admin.does("set_config", change);
    admin.sees("configs", json!({"topic": topic}), |configs| {
        configs["retention.ms"] == "7200000"
    });
    let wrong = json!({"topic": topic, "name": "retention.ms", "value": "soon"});
    match client.tells_refused_settings {
        true => admin.refuses("set_config", wrong),
        false => admin.does("set_config", wrong),
    }
    admin.sees("configs", json!({"topic": topic}), |configs| {
        configs["retention.ms"] == "7200000"
    });

    admin.does("delete_topic", json!({"name": topic}));
    admin.sees("topics", json!({}), |names| !has(names, topic));
    admin.refuses("delete_topic", json!({"name": topic}));
    admin.driver.ended_well();
}

pub fn an_administrator_reads_and_trims_offsets(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic) = (server.bootstrap(), unique("trimmed"));
    wire::create_topic(&bootstrap, &topic, 1);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    let mut records = numbered("value", 10, 3);
    for (record, second) in records.iter_mut().zip(1..) {
        record.timestamp = Some(1_700_000_000_000 + second * 1_000);
    }
    // A batch for each record: trimming need not cut batches in two.
    for record in records {
        producer.send_all(&[record]);
    }
    producer.close();
    let mut admin = Admin::start(client, &server);
    let at = |at: Value| json!({"topic": topic, "partition": 0, "at": at});
    admin.reads("offset", at(json!("earliest")), json!(0));
    admin.reads("offset", at(json!("latest")), json!(10));
    admin.reads("offset", at(json!(1_700_000_004_000_i64)), json!(3));
    admin.reads("offset", at(json!(1_700_000_004_001_i64)), json!(4));
    let before = json!({"topic": topic, "partition": 0, "before": 4});
    assert_eq!(admin.get("trim", before), Some(json!(4)));
    admin.reads("offset", at(json!("earliest")), json!(4));
    admin.reads("offset", at(json!("latest")), json!(10));
    admin.driver.ended_well();
}

pub fn an_administrator_manages_groups(client: &Client) {
    let server = Server::start();
    let (bootstrap, topic, id) = (server.bootstrap(), unique("grouped"), unique("managed"));
    wire::create_topic(&bootstrap, &topic, 1);
    let mut producer = Producer::start(client, &bootstrap, &topic, json!({}));
    producer.send_all(&numbered("value", 10, 3));
    producer.close();
    let mut group = Group::new(client, &bootstrap, &topic, &id, json!({}));
    group.join();
    group.until("10 to be committed", |it| it.committed.get(&0) == Some(&10));

    let mut admin = Admin::start(client, &server);
    admin.sees("groups", json!({}), |names| has(names, &id));
    admin.reads(
        "group",
        json!({"id": id}),
        json!({"state": "STABLE", "members": 1}),
    );
    let offset = json!({"id": id, "topic": topic, "partition": 0});
    admin.reads("group_offset", offset.clone(), json!(10));
    admin.refuses("delete_group", json!({"id": id}));
    group.close();
    admin.reads(
        "group",
        json!({"id": id}),
        json!({"state": "EMPTY", "members": 0}),
    );
    let reset = json!({"id": id, "topic": topic, "partition": 0, "offset": 4});
    if admin.get("set_group_offset", reset).is_some() {
        admin.reads("group_offset", offset, json!(4));
        assert_eq!(wire::committed(&bootstrap, &id, &topic, 0), 4);
    }
    admin.does("delete_group", json!({"id": id}));
    admin.sees("groups", json!({}), |names| !has(names, &id));
    assert_eq!(wire::committed(&bootstrap, &id, &topic, 0), -1);
    admin.driver.ended_well();
}
