//! `outbox demo`: exit status 0, exactly the documented keys, and nothing left behind.

use outbox_tests::postgres::TestDb;
use serde_json::Value;

use crate::broker::Served;
use crate::harness::{Place, Ran};

const KEYS: [&str; 9] = [
    "applied",
    "applied_twice",
    "committed",
    "delivered",
    "duplicates_absorbed",
    "lost",
    "out_of_order",
    "rolled_back",
    "seconds",
];

fn assert_sound(ran: &Ran, orders: u64) {
    let Value::Object(json) = ran.ended_with(0).json() else {
        panic!("not an object: {ran:?}")
    };
    let keys: Vec<&str> = json.keys().map(String::as_str).collect();
    assert_eq!(keys, KEYS);
    let count = |key: &str| {
        json[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} is no count"))
    };
    assert_eq!(count("committed") + count("rolled_back"), orders, "{ran:?}");
    assert_eq!(count("delivered"), count("committed"), "{ran:?}");
    assert_eq!(count("applied"), count("committed"), "{ran:?}");
    for key in ["lost", "out_of_order", "applied_twice"] {
        assert_eq!(count(key), 0, "{key}: {ran:?}");
    }
    assert!(
        count("rolled_back") > 0 && count("duplicates_absorbed") > 0,
        "{ran:?}"
    );
    assert!(json["seconds"].as_f64() > Some(0.0), "{ran:?}");
}

#[test]
fn on_a_bare_machine_every_promise_holds() {
    let place = Place::new();
    let ran = place.run(&["demo", "--orders", "400", "--seed", "1", "--json"]);
    assert_sound(&ran, 400);
    let left: Vec<_> = std::fs::read_dir(place.path()).expect("a folder").collect();
    assert!(left.is_empty(), "it left something behind: {left:?}");
}

#[test]
fn a_person_reads_a_ledger() {
    let place = Place::new();
    let ran = place.run(&["demo", "--orders", "100", "--seed", "2"]);
    let text = &ran.ended_with(0).stdout;
    for line in [
        "100 order transactions on SQLite",
        "  lost                           0",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    assert!(
        text.contains("every committed order was delivered in order and billed once"),
        "{text}"
    );
}

#[tokio::test]
async fn on_postgres_every_promise_holds_and_its_schemas_are_dropped() {
    let (place, database) = (Place::new(), TestDb::new().await);
    let arguments = [
        "demo",
        "--orders",
        "400",
        "--json",
        "--store",
        database.url(),
    ];
    assert_sound(&place.run(&arguments), 400);
    let left: i64 = sqlx::query_scalar(
        "select count(*) from pg_catalog.pg_namespace where nspname like 'outbox_demo%'",
    )
    .fetch_one(database.pool())
    .await
    .expect("counted");
    assert_eq!(left, 0, "schemas of the demo");
}

#[test]
fn a_store_that_is_away_is_told() {
    let place = Place::new();
    let ran = place.run(&["demo", "--store", "postgres://app:hunter2@127.0.0.1:1/x"]);
    ran.ended_with(5);
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
}

#[test]
fn with_a_running_broker_every_promise_holds_and_its_topic_is_deleted() {
    let (place, brokers) = (Place::new(), Place::new());
    let served = Served::start(&brokers, &[]);
    let url = format!("log://{}", served.addr);
    let arguments = [
        "demo", "--orders", "200", "--seed", "1", "--json", "--broker", &url,
    ];
    assert_sound(&place.run(&arguments), 200);
    let topics = served.run(&["topic", "list"]);
    assert_eq!(
        topics.ended_with(0).json(),
        serde_json::json!({"topics": []})
    );
}

#[test]
fn a_broker_that_is_not_there_or_not_known_is_told() {
    let place = Place::new();
    let arguments = |url| ["demo", "--orders", "10", "--broker", url];
    place
        .run(&arguments("log://127.0.0.1:1"))
        .ended_with(5)
        .complained("127.0.0.1:1");
    place
        .run(&arguments("kafka://127.0.0.1:1"))
        .ended_with(3)
        .complained("no broker of this kind is known");
}
