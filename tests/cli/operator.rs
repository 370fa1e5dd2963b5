//! The operator's commands: their JSON, and how they end.

use crate::harness::Place;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 8;
const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

fn migrated() -> Place {
    let place = Place::new();
    place.run(&["migrate"]).ended_with(0);
    place
}

#[test]
fn each_command_prints_one_json_document() {
    let place = migrated();
    let json = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.push("--json");
        let ran = place.run(&all);
        assert_eq!(ran.ended_with(0).stderr, "", "{arguments:?}");
        ran.json()
    };
    assert!(json(&["migrate"])["schema_version"].is_i64());
    let status = json(&["status"]);
    assert_eq!(status["last_seq"], 0);
    assert!(status["destinations"].is_array() && status["unrouted"].is_array());
    let doctor = json(&["doctor"]);
    assert_eq!(doctor["severity"], "ok", "{doctor}");
    assert!(doctor["findings"].is_array());
    let list = json(&["dead", "list"]);
    assert_eq!(list, serde_json::json!({"exceptions": [], "next": null}));
    assert!(json(&["adopt"])["adopted"].is_array());
    assert!(json(&["config", "check"])["settings"].is_object());
}

#[test]
fn what_does_not_exist_is_named() {
    let place = migrated();
    place
        .run(&["dead", "show", UNKNOWN])
        .ended_with(NOT_FOUND)
        .complained(UNKNOWN);
    for arguments in [
        &["resend", "-d", "nowhere", UNKNOWN][..],
        &["dead", "resend", "-d", "nowhere", UNKNOWN],
        &["dead", "discard", "-d", "nowhere", "--all"],
        &["dead", "unblock", "-d", "nowhere", UNKNOWN],
    ] {
        place
            .run(arguments)
            .ended_with(NOT_FOUND)
            .complained("nowhere");
    }
}

#[test]
fn a_message_is_shown_whole() {
    let place = Place::new();
    let file = place.write("events.ndjson", "{\"id\":7,\"text\":\"ä\"}\n");
    place
        .run(&[
            "send",
            "--file",
            &file,
            "--topic",
            "events",
            "--key-field",
            "id",
        ])
        .ended_with(0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let id = runtime.block_on(async {
        let path = place.path().join("outbox-data/outbox.db");
        let pool = outbox_sqlite::pool(path).await.expect("opened");
        let id: uuid::Uuid = sqlx::query_scalar("select id from outbox_message")
            .fetch_one(&pool)
            .await
            .expect("an id");
        pool.close().await;
        id.to_string()
    });
    let json = place
        .run(&["dead", "show", &id, "--json"])
        .ended_with(0)
        .json();
    assert_eq!(json["id"], id);
    assert_eq!(json["topic"], "events");
    assert_eq!(json["key"], "7");
    assert_eq!(json["payload"], serde_json::json!({"id": 7, "text": "ä"}));
    let text = place
        .run(&["dead", "show", &id])
        .ended_with(0)
        .stdout
        .clone();
    assert!(text.contains("topic         events"), "{text}");
}

#[test]
fn a_wrong_command_line_is_usage() {
    let place = Place::new();
    for arguments in [
        &["statuss"][..],
        &["send", "--file", "x"],
        &["dead", "resend", "-d", "log"],
        &["dead", "show", "not-an-id"],
        &["demo", "--orders", "0"],
        &["resend", "-d", "log", "--since", "yesterday"],
    ] {
        place.run(arguments).ended_with(USAGE).complained("error: ");
    }
    let ran = place.run(&["statuss", "--json"]);
    let error: serde_json::Value =
        serde_json::from_str(&ran.ended_with(USAGE).stderr).expect("JSON on stderr");
    assert_eq!(error["kind"], "usage");
    place.run(&["--help"]).ended_with(0);
    let version = place.run(&["--version"]).ended_with(0).stdout.clone();
    assert_eq!(
        version.trim(),
        concat!("outbox ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn without_a_terminal_there_is_no_progress_bar() {
    let place = Place::new();
    let file = place.write("events.ndjson", "{\"id\":7}\n");
    let ran = place.run(&["send", "--file", &file, "--topic", "events"]);
    assert_eq!(ran.ended_with(0).stderr, "");
}
