//! The inbox' contract on PostgreSQL, with transactions that meet.

use std::time::Duration;

use outbox_consumer::testing::record;
use outbox_core::{Inbox, InboxError};
use outbox_postgres::PostgresInbox;
use outbox_tests::postgres::TestDb;
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use uuid::Uuid;

use crate::world::PATIENCE;

async fn fresh() -> (TestDb, PostgresInbox) {
    let db = TestDb::new().await;
    let inbox = PostgresInbox::new(db.pool().clone());
    inbox.migrate().await.expect("migrated");
    (db, inbox)
}

async fn number(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query(query)
        .fetch_one(pool)
        .await
        .expect("asked")
        .get(0)
}

/// Waits until a transaction of this database waits for a lock.
async fn someone_waits(pool: &PgPool) {
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
    let limit = std::time::Instant::now() + PATIENCE;
    while number(pool, waiting).await == 0 {
        assert!(std::time::Instant::now() < limit, "nobody ever waits");
    }
}

#[tokio::test]
async fn a_second_transaction_with_the_same_id_waits_and_is_then_told_no() {
    let (db, inbox) = fresh().await;
    let id = Uuid::now_v7();
    let mut first = inbox.begin().await.expect("begun");
    assert!(
        inbox
            .accept(&mut first, "billing", id)
            .await
            .expect("asked")
    );
    let second = tokio::spawn({
        let inbox = inbox.clone();
        async move {
            let mut tx = inbox.begin().await?;
            inbox
                .accept_many(&mut tx, "billing", &[Uuid::now_v7(), id])
                .await
        }
    });
    someone_waits(db.pool()).await;
    assert!(!second.is_finished());
    inbox.commit(first).await.expect("committed");
    let accepted = second.await.expect("no panic").expect("asked");
    assert_eq!(accepted, [true, false]);
}

#[tokio::test]
async fn a_second_transaction_is_told_yes_when_the_first_rolls_back() {
    let (db, inbox) = fresh().await;
    let id = Uuid::now_v7();
    let mut first = inbox.begin().await.expect("begun");
    assert!(
        inbox
            .accept(&mut first, "billing", id)
            .await
            .expect("asked")
    );
    let second = tokio::spawn({
        let inbox = inbox.clone();
        async move {
            let mut tx = inbox.begin().await?;
            inbox.accept(&mut tx, "billing", id).await
        }
    });
    someone_waits(db.pool()).await;
    drop(first);
    assert!(second.await.expect("no panic").expect("asked"));
}

