//! A relay that is stopped past its lease, by SIGSTOP, and goes on after another one took over.

use std::time::Duration;

use outbox_core::{Admin, Message, Start};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use outbox_tests::condition::until;
use outbox_tests::destination;
use outbox_tests::node::DESTINATION;
use outbox_tests::postgres::TestDb;
use sqlx::postgres::PgPool;

use crate::child::Node;
use crate::log;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that a relay which is not stopped keeps its lease on a busy machine.
const LEASE_TTL: Duration = Duration::from_secs(3);

/// Enqueues messages with the payloads `from` to `to`, each in a transaction of its own.
async fn enqueue(pool: &PgPool, from: i64, to: i64) -> anyhow::Result<()> {
    for n in from..=to {
        let mut tx = pool.begin().await?;
        let message = Message::bytes("zombies.done", n.to_string()).key("k");
        Outbox::default().enqueue(&mut tx, message).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn owner(pool: &PgPool) -> anyhow::Result<Option<String>> {
    let owner = "select owner from outbox.lease where destination = $1";
    let owner = sqlx::query_scalar(owner).bind(DESTINATION);
    Ok(owner.fetch_one(pool).await?)
}

/// Waits until everything up to `seq` is settled.
async fn settled(pool: &PgPool, seq: i64) -> anyhow::Result<()> {
    let cursor = "select cursor from outbox.progress where destination = $1";
    until("all is settled", PATIENCE, async || {
        let cursor: i64 = sqlx::query_scalar(cursor)
            .bind(DESTINATION)
            .fetch_one(pool)
            .await?;
        Ok(cursor >= seq)
    })
    .await
}

/// Waits until the relay `instance` has beaten a few times more: it is awake, and has had its turn.
async fn awake(pool: &PgPool, instance: &str) -> anyhow::Result<()> {
    let beat = async || -> anyhow::Result<i64> {
        let beat = "select beat from outbox.relay where instance = $1";
        let beat = sqlx::query_scalar(beat).bind(instance);
        Ok(beat.fetch_one(pool).await?)
    };
    let before = beat().await?;
    until(
        "it beats",
        PATIENCE,
        async || Ok(beat().await? > before + 3),
    )
    .await
}

/// What a settle writes, as far as it does not depend on how often it is written; and the lease.
async fn state(pool: &PgPool) -> anyhow::Result<String> {
    let all = "select concat_ws('; ', (select string_agg(l::text, ', ') from outbox.lease l),
                      (select string_agg(concat_ws(' ', p.destination, p.epoch, p.cursor,
                              p.high_water), ', ') from outbox.progress p),
                      (select string_agg(g::text, ', ') from outbox.gap g),
                      (select string_agg(d::text, ', ') from outbox.delivery d))";
    Ok(sqlx::query_scalar(all).fetch_one(pool).await?)
}

async fn payloads(dir: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let entries = log::entries(&log::records(dir).await?)?;
    Ok(entries.into_iter().map(|entry| entry.payload).collect())
}

fn numbers(from: i64, to: i64) -> Vec<String> {
    (from..=to).map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stopped_past_its_lease_adds_nothing_anywhere_when_it_goes_on() -> anyhow::Result<()>
{
    let db = TestDb::new().await;
    let options = PostgresOptions {
        url: db.url().to_owned(),
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(options).await?;
    store.migrate().await?;
    store
        .declare(&[destination(DESTINATION, Start::Beginning)])
        .await?;
    let pool = db.pool();
    // A log each: the process that is stopped keeps its own locked.
    let (dir, heirs_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let zombie = Node::start_with(db.url(), dir.path(), "relay", LEASE_TTL)?;
    enqueue(pool, 1, 50).await?;
    settled(pool, 50).await?;
    let first = owner(pool).await?.expect("it leads");

    zombie.stop()?;
    enqueue(pool, 51, 100).await?;
    let heir = Node::start_with(db.url(), heirs_dir.path(), "relay", LEASE_TTL)?;
    settled(pool, 100).await?;
    let second = owner(pool).await?.expect("the heir leads");
    assert_ne!(first, second);
    // Whatever the zombie still believes in, 51 to 100 are new to it.
    let before = state(pool).await?;
    zombie.go_on()?;
    awake(pool, &first).await?;
    assert_eq!(state(pool).await?, before, "it changed something");
    enqueue(pool, 101, 120).await?;
    settled(pool, 120).await?;
    assert_eq!(owner(pool).await?, Some(second), "the heir leads still");

    zombie.terminate().await?;
    heir.terminate().await?;
    assert_eq!(payloads(dir.path()).await?, numbers(1, 50));
    assert_eq!(payloads(heirs_dir.path()).await?, numbers(51, 120));
    Ok(())
}
