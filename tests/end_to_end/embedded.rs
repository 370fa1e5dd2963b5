//! `kill -9` of everything that runs over a SQLite file.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use outbox_core::{Admin, Message, Start};
use outbox_sqlite::{Outbox, SqliteStore};
use outbox_tests::condition::reaches;
use outbox_tests::destination;
use outbox_tests::ledger::{Entry, verify};
use outbox_tests::node::{APPLIED_SQLITE, DESTINATION};
use outbox_tests::seed::Seed;
use rand::RngExt;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row};

use crate::child::Node;
use crate::log;

const KILLS: u32 = 10;
/// How long nothing may be applied before it is a failure.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const KEYS: i64 = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_nine_of_an_embedded_relay_and_consumer_breaks_no_promise() -> anyhow::Result<()>
{
    let mut seed = Seed::from_environment();
    let dir = tempfile::tempdir()?;
    let (file, folder) = (dir.path().join("outbox.db"), dir.path().join("log"));
    let store = SqliteStore::open(&file).await?;
    store.migrate().await?;
    store
        .declare(&[destination(DESTINATION, Start::Beginning)])
        .await?;
    let pool = outbox_sqlite::pool(&file).await?;
    let ledger = "create table ledger (n integer primary key, key text, payload text)";
    for statement in [ledger, APPLIED_SQLITE] {
        sqlx::query(statement).execute(&pool).await?;
    }
    let path = file.display().to_string();
    let mut n = 0;
    for _ in 0..KILLS {
        let roles = if seed.random_bool(0.7) {
            "relay,consumer"
        } else {
            "relay"
        };
        let node = Node::start(&path, &folder, roles)?;
        let until = Instant::now() + Duration::from_millis(seed.random_range(200..1_500));
        while Instant::now() < until {
            n += 1;
            transaction(&pool, n, !seed.random_bool(0.2)).await?;
        }
        node.kill9().await?;
    }
    let node = Node::start(&path, &folder, "relay,consumer")?;
    wait_until_all_is_applied(&pool).await?;
    node.terminate().await?;
    let committed = entries(&pool, "select key, payload from ledger order by n").await?;
    let applied = entries(&pool, "select key, payload from applied order by position").await?;
    let verdict = verify(&committed, &applied);
    ensure!(verdict.is_clean(), "{verdict:?} ({seed})");
    in_the_log(&folder, &committed, &seed).await
}

async fn in_the_log(folder: &Path, committed: &[Entry], seed: &Seed) -> anyhow::Result<()> {
    let records = log::records(folder).await?;
    ensure!(
        log::duplicates(&records) == 0,
        "the log holds a message twice ({seed})"
    );
    let verdict = verify(committed, &log::entries(&records)?);
    ensure!(verdict.is_clean(), "in the log: {verdict:?} ({seed})");
    Ok(())
}

async fn transaction(pool: &SqlitePool, n: i64, commit: bool) -> anyhow::Result<()> {
    let (key, payload) = (format!("k{}", n % KEYS), format!("{{\"n\":{n}}}"));
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("insert into ledger values (?, ?, ?)")
        .bind(n)
        .bind(&key)
        .bind(&payload)
        .execute(&mut *tx)
        .await?;
    let message = Message::bytes("embedded.done", payload.into_bytes()).key(key);
    Outbox::default().enqueue(&mut tx, message).await?;
    if commit {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    Ok(())
}

async fn wait_until_all_is_applied(pool: &SqlitePool) -> anyhow::Result<()> {
    let count = async |sql: &'static str| {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
        anyhow::Ok(count.unsigned_abs())
    };
    let committed = count("select count(*) from ledger").await?;
    let applied = || count("select count(*) from applied");
    reaches("messages applied", committed, STUCK_AFTER, applied).await
}

async fn entries(pool: &SqlitePool, sql: &str) -> anyhow::Result<Vec<Entry>> {
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?;
    Ok(rows
        .iter()
        .map(|row| Entry {
            topic: "embedded.done".to_owned(),
            key: row.get(0),
            payload: row.get(1),
        })
        .collect())
}
