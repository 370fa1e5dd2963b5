//! `outbox broker`, and `outbox topic` and `outbox group` beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use outbox_log_broker::{Log, OffsetCommit};
use serde_json::json;

use crate::harness::{Place, Ran, Running, wait_for};
use crate::log::{fill, in_runtime};

const TOPIC: &str = "orders.placed";

/// A broker on the place's own log.
pub struct Served<'a> {
    place: &'a Place,
    broker: Running,
    pub addr: String,
}

impl<'a> Served<'a> {
    pub fn start(place: &'a Place, more: &[&str]) -> Self {
        let mut arguments = vec!["broker", "--listen", "127.0.0.1:0", "--json"];
        arguments.extend(more);
        let broker = place.start_logging(&arguments, "broker.log");
        let addr = logged(place, "serving Kafka's protocol addr=");
        Self {
            place,
            broker,
            addr,
        }
    }

    /// Runs a command against it.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut all = arguments.to_vec();
        all.extend(["--broker", &self.addr, "--json"]);
        self.place.run(&all)
    }
}

/// The word behind `text` in the broker's log.
fn logged(place: &Place, text: &str) -> String {
    wait_for(text, || {
        let log = std::fs::read_to_string(place.path().join("broker.log")).ok()?;
        // The line must have come whole.
        let (line, _) = log.split_once(text)?.1.split_once('\n')?;
        line.split_whitespace().next().map(ToOwned::to_owned)
    })
}

