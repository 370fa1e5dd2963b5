//! The operator's calls where PostgreSQL has more to say than the common contract: versions, two
//! schemas, looking far back.

use chrono::TimeDelta;
use outbox_core::{
    Admin, Message, MessageDetail, RequestAction, Selection, Start, Store, StoreError,
};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::{destination, lead, messages, now, payloads, read, through};
use outbox_tests::postgres::TestDb;
use sqlx::Row;

use crate::stage::{Stage, connect};

async fn said(result: Result<impl Sized, StoreError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error @ StoreError::Schema { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_missing_schema_says_how_to_make_it() {
    let database = TestDb::new().await;
    let store = connect(database.url(), "outbox").await;
    for text in [
        said(store.check().await).await,
        said(store.status().await).await,
        said(store.declare(&[destination("d", &["*"])]).await).await,
        said(store.import("s", 0, 1, &messages("t", 1)).await).await,
    ] {
        assert!(text.contains("outbox migrate"), "{text}");
    }
    let doctor = store.doctor().await.expect("the doctor comes to the sick");
    assert!(
        doctor
            .iter()
            .any(|f| f.check == "schema" && f.cure.contains("outbox migrate"))
    );
    assert!(doctor.iter().any(|f| f.check == "durability"));
}

#[tokio::test]
async fn an_older_schema_says_its_version_and_how_to_upgrade_it() {
    let stage = Stage::new().await;
    stage
        .run("delete from outbox._migrations where version > 2")
        .await;
    for text in [
        said(stage.store.check().await).await,
        said(stage.store.status().await).await,
    ] {
        assert!(text.contains("version 2"), "{text}");
        assert!(text.contains("run `outbox migrate`"), "{text}");
    }
}

#[tokio::test]
async fn a_newer_schema_says_its_version_and_is_not_touched() {
    let stage = Stage::new().await;
    stage
        .run(
            "insert into outbox._migrations (version, description, success, checksum, \
             execution_time) values (99, 'from the future', true, '', 0)",
        )
        .await;
    for text in [
        said(stage.store.check().await).await,
        said(stage.store.status().await).await,
        said(stage.store.migrate().await).await,
    ] {
        assert!(
            text.contains("version 99") && text.contains("newer"),
            "{text}"
        );
    }
    assert_eq!(
        stage
            .number("select max(version) from outbox._migrations")
            .await,
        99
    );
}

#[tokio::test]
async fn a_migration_that_broke_off_is_named() {
    let stage = Stage::new().await;
    stage
        .run("update outbox._migrations set success = false where version = 3")
        .await;
    let text = said(stage.store.status().await).await;
    assert!(text.contains("broke off"), "{text}");
}

#[tokio::test]
async fn many_programs_may_migrate_one_database_at_once() {
    let database = TestDb::new().await;
    let migrations = (0..8).map(|_| async {
        connect(database.url(), "outbox")
            .await
            .migrate()
            .await
            .expect("migrate")
    });
    let versions = futures_util::future::join_all(migrations).await;
    assert!(versions.windows(2).all(|w| w[0] == w[1]), "{versions:?}");
}

#[tokio::test]
async fn two_schemas_side_by_side_do_not_see_each_other() {
    let stage = Stage::new().await;
    let odd = r#"Second "Outbox" o'clock"#;
    let second = connect(stage.database.url(), odd).await;
    second.migrate().await.expect("migrate");
    for store in [&stage.store, &second] {
        store
            .declare(&[destination("d", &["*"])])
            .await
            .expect("declare");
    }
    stage.enqueue(messages("first", 2)).await;
    let mut tx = stage.pool().begin().await.expect("begin");
    let outbox = Outbox::with_schema(odd);
    outbox
        .enqueue_all(&mut tx, messages("second", 3))
        .await
        .expect("enqueue");
    tx.commit().await.expect("commit");

    let mut first = lead(&stage.store, "d", "relay").await;
    let mut other = lead(&second, "d", "relay").await;
    assert!(
        read(&mut *first, 2)
            .await
            .iter()
            .all(|m| &*m.topic == "first")
    );
    let all = read(&mut *other, 3).await;
    assert_eq!(
        (payloads(&all).join(""), &*all[0].topic),
        ("012".to_owned(), "second")
    );
    other.settle(&through(3)).await.expect("settle");
    assert_eq!(
        stage.store.status().await.expect("status").destinations[0].cursor,
        0
    );
    let everything = outbox_core::Maintenance {
        retention: std::time::Duration::ZERO,
    };
    assert_eq!(
        second
            .maintain(&everything)
            .await
            .expect("maintain")
            .put_off,
        0
    );
    let findings = second.doctor().await.expect("doctor");
    let errors: Vec<_> = findings
        .iter()
        .filter(|f| f.severity == outbox_core::Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

async fn found(stage: &Stage, message: &Message) -> Option<MessageDetail> {
    stage.store.message(message.id).await.expect("message")
}

#[tokio::test]
async fn a_message_is_found_whatever_time_its_id_tells() {
    let stage = Stage::new().await;
    let in_time = messages("t", 1).remove(0);
    let random = messages("t", 1)
        .remove(0)
        .id("5d41402a-bc4b-4a76-b971-9d911017c592".parse().unwrap());
    let ancient = messages("t", 1)
        .remove(0)
        .id("01700000-0000-7000-8000-000000000001".parse().unwrap());
    let future = messages("t", 1)
        .remove(0)
        .id("ff700000-0000-7000-8000-000000000001".parse().unwrap());
    let all = [in_time, random, ancient, future];
    stage.enqueue(all.to_vec()).await;
    stage
        .store
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    for message in &all {
        assert_eq!(found(&stage, message).await.expect("found").id, message.id);
    }
    let ids = Selection::Ids(all.iter().map(|m| m.id).collect());
    let named = stage
        .store
        .request("d", RequestAction::Resend, &ids)
        .await
        .expect("request");
    assert_eq!(named, 4);
}

#[tokio::test]
async fn the_log_is_searched_by_time_across_partitions_and_holes() {
    let stage = Stage::new().await;
    // One message every second, an hour ago, with holes between them.
    for n in 0..6_i64 {
        stage.skip_to(1 + n * 700_000).await;
        stage.enqueue(messages("t", 1)).await;
        sqlx::query(
            "update outbox.message set created_at = now() - interval '1 hour' \
             + make_interval(mins => $1) where seq = $2",
        )
        .bind(i32::try_from(n).unwrap())
        .bind(2 + n * 700_000)
        .execute(stage.pool())
        .await
        .expect("backdate");
    }
    for n in 0..6_i64 {
        let row = sqlx::query(
            "select outbox.seq_at(created_at), outbox.seq_at(created_at + interval '1 s') \
             from outbox.message where seq = $1",
        )
        .bind(2 + n * 700_000)
        .fetch_one(stage.pool())
        .await
        .expect("search");
        let (at, after): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(at, first_at_or_after(&stage, 2 + n * 700_000).await);
        assert_eq!(after > 2 + n * 700_000, n < 6);
    }
    let half = outbox_core::Destination {
        start: Start::At(now() - TimeDelta::minutes(57) - TimeDelta::seconds(30)),
        ..destination("half", &["*"])
    };
    stage.store.declare(&[half]).await.expect("declare");
    let mut session = lead(&stage.store, "half", "relay").await;
    assert_eq!(read(&mut *session, 3).await[0].seq, 2 + 3 * 700_000);
}

/// `seq_at` answers a seq between the last earlier message and the one that is meant.
async fn first_at_or_after(stage: &Stage, seq: i64) -> i64 {
    let answer: i64 =
        sqlx::query_scalar("select outbox.seq_at(created_at) from outbox.message where seq = $1")
            .bind(seq)
            .fetch_one(stage.pool())
            .await
            .expect("search");
    let next: i64 = sqlx::query_scalar("select min(seq) from outbox.message where seq >= $1")
        .bind(answer)
        .fetch_one(stage.pool())
        .await
        .expect("search");
    assert_eq!(next, seq, "the first message from {answer} on");
    answer
}

#[tokio::test]
async fn a_destination_that_breaks_a_limit_is_refused_and_none_is_declared() {
    let stage = Stage::new().await;
    let bad = [
        (destination("", &["*"]), "0 bytes long"),
        (
            destination(&"d".repeat(64), &["*"]),
            "64 bytes long, the limits are 1 and 63",
        ),
        (destination("Orders", &["*"]), "byte 0"),
        (
            destination("d", &[]),
            "0 topic patterns, the limits are 1 and 64",
        ),
        (destination("d", &["t"; 65]), "65 topic patterns"),
    ];
    for (bad, text) in bad {
        let both = [destination("good", &["*"]), bad];
        let refused = stage.store.declare(&both).await.expect_err("refused");
        assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
        assert!(refused.to_string().contains(text), "{refused}");
    }
    assert!(
        stage
            .store
            .status()
            .await
            .expect("status")
            .destinations
            .is_empty()
    );
}

#[tokio::test]
async fn a_sequence_behind_is_left_for_the_relay_to_refuse_after_adoption_too() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.enqueue(messages("t", 5)).await;
    read(&mut *session, 5).await;
    session.settle(&through(5)).await.expect("settle");
    stage
        .run("update outbox.progress_0 set incarnation = 'pg-1-1-1'")
        .await;
    stage
        .run("update outbox.progress_1 set incarnation = 'pg-1-1-1'")
        .await;
    stage.skip_to(3).await;
    assert_eq!(stage.store.adopt().await.expect("adopt"), ["d"]);
    let lease = outbox_tests::conformance::stage::claim(&stage.store, "d", "relay").await;
    let refused = stage
        .store
        .open(&lease)
        .await
        .map(drop)
        .expect_err("refused");
    assert!(
        matches!(refused, StoreError::SequenceBehind { .. }),
        "{refused}"
    );
}
