//! What the outbox adds to a business transaction.

use std::time::{Duration, Instant};

use outbox_postgres::Outbox;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::Run;
use crate::load::{KEYS, Zipf, message};
use crate::rig::Rig;
use crate::stats::{median, round};

const PAYLOAD: usize = 200;
const CLIENTS: u64 = 8;
const PAIRS: usize = 9;
const ACCOUNTS: i64 = 10_000;

/// Transactions and WAL of one stretch.
struct Stretch {
    tps: f64,
    wal_per_transaction: f64,
}

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    create_business(&rig).await?;
    let length = Duration::from_secs(run.size(10));
    // A first pair warms caches, plans and WAL files, and is thrown away.
    stretch(&rig, Duration::from_secs(2), false).await?;
    stretch(&rig, Duration::from_secs(2), true).await?;
    let (mut bare, mut with, mut ratios, mut wal) = (vec![], vec![], vec![], vec![]);
    for pair in 0..PAIRS {
        let first_bare = pair % 2 == 0;
        let a = stretch(&rig, length, !first_bare).await?;
        let b = stretch(&rig, length, first_bare).await?;
        let (without, outbox) = if first_bare { (a, b) } else { (b, a) };
        run.say(format!(
            "pair {}: {:.0} → {:.0} tx/s",
            pair + 1,
            without.tps,
            outbox.tps
        ));
        ratios.push(outbox.tps / without.tps);
        wal.push(outbox.wal_per_transaction - without.wal_per_transaction);
        bare.push(without.tps);
        with.push(outbox.tps);
    }
    Ok(json!({
        "bench": "write-cost", "tps_bare": median(&bare).round(), "tps_outbox": median(&with).round(),
        "ratio": round(median(&ratios)), "wal_bytes_per_message": median(&wal).round(),
        "payload_bytes": PAYLOAD,
    }))
}

async fn create_business(rig: &Rig) -> anyhow::Result<()> {
    let statements = [
        "create table account (id bigint primary key, balance bigint not null) with (fillfactor = 50)",
        "insert into account select n, 1000 from generate_series(1, 10000) n",
        "create table purchase (id bigint generated always as identity primary key, \
         account bigint not null, amount bigint not null, note text not null)",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&rig.pool).await?;
    }
    Ok(())
}

/// `CLIENTS` clients for `length`, each transaction with or without an enqueue.
async fn stretch(rig: &Rig, length: Duration, enqueue: bool) -> anyhow::Result<Stretch> {
    sqlx::query("checkpoint").execute(&rig.pool).await?;
    let wal_before = wal_position(rig).await?;
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let url = rig.url.clone();
        clients.spawn(async move { transactions(&url, client, started + length, enqueue).await });
    }
    let mut total = 0;
    while let Some(done) = clients.join_next().await {
        total += done??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let wal = wal_position(rig).await? - wal_before;
    Ok(Stretch {
        tps: total as f64 / seconds,
        wal_per_transaction: wal as f64 / total.max(1) as f64,
    })
}

async fn wal_position(rig: &Rig) -> anyhow::Result<i64> {
    rig.number("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        .await
}

async fn transactions(
    url: &str,
    client: u64,
    until: Instant,
    enqueue: bool,
) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let (mut rng, mut zipf) = (StdRng::seed_from_u64(client), Zipf::new(KEYS, client));
    let (outbox, mut done) = (Outbox::default(), 0);
    while Instant::now() < until {
        let account = rng.random_range(1..=ACCOUNTS);
        let mut tx = connection.begin().await?;
        sqlx::query("update account set balance = balance - 1 where id = $1")
            .bind(account)
            .execute(&mut *tx)
            .await?;
        sqlx::query("insert into purchase (account, amount, note) values ($1, 1, 'one of them')")
            .bind(account)
            .execute(&mut *tx)
            .await?;
        if enqueue {
            outbox.enqueue(&mut tx, message(&mut zipf, PAYLOAD)).await?;
        }
        tx.commit().await?;
        done += 1;
    }
    Ok(done)
}
