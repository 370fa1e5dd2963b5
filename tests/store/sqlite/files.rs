//! Files that are missing, foreign, older, newer, or a service's own.

use outbox_core::{Admin, Message, Store, StoreError};
use outbox_sqlite::{Outbox, SqliteStore};
use outbox_tests::conformance::Fixture;
use outbox_tests::conformance::stage::*;
use sqlx::sqlite::SqlitePool;

use super::{SqliteFixture, fixture};

async fn execute(f: &SqliteFixture, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&f.pool).await.expect("execute");
}

async fn empty_file() -> (tempfile::TempDir, SqliteStore, SqlitePool) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("new.db");
    let store = SqliteStore::open(&path).await.expect("open");
    let pool = outbox_sqlite::pool(&path).await.expect("pool");
    (folder, store, pool)
}

fn assert_schema(error: &StoreError, cure: &str) {
    assert!(matches!(error, StoreError::Schema { .. }), "{error}");
    assert!(error.to_string().contains(cure), "{error}");
}

#[tokio::test]
async fn a_file_without_a_schema_prints_the_cure_everywhere() {
    let (_folder, store, pool) = empty_file().await;
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.expect("begin");
    let enqueued = Outbox::default()
        .enqueue(&mut tx, Message::bytes("t", ""))
        .await;
    assert_schema(&enqueued.expect_err("no schema"), "`outbox migrate`");
    tx.rollback().await.expect("roll back");
    assert_schema(
        &store.check().await.expect_err("no schema"),
        "`outbox migrate`",
    );
    assert_schema(
        &store.beat("a").await.expect_err("no schema"),
        "`outbox migrate`",
    );
    assert_schema(
        &store.status().await.expect_err("no schema"),
        "`outbox migrate`",
    );
    let declared = store.declare(&[destination("d", &["*"])]).await;
    assert_schema(&declared.expect_err("no schema"), "`outbox migrate`");
    let found = store.doctor().await.expect("doctor");
    assert_eq!(
        (found.len(), found[0].cure.as_str()),
        (1, "run `outbox migrate`")
    );
    store.migrate().await.expect("migrate");
    store.check().await.expect("check");
}

#[tokio::test]
async fn a_schema_of_another_version_prints_the_cure() {
    let f = fixture().await;
    let lease = {
        f.admin()
            .declare(&[destination("d", &["*"])])
            .await
            .expect("declare");
        claim(&*f.store(), "d", "first").await
    };
    execute(
        &f,
        "INSERT INTO outbox_migrations VALUES (999, 'future', 0)",
    )
    .await;
    let newer = "run a newer version of this program";
    assert_schema(&f.store.check().await.expect_err("newer"), newer);
    assert_schema(&f.store.migrate().await.expect_err("newer"), newer);
    assert_schema(
        &f.store.open(&lease).await.map(drop).expect_err("newer"),
        newer,
    );
    execute(&f, "DELETE FROM outbox_migrations WHERE version > 1").await;
    assert_schema(
        &f.store.check().await.expect_err("older"),
        "`outbox migrate`",
    );
    f.store.migrate().await.expect("migrate");
    f.store.check().await.expect("check");
}

#[tokio::test]
async fn a_missing_folder_and_a_foreign_file_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let missing = folder.path().join("no/such/outbox.db");
    for error in [
        SqliteStore::open(&missing)
            .await
            .map(drop)
            .expect_err("no folder"),
        outbox_sqlite::pool(&missing)
            .await
            .map(drop)
            .expect_err("no folder"),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("no/such") && text.contains("mkdir -p"),
            "{text}"
        );
    }
    let text_file = folder.path().join("notes.txt");
    std::fs::write(
        &text_file,
        "not a database, but long enough to look like one\n".repeat(50),
    )
    .expect("write");
    let error = SqliteStore::open(&text_file)
        .await
        .map(drop)
        .expect_err("not a database");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("not an SQLite database"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_open_and_migrate_a_new_file_at_once_all_succeed() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("folder");
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let path = folder.path().join("new.db");
            opening.spawn(async move {
                let store = SqliteStore::open(path).await?;
                store.migrate().await?;
                store.check().await
            });
        }
        while let Some(opened) = opening.join_next().await {
            opened.expect("no panic").expect("open and migrate");
        }
    }
}