#[tokio::test]
async fn many_ids_are_answered_in_their_order_and_a_repeated_one_once() {
    let (db, inbox) = fresh().await;
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let mut tx = inbox.begin().await.expect("begun");
    assert!(
        inbox
            .accept(&mut tx, "billing", ids[2])
            .await
            .expect("asked")
    );
    let asked = [ids[3], ids[2], ids[0], ids[3], ids[1]];
    let accepted = inbox
        .accept_many(&mut tx, "billing", &asked)
        .await
        .expect("asked");
    assert_eq!(accepted, [true, false, true, false, true]);
    assert!(
        inbox
            .accept_many(&mut tx, "billing", &[])
            .await
            .expect("asked")
            .is_empty()
    );
    inbox.commit(tx).await.expect("committed");
    assert_eq!(
        number(db.pool(), "select count(*) from outbox.inbox").await,
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_batches_in_opposite_order_never_deadlock() {
    let (db, inbox) = fresh().await;
    let mut accepted = 0;
    for _ in 0..40 {
        let mut ids: Vec<Uuid> = (0..200).map(|_| Uuid::from_u128(rand::random())).collect();
        let forth = accept_all(inbox.clone(), ids.clone());
        ids.reverse();
        let back = accept_all(inbox.clone(), ids);
        let (forth, back) = tokio::join!(tokio::spawn(forth), tokio::spawn(back));
        accepted += forth.expect("no panic") + back.expect("no panic");
    }
    assert_eq!(accepted, 40 * 200, "each id once");
    assert_eq!(
        number(db.pool(), "select count(*) from outbox.inbox").await,
        40 * 200
    );
}

async fn accept_all(inbox: PostgresInbox, ids: Vec<Uuid>) -> usize {
    let mut tx = inbox.begin().await.expect("begun");
    let accepted = inbox
        .accept_many(&mut tx, "billing", &ids)
        .await
        .expect("no deadlock");
    inbox.commit(tx).await.expect("committed");
    accepted.into_iter().filter(|&yes| yes).count()
}

#[tokio::test]
async fn a_transaction_with_a_swallowed_error_is_not_reported_as_committed() {
    let (db, inbox) = fresh().await;
    let mut tx = inbox.begin().await.expect("begun");
    inbox
        .accept(&mut tx, "billing", Uuid::now_v7())
        .await
        .expect("asked");
    let _swallowed = tx
        .execute("select 1 / 0")
        .await
        .expect_err("division by zero");
    let error = inbox.commit(tx).await.expect_err("nothing was committed");
    let text = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(
        text.contains("return the error, or use a savepoint"),
        "{text}"
    );
    assert_eq!(
        number(db.pool(), "select count(*) from outbox.inbox").await,
        0
    );
}

#[tokio::test]
async fn a_dead_letter_is_kept_whole_and_a_second_time_replaces_it() {
    let (db, inbox) = fresh().await;
    let mut record = record("orders", "k", vec![0, 255]);
    record.offset = 7;
    record.headers.insert("nul".to_owned(), "a\0b".to_owned());
    for attempts in [1, 2] {
        let mut tx = inbox.begin().await.expect("begun");
        let error = format!("nul \0 {}", "and long ".repeat(1_000));
        let kept = inbox
            .dead_letter(&mut tx, "billing", &record, attempts, &error)
            .await;
        kept.expect("kept");
        inbox.commit(tx).await.expect("committed");
    }
    let all = r#"select message_id, "offset", key, payload, headers ->> 'nul', attempts,
                        octet_length(error) from outbox.inbox_dead"#;
    let rows = sqlx::query(all).fetch_all(db.pool()).await.expect("read");
    let [row] = &rows[..] else {
        panic!("one row, there are {}", rows.len())
    };
    assert_eq!(row.get::<Option<Uuid>, _>(0), record.id);
    assert_eq!(row.get::<i64, _>(1), 7);
    assert_eq!(row.get::<Vec<u8>, _>(2), b"k");
    assert_eq!(row.get::<Vec<u8>, _>(3), [0, 255]);
    assert_eq!(row.get::<String, _>(4), "a\u{fffd}b");
    assert_eq!(row.get::<i32, _>(5), 2);
    assert!(row.get::<i32, _>(6) <= 1_024 + 2);
}

#[tokio::test]
async fn the_inbox_and_the_outbox_migrate_in_either_order_to_the_same_tables() {
    const COLUMNS: &str = "select string_agg(concat_ws(' ', table_name, ordinal_position,
            column_name, data_type, is_nullable, column_default, is_identity, collation_name),
            ', ' order by table_name, ordinal_position)
        from information_schema.columns
        where table_schema = 'outbox' and table_name in ('inbox', 'inbox_dead')";
    let mut seen = Vec::new();
    for inbox_first in [true, false] {
        let db = TestDb::new().await;
        let inbox = PostgresInbox::new(db.pool().clone());
        let outbox = outbox_migrations::postgres("outbox");
        if inbox_first {
            inbox.migrate().await.expect("migrated");
        }
        outbox.run(db.pool()).await.expect("the outbox migrates");
        inbox.migrate().await.expect("migrated");
        let row = sqlx::query(COLUMNS)
            .fetch_one(db.pool())
            .await
            .expect("read");
        seen.push(row.get::<String, _>(0));
    }
    assert!(seen[0].contains("accepted_at"), "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_migrate_at_once_and_a_role_without_rights_to_create_finds_it_done() {
    let db = TestDb::new().await;
    let inbox = PostgresInbox::with_schema(db.pool().clone(), "my \"inbox\"");
    let all = (0..8).map(|_| {
        tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.migrate().await }
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("no panic").expect("migrated");
    }
    let role = format!("plain_{}", Uuid::now_v7().simple());
    let grants = format!(
        r#"create role {role};
           grant usage on schema "my ""inbox""" to {role};
           grant select, insert on "my ""inbox""".inbox to {role}"#
    );
    sqlx::raw_sql(AssertSqlSafe(grants))
        .execute(db.pool())
        .await
        .expect("granted");
    let mut tx = inbox.begin().await.expect("begun");
    tx.execute(AssertSqlSafe(format!("set local role {role}")))
        .await
        .expect("set");
    let accepted = inbox
        .accept_many(&mut tx, "b", &[Uuid::now_v7(), Uuid::now_v7()])
        .await;
    assert_eq!(
        accepted.expect("the documented rights are enough"),
        [true, true]
    );
    drop(tx);
    let drop_role = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(AssertSqlSafe(drop_role))
        .execute(db.pool())
        .await
        .expect("dropped");
}

#[tokio::test]
async fn pruning_forgets_old_ids_only() {
    let (db, inbox) = fresh().await;
    let age = "insert into outbox.inbox select 'billing', gen_random_uuid(),
               now() - (case when n <= 25000 then interval '2 days' else '0' end)
               from generate_series(1, 25010) n";
    db.pool().execute(age).await.expect("filled");
    let pruned = inbox
        .prune(Duration::from_secs(86_400))
        .await
        .expect("pruned");
    assert_eq!(pruned, 25_000);
    assert_eq!(
        number(db.pool(), "select count(*) from outbox.inbox").await,
        10
    );
}

#[tokio::test]
async fn without_its_tables_the_inbox_says_so_and_it_is_no_outage() {
    let db = TestDb::new().await;
    let inbox = PostgresInbox::new(db.pool().clone());
    let mut tx = inbox.begin().await.expect("begun");
    let error = inbox
        .accept(&mut tx, "billing", Uuid::now_v7())
        .await
        .expect_err("no table");
    assert!(matches!(&error, InboxError::Other(cause) if cause.to_string().contains("inbox")));
}
