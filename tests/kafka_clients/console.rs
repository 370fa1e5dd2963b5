//! Apache's console tools, in the order in which a person would use them.

use std::io::Write;
use std::process::Stdio;

use crate::clients;
use crate::server::{Server, unique};
use crate::wire;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const API_VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
const VERIFIABLE_PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";

/// The tools on one broker.
struct Tools {
    bootstrap: String,
}

impl Tools {
    /// Runs a tool to its end with this input; answers its output.
    #[track_caller]
    fn run_with(&self, input: &str, main: &str, arguments: &[&str]) -> String {
        let jars = clients::jars().expect("they were here a moment ago");
        let mut java = jars.java(main);
        let mut child = java
            .args(["--bootstrap-server", &self.bootstrap])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("java is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("taken");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let (said, complaints) = (text(output.stdout), text(output.stderr));
        assert!(
            output.status.success(),
            "{main} {arguments:?} failed:\n{said}\n{complaints}"
        );
        said
    }

    #[track_caller]
    fn run(&self, main: &str, arguments: &[&str]) -> String {
        self.run_with("", main, arguments)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[track_caller]
fn says(output: &str, what: &str) {
    assert!(output.contains(what), "there is no {what:?} in:\n{output}");
}

fn start() -> Option<(Server, Tools)> {
    clients::jars()?;
    let server = Server::start();
    let bootstrap = server.bootstrap();
    Some((server, Tools { bootstrap }))
}

#[test]
fn topics_and_their_configuration_are_managed() {
    let Some((_server, tools)) = start() else {
        return;
    };
    let topic = unique("console");
    let create = [
        "--create",
        "--topic",
        &topic,
        "--partitions",
        "2",
        "--config",
        "retention.ms=3600000",
    ];
    tools.run(TOPICS, &create);
    tools.run(TOPICS, &["--alter", "--topic", &topic, "--partitions", "3"]);
    let described = tools.run(TOPICS, &["--describe", "--topic", &topic]);
    says(&described, "PartitionCount: 3");
    says(&described, "retention.ms=3600000");
    let entity = ["--entity-type", "topics", "--entity-name", &topic];
    let alter = ["--alter", "--add-config", "retention.ms=7200000"];
    tools.run(CONFIGS, &[&entity[..], &alter].concat());
    let described = tools.run(CONFIGS, &[&entity[..], &["--describe"]].concat());
    says(&described, "retention.ms=7200000");
    says(
        &tools.run(LOG_DIRS, &["--describe", "--topic-list", &topic]),
        &format!("{topic}-2"),
    );
    says(&tools.run(API_VERSIONS, &[]), "Produce(0)");
    tools.run(REASSIGN, &["--list"]);
    tools.run(TOPICS, &["--delete", "--topic", &topic]);
    let listed = tools.run(TOPICS, &["--list"]);
    assert!(
        !listed.lines().any(|it| it == topic),
        "it is gone: {listed}"
    );
}

#[test]
fn records_are_written_read_and_deleted_and_groups_are_reset() {
    let Some((server, tools)) = start() else {
        return;
    };
    let (topic, group) = (unique("console"), unique("console-group"));
    wire::create_topic(&server.bootstrap(), &topic, 1);
    let input: String = (0..100).map(|n| format!("key {n}:value {n}\n")).collect();
    let keyed = [
        "--property",
        "parse.key=true",
        "--property",
        "key.separator=:",
    ];
    let produce = ["--topic", &topic, "--compression-codec", "zstd"];
    tools.run_with(&input, PRODUCER, &[&produce[..], &keyed].concat());

    let consume = [
        "--topic",
        &topic,
        "--group",
        &group,
        "--from-beginning",
        "--max-messages",
        "100",
        "--property",
        "print.key=true",
        "--property",
        "key.separator=:",
    ];
    assert_eq!(tools.run(CONSUMER, &consume), input);
    says(&tools.run(GROUPS, &["--list"]), &group);
    assert_eq!(wire::committed(&server.bootstrap(), &group, &topic, 0), 100);
    let reset = [
        "--reset-offsets",
        "--group",
        &group,
        "--topic",
        &topic,
        "--to-offset",
        "40",
        "--execute",
    ];
    tools.run(GROUPS, &reset);
    let described = tools.run(GROUPS, &["--describe", "--group", &group]);
    let row = described
        .lines()
        .find(|it| it.contains(&topic))
        .expect("a row");
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..6], [&group, &topic, "0", "40", "100", "60"]);

    let json = format!(
        r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"offset":100}}]}}"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("offsets.json");
    std::fs::write(&file, json).expect("written");
    tools.run(
        DELETE_RECORDS,
        &["--offset-json-file", &file.display().to_string()],
    );
    let earliest = tools.run(OFFSETS, &["--topic", &topic, "--time", "earliest"]);
    assert_eq!(earliest.trim(), format!("{topic}:0:100"));
    tools.run(GROUPS, &["--delete", "--group", &group]);
    assert_eq!(wire::committed(&server.bootstrap(), &group, &topic, 0), -1);
}

#[test]
fn the_verifiable_producer_is_acknowledged_and_transactions_are_listed() {
    let Some((server, tools)) = start() else {
        return;
    };
    let topic = unique("verifiable");
    wire::create_topic(&server.bootstrap(), &topic, 2);
    let produced = tools.run(
        VERIFIABLE_PRODUCER,
        &["--topic", &topic, "--max-messages", "500"],
    );
    says(&produced, "\"sent\":500,\"acked\":500");
    let listed = tools.run(TRANSACTIONS, &["list"]);
    says(&listed, "TransactionalId");
    let described = tools.run(
        TRANSACTIONS,
        &["describe-producers", "--topic", &topic, "--partition", "0"],
    );
    says(&described, "ProducerId");
}
