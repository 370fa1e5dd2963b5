//! `outbox relay`: the daemon, on a bare machine.

use serde_json::Value;

use crate::harness::{Place, wait_for};

fn destination(place: &Place) -> Option<Value> {
    let status = place.run(&["status", "--json"]);
    (status.code == Some(0)).then(|| status.json()["destinations"][0].clone())
}

fn delivered(place: &Place, count: i64) -> bool {
    destination(place).is_some_and(|d| d["pending"] == 0 && d["cursor"].as_i64() >= Some(count))
}

#[test]
fn without_any_configuration_it_delivers_to_the_log_in_its_own_folder() {
    let place = Place::new();
    let relay = place.start(&["relay", "--json"]);
    let events: String = (0..50).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let file = place.write("events.ndjson", events);
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
    wait_for("the cursor to pass 50", || {
        delivered(&place, 50).then_some(())
    });
    let led = destination(&place).expect("a destination");
    assert_eq!(led["name"], "log");
    assert_eq!(led["patterns"], serde_json::json!(["*"]));
    assert!(led["owner"].is_string(), "{led}");
    assert!(place.path().join("outbox-data/log").is_dir());
    let ran = relay.terminate();
    assert_eq!(
        ran.ended_with(0).json()["destinations"],
        serde_json::json!(["log"])
    );
    assert!(
        destination(&place).expect("a destination")["owner"].is_null(),
        "handed over"
    );
}

#[test]
fn killed_and_started_again_it_goes_on() {
    let place = Place::new();
    let file = place.write("events.ndjson", "{\"id\":1}\n{\"id\":2}\n");
    let arguments = ["relay", "--lease-ttl", "300ms"];
    let first = place.start(&arguments);
    place
        .run(&["send", "--file", &file, "--topic", "events"])
        .ended_with(0);
    wait_for("the first two", || delivered(&place, 2).then_some(()));
    first.kill();
    place.write("events.ndjson", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
    place
        .run(&["send", "--file", &file, "--topic", "events"])
        .ended_with(0);
    let second = place.start(&arguments);
    wait_for("the third", || delivered(&place, 3).then_some(()));
    second.terminate().ended_with(0);
}

#[test]
fn a_log_that_another_process_has_open_is_told() {
    let place = Place::new();
    let first = place.start(&["relay"]);
    wait_for("the first relay to lead", || {
        destination(&place).filter(|d| d["owner"].is_string())
    });
    let second = place.run(&["relay"]);
    second
        .ended_with(5)
        .complained("the broker of destination \"log\"");
    first.terminate().ended_with(0);
}

#[test]
fn a_message_that_no_destination_covers_is_shown() {
    let place = Place::new();
    place.write(
        "outbox.toml",
        "[[destination]]\nname = \"orders\"\ntopics = [\"orders.*\"]\nbroker = \"log:./log\"\n",
    );
    let file = place.write("events.ndjson", "{\"id\":1}\n");
    place
        .run(&["send", "--file", &file, "--topic", "ordres.placed"])
        .ended_with(0);
    let relay = place.start(&["relay"]);
    wait_for("the relay to pass it", || {
        delivered(&place, 1).then_some(())
    });
    let unrouted = wait_for("the count of unrouted", || {
        let status = place.run(&["status", "--json"]).json();
        status["unrouted"].get(0).cloned()
    });
    assert_eq!(unrouted["topic"], "ordres.placed");
    assert_eq!(unrouted["count"], 1);
    let text = place.run(&["status"]).stdout;
    assert!(
        text.contains("UNROUTED: 1 messages of topic \"ordres.placed\""),
        "{text}"
    );
    relay.terminate().ended_with(0);
}

#[test]
fn an_address_that_is_reachable_from_outside_is_refused_unless_allowed() {
    let place = Place::new();
    let ran = place.run(&["relay", "--listen", "0.0.0.0:0"]);
    ran.ended_with(3).complained("no authentication");
}

#[test]
fn a_broker_that_nobody_knows_is_a_mistake_in_the_configuration() {
    let place = Place::new();
    place.write(
        "outbox.toml",
        "[[destination]]\nname = \"a\"\ntopics = [\"*\"]\nbroker = \"carrier-pigeon://u:pw@loft\"\n",
    );
    let ran = place.run(&["relay"]);
    ran.ended_with(3)
        .complained("the broker of destination \"a\"");
    assert!(!ran.stderr.contains(":pw@"), "{ran:?}");
}
