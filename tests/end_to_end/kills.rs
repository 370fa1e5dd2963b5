//! `kill -9` of relay, consumer and PostgreSQL at random instants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use outbox_core::{Admin, Message, Start};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use outbox_tests::condition::reaches;
use outbox_tests::destination;
use outbox_tests::ledger::{Entry, verify};
use outbox_tests::node::{APPLIED_POSTGRES, DESTINATION};
use outbox_tests::postgres::{Server, ServerOptions};
use outbox_tests::seed::Seed;
use rand::RngExt;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Row};
use tokio::task::JoinSet;

use crate::child::Node;
use crate::log;

/// Kills in a run; `OUTBOX_KILLS` asks for more.
const KILLS: u32 = 50;
/// Of these, one in so many is PostgreSQL's.
const SERVER_EVERY: u32 = 7;
/// How long nothing may be applied before it is a failure.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const WRITERS: u64 = 4;
/// Keys of each writer: a writer's keys are its own, so that their order is known.
const KEYS: u64 = 5;

const LEDGER: &str = "create table ledger (writer bigint, n bigint, topic text not null, \
                      key text not null, payload text not null, primary key (writer, n))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_nine_of_relay_consumer_and_server_breaks_no_promise() -> anyhow::Result<()> {
    let kills = match std::env::var("OUTBOX_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS,
    };
    let mut seed = Seed::from_environment();
    let server = Server::start(ServerOptions::default()).await?;
    let url = server.url(&server.create_database().await?);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&url)?;
    prepare(&pool, &url).await?;
    let dir = tempfile::tempdir()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let rolls_back = seed.fork();
        writers.spawn(write(url.clone(), writer, rolls_back, stop.clone()));
    }
    for kill in 0..kills {
        let roles = ["relay,consumer", "relay,consumer", "relay", "consumer"];
        let roles = roles[seed.random_range(0..roles.len())];
        let node = Node::start(&url, dir.path(), roles)?;
        run_for(Duration::from_millis(seed.random_range(100..1_600))).await;
        if kill % SERVER_EVERY == SERVER_EVERY - 1 {
            server.kill9().await?;
            server.restart().await?;
            run_for(Duration::from_millis(seed.random_range(0..800))).await;
        }
        node.kill9().await?;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let node = Node::start(&url, dir.path(), "relay,consumer")?;
    wait_until_all_is_applied(&pool).await?;
    node.terminate().await?;

    let committed = entries(
        &pool,
        "select topic, key, payload from ledger order by writer, n",
    )
    .await?;
    ensure!(
        committed.len() > 1_000,
        "only {} messages: the test shows nothing",
        committed.len()
    );
    let applied = entries(
        &pool,
        "select topic, key, payload from applied order by position",
    )
    .await?;
    let verdict = verify(&committed, &applied);
    ensure!(verdict.is_clean(), "{verdict:?} ({seed})");
    let records = log::records(dir.path()).await?;
    ensure!(
        log::duplicates(&records) == 0,
        "the log holds a message twice ({seed})"
    );
    let verdict = verify(&committed, &log::entries(&records)?);
    ensure!(verdict.is_clean(), "in the log: {verdict:?} ({seed})");
    eprintln!(
        "{kills} kills, {} messages, all applied once in order",
        committed.len()
    );
    Ok(())
}

async fn prepare(pool: &PgPool, url: &str) -> anyhow::Result<()> {
    let options = PostgresOptions {
        url: url.to_owned(),
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(options).await?;
    store.migrate().await?;
    store
        .declare(&[destination(DESTINATION, Start::Beginning)])
        .await?;
    for statement in [LEDGER, APPLIED_POSTGRES] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

/// Lets things happen for a while; the length is the random instant of the next kill.
async fn run_for(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Commits ledger row and message together, or rolls both back, until told to stop. The ledger
/// is what counts: a commit whose answer was lost is there, or it is not.
async fn write(
    url: String,
    writer: u64,
    mut seed: Seed,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(4));
    let mut connection = None;
    let mut n = 0_i64;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        n += 1;
        let commit = !seed.random_bool(0.2);
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => PgConnection::connect(&url).await,
        };
        let Ok(mut open) = open else { continue };
        // After an error the connection is dropped, and the next turn opens a new one.
        if transaction(&mut open, writer, n, commit).await.is_ok() {
            connection = Some(open);
        }
    }
    Ok(())
}

async fn transaction(
    connection: &mut PgConnection,
    writer: u64,
    n: i64,
    commit: bool,
) -> anyhow::Result<()> {
    let key = format!("{writer}-{}", n as u64 % KEYS);
    let payload = format!("{{\"writer\":{writer},\"n\":{n}}}");
    let mut tx = connection.begin().await?;
    sqlx::query("insert into ledger values ($1, $2, 'kills.done', $3, $4)")
        .bind(writer as i64)
        .bind(n)
        .bind(&key)
        .bind(&payload)
        .execute(&mut *tx)
        .await?;
    let message = Message::bytes("kills.done", payload.into_bytes()).key(key);
    Outbox::default().enqueue(&mut tx, message).await?;
    if commit {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    Ok(())
}

async fn wait_until_all_is_applied(pool: &PgPool) -> anyhow::Result<()> {
    let count = async |sql: &'static str| {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
        anyhow::Ok(count.unsigned_abs())
    };
    let committed = count("select count(*) from ledger").await?;
    let applied = || count("select count(*) from applied");
    reaches("messages applied", committed, STUCK_AFTER, applied).await
}

async fn entries(pool: &PgPool, sql: &'static str) -> anyhow::Result<Vec<Entry>> {
    let rows = sqlx::query(sql).fetch_all(pool).await?;
    Ok(rows
        .iter()
        .map(|row| Entry {
            topic: row.get(0),
            key: row.get(1),
            payload: row.get(2),
        })
        .collect())
}
