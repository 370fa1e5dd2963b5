//! A Kafka Streams word count, exactly once: repartition topic, changelog, transactions.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::clients::{self, JAVA};
use crate::consumers::Group;
use crate::driver::{Driver, next};
use crate::producer::Producer;
use crate::records::Record;
use crate::server::{Server, unique};
use crate::wire;

const WORDS: [&str; 7] = ["outbox", "relay", "log", "inbox", "fence", "lease", "gap"];

/// Lines of words, and how often each word stands in them.
fn lines() -> (Vec<Record>, BTreeMap<String, u64>) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let lines = (0..400_usize).map(|n| {
        let words: Vec<&str> = (0..5)
            .map(|at| WORDS[(n * (at + 1) + at) % WORDS.len()])
            .collect();
        for word in &words {
            *counts.entry((*word).to_owned()).or_default() += 1;
        }
        Record::keyed(format!("line {n}"), words.join(" "))
    });
    let lines = lines.collect();
    (lines, counts)
}

struct WordCount {
    driver: Driver,
    events: Receiver<(usize, Value)>,
}

impl WordCount {
    fn start(arguments: &[&str]) -> Self {
        let mut command = clients::java("WordCount").expect("it was here a moment ago");
        command.args(arguments);
        let (sender, events) = channel();
        let driver = Driver::start("the word count", command, 0, sender);
        Self { driver, events }
    }

    fn until_running(&self) {
        let (_, event) = next(&self.events, "the word count to run");
        assert_eq!(event, "running");
    }
}

#[test]
fn a_word_count_that_is_killed_and_started_again_counts_each_word_once() {
    if clients::jars().is_none() {
        return;
    }
    let server = Server::start();
    let (bootstrap, source, target) = (server.bootstrap(), unique("lines"), unique("counts"));
    wire::create_topic(&bootstrap, &source, 2);
    wire::create_topic(&bootstrap, &target, 2);
    let (lines, wanted) = lines();
    let (first, second) = lines.split_at(lines.len() / 2);
    let state = tempfile::tempdir().expect("a folder");
    let (application, state) = (unique("word-count"), state.path().display().to_string());
    let arguments = [&bootstrap, &source, &target, &application, &state].map(String::as_str);

    let mut killed = WordCount::start(&arguments);
    let mut producer = Producer::start(&JAVA, &bootstrap, &source, json!({}));
    producer.send_all(first);
    killed.until_running();
    let mut reader = Group::new(&JAVA, &bootstrap, &target, &unique("reader"), json!({}));
    reader.join();
    reader.until_read(WORDS.len());
    producer.send_all(second);
    killed.driver.kill9();

    let mut last = WordCount::start(&arguments);
    last.until_running();
    reader.until("the final counts", |it| counts(it) == wanted);
    last.driver.ended_well();
    producer.close();
    // Exactly once: no count ever went past the truth, and none went back.
    for (word, count) in &wanted {
        let of_word = reader
            .read
            .iter()
            .filter(|it| it.key.as_ref() == Some(word));
        let seen: Vec<u64> = of_word.map(count_of).collect();
        assert!(
            seen.is_sorted() && seen.last() == Some(count),
            "{word}: {seen:?}, not {count}"
        );
    }
    reader.close();
}

fn count_of(record: &crate::records::Read) -> u64 {
    record.value.parse().expect("a number")
}

/// The newest count of each word.
fn counts(reader: &Group<'_>) -> BTreeMap<String, u64> {
    let newest = reader
        .read
        .iter()
        .map(|it| (it.key.clone().unwrap_or_default(), count_of(it)));
    newest.collect()
}
