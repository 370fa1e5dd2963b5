//! Whatever is wrong with the configuration: named with its place, and nothing is done.

use crate::harness::Place;

const CONFIG: i32 = 3;

fn check(file: &str) -> crate::harness::Ran {
    let place = Place::new();
    place.write("outbox.toml", file);
    let ran = place.run(&["relay"]);
    assert!(
        !place.path().join("outbox-data").exists(),
        "something was done: {ran:?}"
    );
    ran
}

#[test]
fn an_unknown_key_is_named_with_line_and_column() {
    check("[store]\nurl = \"sqlite:a.db\"\nurll = \"postgres://app:hunter2@db/x\"\n")
        .ended_with(CONFIG)
        .complained(
            "outbox: failed to read the configuration: outbox.toml:3:1: unknown field `urll`",
        );
}

#[test]
fn a_line_with_a_password_is_never_quoted() {
    let ran = check("[store]\nurl = \"postgres://app:hunter2@db/x\" junk\n");
    ran.ended_with(CONFIG).complained("outbox.toml:2:");
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
}

#[test]
fn a_wrong_type_is_named_with_line_and_column() {
    check("[relay]\npage_rows = \"many\"\n")
        .ended_with(CONFIG)
        .complained("outbox.toml:2:13: relay.page_rows: ");
    check("destination = 3\n")
        .ended_with(CONFIG)
        .complained("outbox.toml:1:15: destination: ");
}

#[test]
fn a_value_out_of_bounds_is_named_with_the_bounds() {
    check("[relay]\npage_rows = 0\n")
        .ended_with(CONFIG)
        .complained("outbox.toml:2:13: page_rows is 0, allowed are 1 to 65536");
    check("[relay]\nlease_ttl = \"10\"\n")
        .ended_with(CONFIG)
        .complained("outbox.toml:2:13: relay.lease_ttl: \"10\" is not a length of time");
    check("[maintenance]\nschedule = \"* * * *\"\n")
        .ended_with(CONFIG)
        .complained("4 fields, not 5");
    check("[alerts]\nwebhook = \"ftp://x\"\n")
        .ended_with(CONFIG)
        .complained("alerts.webhook");
}

#[test]
fn a_value_of_the_broker_out_of_bounds_is_named_with_the_bounds() {
    for (line, complaint) in [
        (
            "partitions = 0",
            "2:14: partitions is 0, allowed are 1 to 10000",
        ),
        (
            "retention = \"1ms\"",
            "2:13: retention is 1ms, allowed are 1s to 315360000s",
        ),
        (
            "retention_bytes = 0",
            "2:19: retention_bytes is 0, allowed are 1 to ",
        ),
        (
            "expire = \"soon\"",
            "2:10: broker.expire: invalid type: string",
        ),
        (
            "connections_max = 0",
            "2:19: connections_max is 0, allowed are 1 to 1000000",
        ),
        (
            "request_bytes_max = 1",
            "2:21: request_bytes_max is 1, allowed are 65536 to 2147483647",
        ),
        (
            "transaction_timeout_max = \"25d\"",
            "2:27: transaction_timeout_max is 2160000s, allowed are 1s to 2073600s",
        ),
        (
            "transactional_id_expiry = \"0s\"",
            "2:27: transactional_id_expiry is 0ns, allowed are 1s to 315360000s",
        ),
        (
            "producer_expiry = \"1\"",
            "2:19: broker.producer_expiry: \"1\" is not a length of time",
        ),
    ] {
        check(&format!("[broker]\n{line}\n"))
            .ended_with(CONFIG)
            .complained(&format!("outbox.toml:{complaint}"));
    }
    let place = Place::new();
    let variable = [("OUTBOX_BROKER_PRODUCER_EXPIRY", "5ms")];
    place
        .run_with(&variable, &["broker"])
        .ended_with(CONFIG)
        .complained("OUTBOX_BROKER_PRODUCER_EXPIRY: producer_expiry is 5ms, allowed are 1s to");
    place
        .run(&["broker", "--retention", "0s"])
        .ended_with(CONFIG)
        .complained("--retention: retention is 0ns");
}

#[test]
fn two_destinations_of_one_name_are_refused_at_the_second() {
    let one = "[[destination]]\nname = \"a\"\ntopics = [\"*\"]\nbroker = \"log:./log\"\n";
    check(&format!("{one}{one}"))
        .ended_with(CONFIG)
        .complained("outbox.toml:6:8: a second destination is named \"a\"");
}

#[test]
fn a_file_that_is_named_but_not_there_is_an_error() {
    let place = Place::new();
    let ran = place.run(&["status", "--config", "no-such.toml"]);
    ran.ended_with(CONFIG).complained("no-such.toml");
    let ran = place.run_with(&[("OUTBOX_CONFIG", "other.toml")], &["status"]);
    ran.ended_with(CONFIG).complained("other.toml");
}

