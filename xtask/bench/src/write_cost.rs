//! What the outbox adds to a business transaction.

use std::time::{Duration, Instant};

use outbox_core::Message;
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
const ROUNDS: usize = 9;
const ACCOUNTS: i64 = 10_000;

/// What is added to the two statements of the business transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    /// Nothing.
    Bare,
    /// `select 1`: what one more round trip costs by itself. No outbox can cost less than one.
    RoundTrip,
    /// The library's enqueue.
    Library,
    /// The SQL contract's, as other languages call it.
    Sql,
}

const ADDED: [Added; 4] = [Added::Bare, Added::RoundTrip, Added::Library, Added::Sql];

/// Transactions and WAL of one stretch.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    tps: f64,
    wal_per_transaction: f64,
}

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    create_business(&rig).await?;
    let length = Duration::from_secs(run.size(50)) / 10;
    // A first round warms caches, plans and WAL files, and is thrown away.
    for added in ADDED {
        stretch(&rig, Duration::from_secs(1), added).await?;
    }
    let mut rounds: Vec<[Stretch; ADDED.len()]> = Vec::new();
    for round_no in 0..ROUNDS {
        let mut all = [Stretch::default(); ADDED.len()];
        // Each round begins with another one, so that none always follows the same one.
        for turn in 0..ADDED.len() {
            let at = (round_no + turn) % ADDED.len();
            all[at] = stretch(&rig, length, ADDED[at]).await?;
        }
        let tps = all.map(|s| s.tps.round());
        run.say(format!("round {}: {ADDED:?} {tps:?} tx/s", round_no + 1));
        rounds.push(all);
    }
    let of = |value: &dyn Fn(&[Stretch; ADDED.len()]) -> f64| {
        median(&rounds.iter().map(value).collect::<Vec<_>>())
    };
    let tps = |at: usize| of(&|round| round[at].tps).round();
    let ratio = |at: usize| round(of(&|round| round[at].tps / round[0].tps));
    let wal = of(&|round| round[2].wal_per_transaction - round[0].wal_per_transaction);
    Ok(json!({
        "bench": "write-cost", "tps_bare": tps(0), "tps_outbox": tps(2), "ratio": ratio(2),
        "ratio_of_a_round_trip": ratio(1), "ratio_of_the_sql_function": ratio(3),
        "wal_bytes_per_message": wal.round(), "payload_bytes": PAYLOAD,
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

/// `CLIENTS` clients for `length`.
async fn stretch(rig: &Rig, length: Duration, added: Added) -> anyhow::Result<Stretch> {
    sqlx::query("checkpoint").execute(&rig.pool).await?;
    let wal_before = wal_position(rig).await?;
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let url = rig.url.clone();
        clients.spawn(async move { transactions(&url, client, started + length, added).await });
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

async fn transactions(url: &str, client: u64, until: Instant, added: Added) -> anyhow::Result<u64> {
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
        match added {
            Added::Bare => {}
            Added::RoundTrip => {
                sqlx::query("select 1").execute(&mut *tx).await?;
            }
            Added::Library => {
                outbox.enqueue(&mut tx, message(&mut zipf, PAYLOAD)).await?;
            }
            Added::Sql => enqueue_by_sql(&mut tx, &message(&mut zipf, PAYLOAD)).await?,
        }
        tx.commit().await?;
        done += 1;
    }
    Ok(done)
}

async fn enqueue_by_sql(tx: &mut PgConnection, message: &Message) -> anyhow::Result<()> {
    sqlx::query("select outbox.enqueue_bytes($1, $2, $3, $4)")
        .bind(&message.topic)
        .bind(&message.payload[..])
        .bind(&message.content_type)
        .bind(&message.key)
        .execute(tx)
        .await?;
    Ok(())
}