#[tokio::test]
async fn a_service_keeps_its_own_tables_in_the_same_file() {
    let f = fixture().await;
    execute(
        &f,
        "CREATE TABLE orders (id integer primary key autoincrement)",
    )
    .await;
    let mut session = lead_all(&f, "d").await;
    for commits in [true, false] {
        let mut tx = f.pool.begin_with("BEGIN IMMEDIATE").await.expect("begin");
        sqlx::query("INSERT INTO orders DEFAULT VALUES")
            .execute(&mut *tx)
            .await
            .expect("insert");
        f.outbox
            .enqueue(&mut tx, Message::bytes("t", "x"))
            .await
            .expect("enqueue");
        match commits {
            true => tx.commit().await.expect("commit"),
            false => tx.rollback().await.expect("roll back"),
        }
    }
    read(&mut *session, 1).await;
    nothing_more(&mut *session).await;
    let row = sqlx::query("SELECT count(*) FROM orders")
        .fetch_one(&f.pool)
        .await
        .expect("count");
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 1);
}

#[tokio::test]
async fn a_sequence_that_was_set_back_stops_the_destination_with_the_cure() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    f.enqueue(messages("t", 10)).await.expect("enqueue");
    let all = read(&mut *session, 10).await;
    session.settle(&through(all[9].seq)).await.expect("settle");
    execute(
        &f,
        "DELETE FROM outbox_message; DELETE FROM sqlite_sequence WHERE name = 'outbox_message'",
    )
    .await;
    let lease = claim(&*f.store(), "d", "second").await;
    let error = f.store.open(&lease).await.map(drop).expect_err("behind");
    let StoreError::SequenceBehind {
        last: 0,
        high_water: 10,
        cure,
        ..
    } = error
    else {
        panic!("{error}");
    };
    let broken = f.store.doctor().await.expect("doctor");
    assert!(
        broken
            .iter()
            .any(|x| x.check == "sequence" && x.cure == cure)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(cure))
        .execute(&f.pool)
        .await
        .expect("the cure is SQL");
    let mut session = f.store.open(&lease).await.expect("cured");
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    assert_eq!(read(&mut *session, 1).await[0].seq, 11);
}

#[tokio::test]
async fn the_doctor_names_what_hurts() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    f.enqueue(keyed("t", "k", 3)).await.expect("enqueue");
    let all = read(&mut *session, 3).await;
    let rows = vec![
        row(&all[0], outbox_core::DeliveryState::Dead),
        row(&all[1], outbox_core::DeliveryState::Retrying),
    ];
    settle_rows(&mut *session, &all, rows).await;
    execute(&f, "DELETE FROM outbox_message WHERE seq = 2").await;
    let found = f.store.doctor().await.expect("doctor");
    let bad: Vec<_> = found
        .iter()
        .filter(|x| x.severity > outbox_core::Severity::Ok)
        .map(|x| (x.check.as_str(), x.severity))
        .collect();
    let expected = [
        ("orphans", outbox_core::Severity::Error),
        ("dead", outbox_core::Severity::Warning),
    ];
    assert_eq!(bad, expected);
}

#[tokio::test]
async fn a_destination_out_of_bounds_is_refused_and_changes_nothing() {
    let f = fixture().await;
    let many = vec!["a"; outbox_core::limits::PATTERNS_MAX + 1];
    let long = "d".repeat(outbox_core::limits::NAME_BYTES_MAX + 1);
    let bad = [
        (destination("", &["*"]), "\"\""),
        (destination("Orders", &["*"]), "\"Orders\""),
        (destination("a b", &["*"]), "\"a b\""),
        (destination(&long, &["*"]), "64 bytes"),
        (
            destination("d", &many),
            "65 topic patterns, the limit is 64",
        ),
    ];
    for (bad, words) in bad {
        let declared = [destination("good", &["*"]), bad];
        let error = f
            .store
            .declare(&declared)
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.contains(words), "{words:?} in {error:?}");
    }
    assert!(status(&f).await.destinations.is_empty());
}