fn get(addr: &str, path: &str) -> String {
    let addr: SocketAddr = addr.parse().expect("an address");
    let mut stream = TcpStream::connect(addr).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn fill_and_commit(place: &Place) {
    let log = fill(place);
    commit(&log, "billing", 2);
}

fn commit(log: &Log, group: &str, next_offset: i64) {
    let offsets = [0, 1].map(|n| OffsetCommit::new(TOPIC.into(), n, next_offset));
    in_runtime(log.commit(group, &offsets)).expect("committed");
}

#[test]
fn health_and_metrics_are_served_beside_the_protocol() {
    let place = Place::new();
    let served = Served::start(&place, &["--http-listen", "127.0.0.1:0"]);
    let http = logged(&place, "serving /livez, /readyz and /metrics addr=");
    assert!(get(&http, "/livez").starts_with("HTTP/1.1 200"));
    let ready = get(&http, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains(r#""ready":true"#), "{ready}");
    served.run(&["topic", "create", TOPIC]).ended_with(0);
    let metrics = get(&http, "/metrics");
    let counted = r#"outbox_broker_requests_total{api="CreateTopics"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        metrics.contains("# HELP outbox_broker_connections"),
        "{metrics}"
    );
    let addr = served.addr.clone();
    let stopped = served.broker.terminate();
    assert_eq!(
        stopped.ended_with(0).json(),
        json!({"stopped": true, "addr": addr})
    );
}

#[test]
fn a_connection_that_misbehaves_is_closed_with_a_line_in_the_log() {
    let place = Place::new();
    let served = Served::start(&place, &[]);
    // Longer than any frame may be; a request that ends too soon; a key that nobody knows.
    for (frame, part) in [
        (&b"\x7f\xff\xff\xff\0\x12"[..], "2147483647 bytes"),
        (b"\0\0\0\x02\0\x12", "2 bytes"),
        (b"\0\0\0\x0a\x7f\xff\0\0\0\0\0\x07\xff\xff", "32767"),
    ] {
        let mut stream = TcpStream::connect(&served.addr).expect("it listens");
        let peer = stream.local_addr().expect("an address");
        stream.write_all(frame).expect("sent");
        let mut rest = Vec::new();
        // Closed, or reset with bytes of ours unread.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "no answer to {frame:?}");
        wait_for("the line", || {
            let log = std::fs::read_to_string(place.path().join("broker.log")).ok()?;
            let said = |line: &&str| line.contains(&format!("peer={peer}")) && line.contains(part);
            log.lines().any(|line| said(&line)).then_some(())
        });
    }
    // The rest do not notice.
    served.run(&["topic", "list"]).ended_with(0);
}

#[test]
fn what_is_reachable_from_outside_is_refused_unless_it_is_safe() {
    let place = Place::new();
    place
        .run(&["broker", "--listen", "0.0.0.0:0"])
        .ended_with(3)
        .complained("0.0.0.0:0");
    let arguments = [
        "broker",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "0.0.0.0:0",
    ];
    place
        .run(&arguments)
        .ended_with(3)
        .complained("/metrics and /readyz have no authentication");
}

#[test]
fn a_folder_that_another_broker_serves_and_a_port_that_is_taken_are_told() {
    let (place, other) = (Place::new(), Place::new());
    let served = Served::start(&place, &[]);
    place
        .run(&["broker", "--listen", "127.0.0.1:0"])
        .ended_with(5)
        .complained("another process");
    other
        .run(&["broker", "--listen", &served.addr])
        .ended_with(5)
        .complained(&served.addr);
}

#[test]
fn topics_are_created_listed_described_altered_and_deleted() {
    let place = Place::new();
    fill_and_commit(&place);
    let served = Served::start(&place, &["--partitions", "3"]);
    let create = ["topic", "create", "bills", "--set", "retention.ms=60000"];
    let created = served.run(&create);
    assert_eq!(
        created.ended_with(0).json(),
        json!({"topic": "bills", "done": "created"})
    );
    served.run(&create).ended_with(7).complained("bills");
    let listed = served.run(&["topic", "list"]);
    let topics = listed.ended_with(0).json()["topics"].clone();
    let rows = topics.as_array().expect("a list").iter();
    let rows: Vec<_> = rows
        .map(|t| (t["name"].clone(), t["partitions"].clone()))
        .collect();
    assert_eq!(rows, [(json!("bills"), json!(3)), (json!(TOPIC), json!(2))]);

    let described = served.run(&["topic", "describe", TOPIC]);
    let described = described.ended_with(0).json();
    let partition = json!({"partition": 1, "first": 0, "end": 5});
    assert_eq!(described["partitions"][1], partition);

    let alter = [
        "topic",
        "alter",
        "bills",
        "--set",
        "cleanup.policy=compact",
        "--unset",
        "retention.ms",
        "--partitions",
        "5",
    ];
    served.run(&alter).ended_with(0);
    let bills = served.run(&["topic", "describe", "bills"]);
    let bills = bills.ended_with(0).json();
    assert_eq!(bills["partitions"].as_array().map(Vec::len), Some(5));
    let setting = |name: &str| {
        let configs = bills["configs"].as_array().expect("a list");
        configs.iter().find(|c| c["name"] == name).cloned()
    };
    let policy = setting("cleanup.policy").expect("there");
    assert_eq!(policy["value"], "compact");
    assert_eq!(setting("retention.ms").expect("there")["default"], true);

    let unknown = ["topic", "alter", "bills", "--set", "colour=red"];
    served.run(&unknown).ended_with(7).complained("colour");
    let fewer = ["topic", "alter", "bills", "--partitions", "2"];
    served.run(&fewer).ended_with(7);
    served.run(&["topic", "delete", "bills"]).ended_with(0);
    for command in ["describe", "delete"] {
        let gone = served.run(&["topic", command, "bills"]);
        gone.ended_with(8).complained("bills");
    }
}

#[test]
fn a_new_topic_is_as_the_broker_is_configured_unless_its_creator_says_otherwise() {
    let place = Place::new();
    place.write(
        "outbox.toml",
        "[broker]\nretention = \"7d\"\nretention_bytes = 1000000\nexpire = true\n",
    );
    let served = Served::start(&place, &[]);
    served.run(&["topic", "create", "plain"]).ended_with(0);
    let own = [
        "topic",
        "create",
        "own",
        "--set",
        "retention.ms=-1",
        "--set",
        "expire=false",
    ];
    served.run(&own).ended_with(0);
    let settings = |topic: &str| {
        let described = served.run(&["topic", "describe", topic]);
        let configs = described.ended_with(0).json()["configs"].clone();
        let configs = configs.as_array().expect("a list").clone();
        ["retention.ms", "retention.bytes", "expire"].map(|name| {
            let found = configs.iter().find(|c| c["name"] == name);
            found.expect(name)["value"].clone()
        })
    };
    assert_eq!(settings("plain"), ["604800000", "1000000", "true"]);
    assert_eq!(settings("own"), ["-1", "1000000", "false"]);
    let wrong = ["topic", "alter", "own", "--set", "expire=soon"];
    served
        .run(&wrong)
        .ended_with(7)
        .complained("expire is \\\"soon\\\", it must be true or false");
}

#[test]
fn groups_are_listed_described_put_elsewhere_and_deleted() {
    let place = Place::new();
    fill_and_commit(&place);
    let served = Served::start(&place, &[]);
    let listed = served.run(&["group", "list"]);
    assert_eq!(listed.ended_with(0).json()["groups"][0]["group"], "billing");
    let committed = |served: &Served<'_>| {
        let described = served.run(&["group", "describe", "billing"]);
        let offsets = described.ended_with(0).json()["offsets"].clone();
        let offsets = offsets.as_array().expect("a list").iter();
        let offsets = offsets.map(|o| (o["committed"].as_i64(), o["lag"].as_i64()));
        offsets.collect::<Vec<_>>()
    };
    assert_eq!(committed(&served), [(Some(2), Some(3)); 2]);

    let reset = |to: &[&str]| {
        let mut arguments = vec!["group", "reset-offsets", "billing", "--topic", TOPIC];
        arguments.extend(to);
        served.run(&arguments)
    };
    let dry = reset(&["--to-latest", "--dry-run"]);
    let dry = dry.ended_with(0).json();
    assert_eq!(
        dry["offsets"][0],
        json!({"partition": 0, "before": 2, "after": 5})
    );
    assert_eq!(
        committed(&served),
        [(Some(2), Some(3)); 2],
        "nothing was done"
    );
    reset(&["--to-offset", "4", "--partition", "1"]).ended_with(0);
    assert_eq!(committed(&served), [(Some(2), Some(3)), (Some(4), Some(1))]);
    // The fifth record of each partition came at 22:21:20 and 22:22:20.
    reset(&["--to-time", "2023-11-14T22:21:20Z"]).ended_with(0);
    assert_eq!(committed(&served), [(Some(4), Some(1)); 2]);
    reset(&["--to-earliest"]).ended_with(0);
    assert_eq!(committed(&served), [(Some(0), Some(5)); 2]);

    served.run(&["group", "delete", "billing"]).ended_with(0);
    for command in ["describe", "delete"] {
        let gone = served.run(&["group", command, "billing"]);
        gone.ended_with(8).complained("billing");
    }
}

#[test]
fn a_broker_that_is_not_there_and_a_password_that_is_missing_are_told() {
    let place = Place::new();
    let nowhere = ["topic", "list", "--broker", "127.0.0.1:1"];
    place.run(&nowhere).ended_with(5).complained("127.0.0.1:1");
    let nobody = ["group", "list", "--broker", "127.0.0.1:1", "--user", "ada"];
    place
        .run(&nobody)
        .ended_with(3)
        .complained("OUTBOX_BROKER_PASSWORD");
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_is_not() {
    let place = Place::new();
    place.write(
        "outbox.toml",
        "[[broker.user]]\nname = \"ada\"\npassword = \"right horse battery\"\n",
    );
    let served = Served::start(&place, &[]);
    let arguments = ["topic", "list", "--broker", &served.addr, "--user", "ada"];
    let with = |password| place.run_with(&[("OUTBOX_BROKER_PASSWORD", password)], &arguments);
    with("right horse battery").ended_with(0);
    let refused = with("wrong");
    refused.ended_with(7).complained("ada");
    assert!(!refused.stderr.contains("wrong horse"), "{refused:?}");
    let anonymous = place.run(&["topic", "list", "--broker", &served.addr]);
    assert_ne!(anonymous.code, Some(0), "{anonymous:?}");
}
