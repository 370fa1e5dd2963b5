//! `outbox send`: whole lines or nothing, and on from where it stopped.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Place, Ran, wait_for};

const INPUT: i32 = 4;

/// A slice of real events, shipped with the tests.
fn flights() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/flights.ndjson");
    path.to_str().expect("a path").to_owned()
}

fn send(place: &Place, file: &str) -> Ran {
    place.run(&[
        "send",
        "--file",
        file,
        "--topic",
        "events",
        "--key-field",
        "id",
        "--json",
    ])
}

fn taken(place: &Place) -> i64 {
    let status = place.run(&["status", "--json"]);
    status.ended_with(0).json()["last_seq"]
        .as_i64()
        .expect("a seq")
}

fn events(range: std::ops::Range<u32>) -> String {
    range
        .map(|id| format!("{{\"id\":{id},\"text\":\"ä\"}}\n"))
        .collect()
}

#[test]
fn real_events_get_their_topic_and_key_from_their_fields() {
    let place = Place::new();
    let ran = place.run(&[
        "send",
        "--file",
        &flights(),
        "--topic-field",
        "origin",
        "--topic-prefix",
        "flights.",
        "--topic-lowercase",
        "--key-field",
        "tailnum",
        "--key-none",
        "NA",
        "--json",
    ]);
    let json = ran.ended_with(0).json();
    assert_eq!(json["enqueued"], 3_000);
    assert_eq!(json["resumed_at_byte"], 0);
    assert_eq!(json["interrupted"], false);
    let topics = read(
        &place,
        "select topic || '=' || count(*) from outbox_message group by topic",
    );
    let names: Vec<&str> = topics.iter().filter_map(|t| t.split('=').next()).collect();
    assert_eq!(names, ["flights.ewr", "flights.jfk", "flights.lga"]);
    let first = read(
        &place,
        "select cast(payload as text) from outbox_message order by seq limit 1",
    );
    let lines = std::fs::read_to_string(flights()).expect("the events");
    assert_eq!(
        Some(first[0].as_str()),
        lines.lines().next(),
        "the payload is the line"
    );
}

/// The first column of each row.
fn read(place: &Place, sql: &'static str) -> Vec<String> {
    let file = place.path().join("outbox-data/outbox.db");
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            let pool = outbox_sqlite::pool(file).await.expect("opened");
            let rows = sqlx::query_scalar(sql)
                .fetch_all(&pool)
                .await
                .expect("read");
            pool.close().await;
            rows
        })
}

#[test]
fn a_torn_last_line_is_named_and_all_before_it_are_enqueued() {
    let place = Place::new();
    let file = place.write("torn.ndjson", format!("{}{{\"id\":4", events(1..4)));
    send(&place, &file)
        .ended_with(INPUT)
        .complained("torn.ndjson: line 4: the input ends in the middle of this line")
        .complained("3 messages by this run");
    assert_eq!(taken(&place), 3);
    // Mended behind that point, the same command goes on there.
    place.write("torn.ndjson", events(1..6));
    let json = send(&place, &file).ended_with(0).json();
    assert_eq!(json["enqueued"], 2);
    assert_eq!(taken(&place), 5);
}

#[test]
fn an_invalid_line_in_the_middle_is_named_and_nothing_behind_it_is_enqueued() {
    for (line, complaint) in [
        (&b"{\"id\":2\n"[..], "line 2: column 7: not valid JSON"),
        (
            b"{\"id\":2,\"text\":\"\xff\"}\n",
            "line 2: byte 17: invalid UTF-8",
        ),
        (b"[2]\n", "line 2: expected a JSON object, found an array"),
        (b"{\"text\":\"x\"}\n", "line 2: key field "),
    ] {
        let place = Place::new();
        let mut content = events(1..2).into_bytes();
        content.extend(line);
        content.extend(events(3..9).into_bytes());
        let file = place.write("events.ndjson", content);
        send(&place, &file).ended_with(INPUT).complained(complaint);
        assert_eq!(taken(&place), 1, "only the line before it: {complaint}");
    }
}

#[test]
fn a_field_over_its_limit_is_named_with_line_size_and_limit() {
    let place = Place::new();
    let long = "k".repeat(513);
    let file = place.write(
        "key.ndjson",
        format!("{}{{\"id\":\"{long}\"}}\n", events(1..3)),
    );
    send(&place, &file)
        .ended_with(INPUT)
        .complained("line 3: key is 513 bytes long, the limit is 512");
    let large = format!("{{\"id\":1,\"text\":\"{}\"}}\n", "x".repeat(1 << 20));
    let file = place.write("payload.ndjson", large);
    send(&place, &file)
        .ended_with(INPUT)
        .complained("line 1: ")
        .complained("1048576");
    let file = place.write("topic.ndjson", events(1..2));
    let topic = "t".repeat(250);
    place
        .run(&["send", "--file", &file, "--topic", &topic])
        .ended_with(INPUT)
        .complained("topic is 250 bytes long, the limit is 249");
    assert_eq!(taken(&place), 2, "the two lines before the long key");
}

