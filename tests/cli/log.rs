//! `outbox log …` on the folder of a log.

use std::sync::Arc;

use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{Append, Log, LogOptions, Slice, TopicOptions};

use crate::harness::Place;

/// A log of ten records, in the folder that the commands look into by default.
pub fn fill(place: &Place) -> Arc<Log> {
    let log = Log::open(LogOptions::new(place.path().join("outbox-data/log"))).expect("opens");
    let options = TopicOptions {
        partitions: 2,
        ..TopicOptions::default()
    };
    let created = in_runtime(log.create_topic("orders.placed", options));
    created.expect("created");
    for n in 0..10 {
        let (mut own, none) = (HeaderBlock::default(), HeaderBlock::default());
        own.push("ce_id", format!("id-{n}").as_bytes());
        let mut append = Append::default();
        let mut encoder = BatchEncoder::begin(&mut append.buffer);
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000 + n * 60_000,
            key: Some(format!("customer-{}", n % 3).as_bytes()),
            value: Some(format!("order {n}").as_bytes()),
            shared: &none,
            own: &own,
        });
        let bytes = encoder.finish().bytes;
        append.slices.push(Slice {
            topic: "orders.placed".into(),
            partition: (n % 2) as u32,
            bytes,
        });
        in_runtime(log.append(append)).expect("appended");
    }
    log
}

/// Runs a future to its end; the log's own threads do the work.
pub fn in_runtime<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn tail_shows_the_last_records_while_the_log_is_open() {
    let place = Place::new();
    let log = fill(&place);
    let ran = place.run(&[
        "log",
        "tail",
        "--topic",
        "orders.placed",
        "-n",
        "3",
        "--json",
    ]);
    let document = ran.ended_with(0).json();
    let records = document["records"].as_array().expect("records");
    let values: Vec<_> = records.iter().map(|r| r["value"].as_str()).collect();
    assert_eq!(values, [Some("order 7"), Some("order 8"), Some("order 9")]);
    assert_eq!(records[2]["partition"], 1);
    assert_eq!(records[2]["offset"], 4);
    assert_eq!(records[2]["timestamp"], "2023-11-14T22:22:20.000Z");
    assert_eq!(records[2]["headers"][0][1], "id-9");
    let arguments = [
        "log",
        "tail",
        "--topic",
        "orders.placed",
        "--partition",
        "0",
    ];
    let text = place.run(&arguments).ended_with(0).stdout.clone();
    assert!(text.contains("orders.placed-0 offset 4"), "{text}");
    assert!(text.contains("value: order 8"), "{text}");
    let none = place.run(&["log", "tail", "--topic", "nothing"]);
    none.ended_with(8).complained("none of that name");
    let beyond = [
        "log",
        "tail",
        "--topic",
        "orders.placed",
        "--partition",
        "2",
    ];
    place.run(&beyond).ended_with(8).complained("it has 2");
    drop(log);
}

#[test]
fn find_looks_for_an_id_or_a_key() {
    let place = Place::new();
    drop(fill(&place));
    let by_id = place.run(&["log", "find", "--id", "id-4", "--json"]);
    let document = by_id.ended_with(0).json();
    assert_eq!(document["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["records"][0]["value"], "order 4");
    assert_eq!(document["scanned"], 10);
    let by_key = place.run(&["log", "find", "--key", "customer-1", "--json"]);
    let document = by_key.ended_with(0).json();
    assert_eq!(document["records"].as_array().map(Vec::len), Some(3));
    let since = "2023-11-14T22:18:00Z";
    let late = [
        "log",
        "find",
        "--key",
        "customer-1",
        "--since",
        since,
        "--json",
    ];
    let document = place.run(&late).ended_with(0).json();
    assert_eq!(document["records"][0]["value"], "order 7");
    let none = place.run(&["log", "find", "--id", "id-10"]);
    none.ended_with(8).complained("none of 10 records");
    place.run(&["log", "find"]).ended_with(2);
}

#[test]
fn verify_tells_whether_the_folder_is_whole() {
    let place = Place::new();
    let log = fill(&place);
    let open = place.run(&["log", "verify"]);
    open.ended_with(7).complained("it is open already");
    drop(log);
    let document = place.run(&["log", "verify", "--json"]).ended_with(0).json();
    assert_eq!(document["records"], 10);
    assert_eq!(document["damage"].as_array().map(Vec::len), Some(0));
    let topics = place.path().join("outbox-data/log/topics");
    let topic = std::fs::read_dir(topics).expect("there").next();
    let topic = topic.expect("one").expect("readable").path();
    let segment = topic.join("1/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("readable");
    bytes[70] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let ran = place.run(&["log", "verify", "--json"]);
    let document = ran.ended_with(1).json();
    let path = document["damage"][0]["path"].as_str().expect("a path");
    assert!(path.ends_with("1/00000000000000000000.log"), "{path}");
    assert_eq!(document["damage"][0]["byte"], 0);
    let text = place.run(&["log", "verify"]).ended_with(1).stdout.clone();
    assert!(text.contains("DAMAGED") && text.contains("cure"), "{text}");
    let nowhere = place.run(&["log", "verify", "--dir", "nowhere"]);
    nowhere.ended_with(8).complained("nowhere");
}
