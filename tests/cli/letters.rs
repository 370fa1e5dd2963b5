//! `outbox dead letters` and `outbox dead letter`: what a consumer gave up.

use outbox_core::{Inbox, Record, TopicPartition};
use outbox_postgres::PostgresInbox;
use outbox_sqlite::SqliteInbox;
use outbox_tests::postgres::TestDb;
use serde_json::json;
use uuid::Uuid;

use crate::harness::Place;

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

fn record(id: Uuid, offset: i64, payload: &'static [u8]) -> Record {
    Record {
        partition: TopicPartition {
            topic: "orders.placed".into(),
            partition: 3,
        },
        offset,
        id: Some(id),
        key: Some("ada".into()),
        payload: payload.into(),
        content_type: Some("application/json".to_owned()),
        headers: [("trace".to_owned(), "t-1".to_owned())].into(),
        timestamp: chrono::Utc::now(),
    }
}

/// Two records given up by `billing` and one by `mailing`; the second one of `billing` was applied
/// since.
async fn fill<I: Inbox>(inbox: &I) {
    let letters = [
        ("billing", record(FIRST, 7, br#"{"cents":5}"#)),
        ("billing", record(SECOND, 8, b"\xff\x00")),
        ("mailing", record(FIRST, 7, b"plain")),
    ];
    for (consumer, record) in &letters {
        let mut tx = inbox.begin().await.expect("begun");
        let kept = inbox.dead_letter(&mut tx, consumer, record, 12, "no such account");
        kept.await.expect("kept");
        inbox.commit(tx).await.expect("committed");
    }
    let mut tx = inbox.begin().await.expect("begun");
    let accepted = inbox.accept(&mut tx, "billing", SECOND).await;
    assert!(accepted.expect("accepted"));
    inbox.commit(tx).await.expect("committed");
}

/// Puts one back into a log, where it stands as it came.
fn check_redriven(place: &Place, store: &str) {
    let redrive = |ids: &[&str]| {
        let mut arguments = vec!["dead", "redrive", "--store", store, "--broker", "log:./log"];
        arguments.extend(ids);
        place.run(&[&arguments[..], &["--json"]].concat())
    };
    let list = || {
        let list = ["dead", "letters", "--all", "--store", store, "--json"];
        place.run(&list).ended_with(0).json()["letters"].clone()
    };
    let before = list();
    let ids: Vec<String> = before
        .as_array()
        .expect("a list")
        .iter()
        .map(|letter| letter["id"].to_string())
        .collect();
    // One that is not there: nothing is done.
    redrive(&[&ids[0], "99"])
        .ended_with(8)
        .complained("dead letter 99");
    assert_eq!(list(), before);
    let put = redrive(&[&ids[0], &ids[1]]).ended_with(0).json();
    assert_eq!(put["redriven"][0]["topic"], json!("orders.placed"));
    assert_eq!(put["redriven"][1]["message_id"], json!(SECOND));
    assert_eq!(list(), json!([before[2]]), "two are forgotten");
    let found = place.run(&[
        "log",
        "find",
        "--id",
        &FIRST.to_string(),
        "--dir",
        "log",
        "--json",
    ]);
    let found = found.ended_with(0).json();
    let record = &found["records"][0];
    assert_eq!(record["key"], json!("ada"), "{found}");
    assert_eq!(record["value"], json!("{\"cents\":5}"));
    let headers = record["headers"].to_string();
    assert!(
        headers.contains("t-1") && headers.contains("application/json"),
        "{headers}"
    );
}

/// The same of every inbox.
fn check(place: &Place, store: &str) {
    let list = |more: &[&str]| {
        let mut arguments = vec!["dead", "letters", "--store", store, "--json"];
        arguments.extend(more);
        place.run(&arguments).ended_with(0).json()
    };
    let letters = list(&[]);
    let who = |list: &serde_json::Value| {
        let letters = list["letters"].as_array().expect("a list").iter();
        let who = letters.map(|l| (l["consumer"].clone(), l["offset"].clone()));
        who.collect::<Vec<_>>()
    };
    let (billing, mailing) = (json!("billing"), json!("mailing"));
    assert_eq!(
        who(&letters),
        [(billing.clone(), json!(7)), (mailing.clone(), json!(7))]
    );
    let first = &letters["letters"][0];
    assert_eq!(first["message_id"], json!(FIRST));
    assert_eq!(
        (&first["attempts"], &first["error"]),
        (&json!(12), &json!("no such account"))
    );
    assert_eq!(
        (&first["topic"], &first["partition"]),
        (&json!("orders.placed"), &json!(3))
    );
    assert_eq!(letters["next"], json!(null));
    assert_eq!(
        who(&list(&["--consumer", "mailing"])),
        [(mailing, json!(7))]
    );
    let all = list(&["--all", "--limit", "2"]);
    assert_eq!(
        who(&all),
        [(billing.clone(), json!(7)), (billing, json!(8))]
    );
    let next = all["next"].to_string();
    assert_eq!(who(&list(&["--all", "--after", &next])).len(), 1);

    let id = first["id"].to_string();
    let shown = place.run(&["dead", "letter", &id, "--store", store, "--json"]);
    let shown = shown.ended_with(0).json();
    assert_eq!(
        (&shown["payload"], &shown["key"]),
        (&json!({"cents": 5}), &json!("ada"))
    );
    assert_eq!(shown["headers"], json!({"trace": "t-1"}));
    let bytes = place.run(&["dead", "letter", &next, "--store", store]);
    assert!(bytes.ended_with(0).stdout.contains("ff00"), "{bytes:?}");
    place
        .run(&["dead", "letter", "99", "--store", store])
        .ended_with(8)
        .complained("dead letter 99");
    check_redriven(place, store);
}

#[tokio::test]
async fn in_sqlite() {
    let place = Place::new();
    let file = place.path().join("billing.db");
    let inbox = SqliteInbox::new(outbox_sqlite::pool(&file).await.expect("opens"));
    inbox.migrate().await.expect("migrated");
    fill(&inbox).await;
    check(&place, "sqlite:billing.db");
}

#[tokio::test]
async fn in_postgres() {
    let (place, database) = (Place::new(), TestDb::new().await);
    let inbox = PostgresInbox::new(database.pool().clone());
    inbox.migrate().await.expect("migrated");
    fill(&inbox).await;
    check(&place, database.url());
}

#[tokio::test]
async fn a_database_without_an_inbox_is_told() {
    let (place, database) = (Place::new(), TestDb::new().await);
    for store in ["sqlite:none.db", database.url()] {
        place
            .run(&["dead", "letters", "--store", store])
            .ended_with(6);
    }
    let (server, _) = database.url().rsplit_once('/').expect("a database's name");
    place
        .run(&[
            "dead",
            "letters",
            "--store",
            &format!("{server}/no_such_database"),
        ])
        .ended_with(7)
        .complained("create the database");
    place
        .run(&["dead", "letters", "--store", "postgres://foo@"])
        .ended_with(3)
        .complained("store.url");
}