#[test]
fn a_file_that_is_not_utf_8_is_named_with_the_byte() {
    let place = Place::new();
    place.write("outbox.toml", b"[store]\n# \xff\n");
    place
        .run(&["status"])
        .ended_with(CONFIG)
        .complained("outbox.toml is not UTF-8 at byte 10");
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    let place = Place::new();
    let ran = place.run_with(&[("OUTBOX_RELAY_LISTEN", "9187")], &["relay"]);
    ran.ended_with(CONFIG)
        .complained("OUTBOX_RELAY_LISTEN: \"9187\" is not an address");
    let ran = place.run(&["relay", "--lease-ttl", "1ms"]);
    ran.ended_with(CONFIG)
        .complained("--lease-ttl: lease_ttl is 1ms, allowed are 200ms to 600s");
    let ran = place.run(&["status", "--store", "mysql://app:hunter2@db/x"]);
    ran.ended_with(CONFIG)
        .complained("no store is called \"mysql\"");
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
}

#[test]
fn an_address_of_a_store_that_cannot_be_read_is_told_without_its_password() {
    let place = Place::new();
    for url in ["postgres://foo@", "postgres://app:hunter2@:5432/shop"] {
        let ran = place.run(&["status", "--store", url]);
        ran.ended_with(CONFIG)
            .complained("failed to read the configuration: store.url: ")
            .complained("is no address: ");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn an_unknown_variable_is_warned_about() {
    let place = Place::new();
    let ran = place.run_with(&[("OUTBOX_STOER_URL", "x")], &["config", "check"]);
    ran.ended_with(0).complained("OUTBOX_STOER_URL");
}

#[test]
fn a_secret_that_is_not_there_is_named_by_its_place() {
    check("[store]\nurl = { env = \"NO_SUCH_VARIABLE\" }\n")
        .ended_with(CONFIG)
        .complained("the variable NO_SUCH_VARIABLE is not set");
    check("[store]\nurl = { file = \"no-such-secret\" }\n")
        .ended_with(CONFIG)
        .complained("no-such-secret");
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let place = Place::new();
    place.write(
        "outbox.toml",
        "[store]\nschema = \"from_file\"\n[relay]\nname = \"from-file\"\n",
    );
    let value = |variables: &[(&str, &str)], arguments: &[&str], key: &str| {
        let mut all = vec!["config", "check", "--json"];
        all.extend(arguments);
        let json = place.run_with(variables, &all).ended_with(0).json();
        json["settings"][key]["value"].as_str().map(str::to_owned)
    };
    let variable = [("OUTBOX_STORE_SCHEMA", "from_variable")];
    let flag = ["--schema", "from_flag"];
    assert_eq!(
        value(&variable, &flag, "store.schema").as_deref(),
        Some("from_flag")
    );
    assert_eq!(
        value(&variable, &[], "store.schema").as_deref(),
        Some("from_variable")
    );
    assert_eq!(
        value(&[], &[], "store.schema").as_deref(),
        Some("from_file")
    );
    assert_eq!(
        value(&[], &[], "store.url").as_deref(),
        Some("sqlite:./outbox-data/outbox.db"),
        "the default"
    );
}

#[test]
fn config_check_says_where_each_value_comes_from() {
    let place = Place::new();
    place.write("outbox.toml", "[relay]\nname = \"a\"\npage_rows = 7\n");
    let variables = [("OUTBOX_RELAY_NAME", "b")];
    let ran = place.run_with(
        &variables,
        &["config", "check", "--json", "--schema", "other"],
    );
    let json = ran.ended_with(0).json();
    let origin = |key: &str| json["settings"][key]["origin"].as_str().map(str::to_owned);
    assert_eq!(origin("relay.page_rows").as_deref(), Some("outbox.toml"));
    assert_eq!(origin("relay.name").as_deref(), Some("OUTBOX_RELAY_NAME"));
    assert_eq!(origin("store.schema").as_deref(), Some("--schema"));
    assert_eq!(origin("store.url").as_deref(), Some("default"));
}

#[test]
fn config_check_prints_everything_but_secrets() {
    let place = Place::new();
    place.write("url", "postgres://app:hunter2@db/shop\n");
    place.write(
        "outbox.toml",
        "[store]\nurl = { file = \"url\" }\n[alerts]\nwebhook = { env = \"HOOK\" }\n\
         [[destination]]\nname = \"orders\"\ntopics = [\"orders.*\"]\nbroker = \"log:./log\"\n\
         retry = { initial = \"2s\", max_attempts = 0 }\n",
    );
    let variables = [("HOOK", "https://hooks.example/T0/SECRET")];
    let ran = place.run_with(&variables, &["config", "check", "--json"]);
    let json = ran.ended_with(0).json();
    assert_eq!(json["file"], "outbox.toml");
    assert_eq!(
        json["settings"]["store.url"]["value"],
        "postgres://app:***@db/shop"
    );
    assert_eq!(json["settings"]["alerts.webhook"]["value"], "(set)");
    assert_eq!(json["destinations"][0]["name"], "orders");
    assert_eq!(json["destinations"][0]["retry"]["initial"]["secs"], 2);
    assert!(json["destinations"][0]["retry"]["max_attempts"].is_null());
    let text = place.run_with(&variables, &["config", "check"]);
    for ran in [&ran, text.ended_with(0)] {
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
        assert!(!format!("{ran:?}").contains("SECRET"), "{ran:?}");
    }
}
