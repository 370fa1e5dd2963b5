//! A consumer behind PgBouncer in transaction mode: each transaction may meet another server
//! process, and another client's statements on it.

use std::sync::Arc;
use std::time::Duration;

use outbox_consumer::testing::record;
use outbox_consumer::{Consumer, HandlerError};
use outbox_core::Inbox;
use outbox_postgres::PostgresInbox;
use outbox_tests::postgres::{PgBouncer, TestDb};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::applying_postgres::{APPLIED, INSERT, TABLE, run_to_the_end};
use crate::world::{check, eager, filled};

/// Server connections of the pooler: fewer than its clients, so that they must share.
const CONNECTIONS: u32 = 3;

/// A migrated inbox behind a pooler; `None`, with a word on standard error, on a machine that has
/// no PgBouncer.
async fn pooled() -> Option<(TestDb, PgBouncer, PgPool)> {
    let Some(program) = PgBouncer::program() else {
        eprintln!("no pgbouncer on this machine: the test of it did not run");
        return None;
    };
    let db = TestDb::new().await;
    let pooler = PgBouncer::start(&program, db.url(), CONNECTIONS).await;
    let pooler = pooler.expect("start pgbouncer");
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect(&pooler.url(db.name()))
        .await
        .expect("connect");
    let inbox = PostgresInbox::new(pool.clone()).pooled();
    inbox.migrate().await.expect("migrated");
    sqlx::raw_sql(TABLE).execute(&pool).await.expect("created");
    Some((db, pooler, pool))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_behind_a_pooler_applies_each_record_once_and_in_order() {
    const MESSAGES: usize = 1_500;
    let Some((db, _pooler, pool)) = pooled().await else {
        return;
    };
    let source = filled(MESSAGES, 40, rand::random());
    let inbox = PostgresInbox::new(pool).pooled();
    let consumer = Consumer::new(Arc::new(source.clone()), inbox)
        .name("billing")
        .workers(6)
        .batch(4)
        .retry(eager(Some(3)))
        .on("orders", |record, mut tx| async move {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            sqlx::query(INSERT)
                .persistent(false)
                .bind(record.key.as_deref().map(text))
                .bind(text(&record.payload))
                .execute(&mut **tx)
                .await?;
            Ok::<_, HandlerError>(())
        });
    run_to_the_end(consumer, &source).await;
    let rows = sqlx::query(APPLIED)
        .fetch_all(db.pool())
        .await
        .expect("read");
    let applied: Vec<(String, String)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    check(&applied, MESSAGES, "behind a pooler");
}

#[tokio::test]
async fn everything_an_inbox_does_works_behind_a_pooler() {
    let Some((db, _pooler, pool)) = pooled().await else {
        return;
    };
    let inbox = PostgresInbox::new(pool).pooled();
    inbox.migrate().await.expect("a second time");
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    // Round robin gives each of these transactions another server connection.
    for round in 0..2 * CONNECTIONS as usize {
        let mut tx = inbox.begin().await.expect("begun");
        let accepted = inbox.accept_many(&mut tx, "billing", &ids).await;
        assert_eq!(accepted.expect("asked"), [round == 0; 3]);
        let dead = record("orders", "k", "x");
        let kept = inbox.dead_letter(&mut tx, "billing", &dead, 1, "no").await;
        kept.expect("kept");
        inbox.commit(tx).await.expect("committed");
    }
    assert_eq!(inbox.prune(Duration::ZERO).await.expect("pruned"), 3);
    let left =
        "select (select count(*) from outbox.inbox) + (select count(*) from outbox.inbox_dead)";
    let left: i64 = sqlx::query_scalar(left)
        .fetch_one(db.pool())
        .await
        .expect("read");
    assert_eq!(left, 1, "the dead letter");
}
