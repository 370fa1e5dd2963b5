//! kcat, as distributions ship it: often with a librdkafka of years ago, which looks for exact
//! versions of some APIs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::driver::{Driver, next, until};
use crate::producing::{CODECS, body};
use crate::server::{Server, unique};
use crate::wire;

/// kcat on this broker.
struct Kcat(String);

/// A record as kcat tells it: partition, offset, key and value.
type Told = (i64, i64, Option<String>, String);

impl Kcat {
    fn on(server: &Server) -> Self {
        Self(server.bootstrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.0]).args(arguments);
        command
    }

    /// Runs it to its end with this input; answers its output.
    fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("kcat is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("taken");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kcat {arguments:?} failed:\n{complaints}"
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Reads a topic to its end.
    fn read(&self, topic: &str, arguments: &[&str]) -> Vec<Told> {
        let all = [&["-C", "-t", topic, "-e", "-q", "-J"], arguments].concat();
        let read = self.run(&all, "");
        read.lines()
            .map(|line| told(&serde_json::from_str(line).expect("JSON")))
            .collect()
    }
}

fn told(record: &Value) -> Told {
    let number = |name: &str| record[name].as_i64().expect("a number");
    let key = record["key"].as_str().map(str::to_owned);
    let value = record["payload"].as_str().unwrap_or_default().to_owned();
    (number("partition"), number("offset"), key, value)
}

fn values(read: Vec<Told>) -> Vec<String> {
    read.into_iter().map(|(_, _, _, value)| value).collect()
}

#[test]
fn each_codec_round_trips() {
    let server = Server::start();
    let kcat = Kcat::on(&server);
    for codec in CODECS {
        let topic = unique(codec);
        wire::create_topic(&server.bootstrap(), &topic, 1);
        let sent: Vec<(String, String)> = (0..10)
            .map(|n| (format!("key {n}"), body(n, 50 + 400 * n)))
            .collect();
        let lines: String = sent
            .iter()
            .map(|(key, value)| format!("{key}:{value}\n"))
            .collect();
        kcat.run(
            &["-P", "-t", &topic, "-K:", "-z", codec, "-X", "linger.ms=50"],
            &lines,
        );
        let stored = wire::codecs(&server.bootstrap(), &topic, 0);
        assert_eq!(stored, BTreeSet::from([codec]), "what the broker keeps");
        let read = kcat.read(&topic, &[]);
        let read: Vec<_> = read
            .into_iter()
            .map(|(_, _, key, value)| (key.expect("a key"), value))
            .collect();
        assert_eq!(read, sent, "{codec}");
    }
}

#[test]
fn an_idempotent_producer_makes_the_topic_and_keys_keep_their_order() {
    let server = Server::start();
    let (kcat, topic) = (Kcat::on(&server), unique("made-by-kcat"));
    let lines: String = (0..2_000)
        .map(|n| format!("key {}:{n}\n", n % 30))
        .collect();
    kcat.run(
        &["-P", "-t", &topic, "-K:", "-X", "enable.idempotence=true"],
        &lines,
    );
    let read = kcat.read(&topic, &[]);
    assert_eq!(read.len(), 2_000);
    let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (partition, _, key, value) in read {
        let (key, value) = (key.expect("a key"), value.parse::<i64>().expect("a number"));
        let before = last.insert(key.clone(), (partition, value));
        assert!(
            before.is_none_or(|(home, last)| home == partition && last < value),
            "{key}: {value} in {partition} after {before:?}"
        );
    }
}