#[test]
fn the_line_number_counts_from_the_files_beginning_after_a_resume() {
    let place = Place::new();
    let file = place.write("events.ndjson", events(1..4));
    send(&place, &file).ended_with(0);
    place.write("events.ndjson", format!("{}oops\n", events(1..6)));
    send(&place, &file)
        .ended_with(INPUT)
        .complained("line 6: column 1: not valid JSON");
    assert_eq!(taken(&place), 5);
}

#[test]
fn repeated_it_goes_on_where_it_stopped() {
    let place = Place::new();
    let file = place.write("events.ndjson", events(0..2_500));
    assert_eq!(send(&place, &file).ended_with(0).json()["enqueued"], 2_500);
    let again = send(&place, &file).ended_with(0).json();
    assert_eq!(again["enqueued"], 0);
    assert_eq!(again["resumed_at_byte"], again["position"]);
    place.write("events.ndjson", events(0..2_600));
    assert_eq!(send(&place, &file).ended_with(0).json()["enqueued"], 100);
    assert_eq!(taken(&place), 2_600);
}

#[test]
fn killed_in_the_middle_it_goes_on_without_loss_or_repeat() {
    const LINES: u32 = 60_000;
    let place = Place::new();
    let file = place.write("events.ndjson", events(0..LINES));
    // The store is there before, so that looking at it does not race with making it.
    place.run(&["migrate"]).ended_with(0);
    let mut killed_in_the_middle = 0;
    for kill in 1..=3 {
        let before = taken(&place);
        let arguments = [
            "send",
            "--file",
            &file,
            "--topic",
            "events",
            "--key-field",
            "id",
        ];
        let mut running = place.start(&arguments);
        wait_for("the next batch", || {
            (taken(&place) > before || !running.is_running()).then_some(())
        });
        running.kill();
        let now = taken(&place);
        assert!(
            now % 1_000 == 0 || now == i64::from(LINES),
            "kill {kill}: half a batch: {now}"
        );
        killed_in_the_middle += u32::from(now < i64::from(LINES));
    }
    assert!(
        killed_in_the_middle > 0,
        "every kill came too late to mean anything"
    );
    let json = send(&place, &file).ended_with(0).json();
    assert!(json["resumed_at_byte"].as_u64() > Some(0), "{json}");
    assert_eq!(taken(&place), i64::from(LINES));
    let order = "select count(*) || '' from outbox_message where cast(key as integer) <> seq - 1";
    assert_eq!(read(&place, order), ["0"], "each line once, in its order");
}

#[test]
fn another_file_under_the_same_path_is_not_skipped() {
    let place = Place::new();
    let file = place.write("events.ndjson", events(0..100));
    send(&place, &file).ended_with(0);
    // Another first line: another file, from its beginning.
    place.write("events.ndjson", events(1..100));
    assert_eq!(send(&place, &file).ended_with(0).json()["enqueued"], 99);
    // The same first line and other ones later: refused.
    let changed = format!("{}{}", events(0..1), events(500..700));
    place.write("events.ndjson", changed);
    send(&place, &file)
        .ended_with(INPUT)
        .complained("is not the same")
        .complained("a new name");
    assert_eq!(taken(&place), 199);
}

#[test]
fn standard_input_is_read_with_a_dash() {
    let place = Place::new();
    let mut command = place.command(&["send", "--file", "-", "--topic", "events", "--json"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(events(0..10).as_bytes()).expect("written");
    drop(stdin);
    let ran: Ran = child.wait_with_output().expect("output").into();
    assert_eq!(ran.ended_with(0).json()["enqueued"], 10);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::new();
    send(&place, "no-such.ndjson")
        .ended_with(INPUT)
        .complained("no-such.ndjson");
}

#[test]
fn the_json_has_the_documented_keys() {
    let place = Place::new();
    let file = place.write("events.ndjson", events(0..1));
    let json = send(&place, &file).ended_with(0).json();
    let Value::Object(fields) = json else {
        panic!("not an object")
    };
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "enqueued",
            "file",
            "interrupted",
            "position",
            "resumed_at_byte",
            "seconds"
        ]
    );
}