#[test]
fn a_megabyte_passes() {
    let server = Server::start();
    let (kcat, topic) = (Kcat::on(&server), unique("large"));
    wire::create_topic(&server.bootstrap(), &topic, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let large = body(7, 1_000_000);
    let file = folder.path().join("large");
    std::fs::write(&file, &large).expect("written");
    let file = file.display().to_string();
    // librdkafka's own bound is a little lower than the broker's.
    let produce = ["-P", "-t", &topic, "-X", "message.max.bytes=1048588"];
    kcat.run(&[&produce[..], &[&file]].concat(), "");
    let read = values(kcat.read(&topic, &[]));
    assert!(read == [large], "what came back is another one");
}

#[test]
fn metadata_and_offsets_by_time_are_told() {
    let server = Server::start();
    let (kcat, topic) = (Kcat::on(&server), unique("told"));
    wire::create_topic(&server.bootstrap(), &topic, 3);
    let metadata: Value = serde_json::from_str(&kcat.run(&["-L", "-J"], "")).expect("JSON");
    assert_eq!(metadata["brokers"][0]["name"], server.bootstrap());
    let topics = metadata["topics"].as_array().expect("topics");
    let told = topics
        .iter()
        .find(|it| it["topic"] == topic)
        .expect("listed");
    assert_eq!(told["partitions"].as_array().map(Vec::len), Some(3));

    kcat.run(&["-P", "-t", &topic, "-p", "1"], "early\n");
    let early = kcat.read_times(&topic)[0];
    until("a later record", || {
        kcat.run(&["-P", "-t", &topic, "-p", "1"], "late\n");
        kcat.read_times(&topic).last() > Some(&early)
    });
    let times = kcat.read_times(&topic);
    let late = *times.iter().find(|it| **it > early).expect("it was there");
    let earlier = kcat
        .read_times(&topic)
        .iter()
        .filter(|it| **it < late)
        .count();
    let asked = kcat.run(&["-Q", "-t", &format!("{topic}:1:{late}")], "");
    assert_eq!(asked.trim(), format!("{topic} [1] offset {earlier}"));
    let since = kcat.read(&topic, &["-p", "1", "-o", &format!("s@{late}")]);
    assert!(!since.is_empty() && since.iter().all(|(_, _, _, value)| value == "late"));
    let last = kcat.read(&topic, &["-p", "1", "-o", "-1"]);
    assert_eq!(values(last), ["late"]);
}

impl Kcat {
    /// The timestamps of partition 1.
    fn read_times(&self, topic: &str) -> Vec<i64> {
        let read = self.run(
            &["-C", "-t", topic, "-p", "1", "-e", "-q", "-f", "%T\n"],
            "",
        );
        read.lines()
            .map(|line| line.parse().expect("a time"))
            .collect()
    }
}

#[test]
fn a_transaction_is_committed_at_the_end_of_the_input_and_aborted_by_a_signal() {
    let server = Server::start();
    let (kcat, topic, id) = (Kcat::on(&server), unique("transactional"), unique("kcat"));
    wire::create_topic(&server.bootstrap(), &topic, 1);
    let id = format!("transactional.id={id}");
    let produce = ["-P", "-t", &topic, "-X", &id, "-X", "linger.ms=5"];
    kcat.run(&produce, "one\ntwo\n");

    let (sender, _events) = channel();
    let mut open = Driver::start("kcat", kcat.command(&produce), 0, sender);
    // kcat reads its input in blocks.
    for _ in 0..100 {
        open.tell(&json!("never ".repeat(20)));
    }
    let uncommitted = ["-X", "isolation.level=read_uncommitted"];
    until("an open transaction's records", || {
        kcat.read(&topic, &uncommitted).len() > 2
    });
    let committed = ["-X", "isolation.level=read_committed"];
    assert_eq!(values(kcat.read(&topic, &committed)), ["one", "two"]);
    open.terminate();
    kcat.run(&produce, "three\n");
    assert_eq!(
        values(kcat.read(&topic, &committed)),
        ["one", "two", "three"]
    );
    assert!(kcat.read(&topic, &uncommitted).len() > 3);
}

#[test]
fn a_group_shares_its_partitions_and_goes_on_when_a_member_is_killed() {
    let server = Server::start();
    let (kcat, topic, group) = (Kcat::on(&server), unique("shared"), unique("group"));
    wire::create_topic(&server.bootstrap(), &topic, 4);
    let settings = [
        "auto.offset.reset=earliest",
        "session.timeout.ms=6000",
        "heartbeat.interval.ms=300",
    ];
    let mut arguments = vec!["-G", &group, &topic, "-J", "-u", "-q"];
    arguments.extend(settings.iter().flat_map(|it| ["-X", *it]));
    let (sender, events) = channel();
    let start = |id: usize| {
        let name = format!("kcat {id}");
        Driver::start(name, kcat.command(&arguments), id, sender.clone())
    };
    let mut sent = BTreeSet::new();
    let mut read: BTreeMap<String, usize> = BTreeMap::new();
    let mut send = |round: &str| {
        let lines = (0..40).map(|n| format!("key {n}:{round} {n}"));
        let lines: Vec<String> = lines.collect();
        kcat.run(&["-P", "-t", &topic, "-K:"], &(lines.join("\n") + "\n"));
        sent.extend(
            lines
                .iter()
                .filter_map(|it| it.split_once(':'))
                .map(|(_, it)| it.to_owned()),
        );
        sent.clone()
    };

    let _first = start(0);
    let mut second = start(1);
    let mut round = 0;
    // Both have a share once each of them reads something.
    while BTreeSet::from_iter(read.values().copied()).len() < 2 {
        round += 1;
        for value in send(&format!("round {round}")) {
            while !read.contains_key(&value) {
                let (id, record) = next(&events, &value);
                read.insert(told(&record).3, id);
            }
        }
    }
    second.kill9();
    for value in send("after the kill") {
        while !read.contains_key(&value) {
            let (id, record) = next(&events, &value);
            if !record.is_null() {
                read.insert(told(&record).3, id);
            }
        }
    }
    let survivors = read.iter().filter(|(value, _)| value.starts_with("after"));
    assert!(survivors.clone().count() == 40 && survivors.clone().all(|(_, id)| *id == 0));
}
