//! What relays cost while nothing happens.

use std::time::{Duration, Instant};

use anyhow::Context;
use outbox_core::Start;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::Run;
use crate::probe::{cpu_seconds, parent, with_children};
use crate::rig::{Rig, Running};
use crate::stats::round;

/// Partitions attached, so that a poll that touches them all would show.
const PARTITIONS: i64 = 200;

/// How often an idle relay looks for more, and so the floor does.
const POLL: Duration = Duration::from_millis(50);

/// Runs the benchmark: one relay with one destination, then twenty of each. Beside them the floor: a
/// bare loop that runs one trivial statement as often.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    attach_partitions(&rig).await?;
    let floor = floor(run, &rig).await?;
    let one = idle(run, &rig, 1).await?;
    let twenty = idle(run, &rig, 20).await?;
    Ok(json!({
        "bench": "idle",
        "cpu_percent_1": round(one.cpu_percent), "cpu_percent_20": round(twenty.cpu_percent),
        "statements_per_s_1": round(one.statements),
        "statements_per_s_20": round(twenty.statements),
        "postgres_cpu_percent_1": round(one.postgres), "postgres_cpu_percent_20": round(twenty.postgres),
        "cpu_percent_floor": round(floor.cpu_percent), "postgres_cpu_percent_floor": round(floor.postgres),
    }))
}

struct Idle {
    cpu_percent: f64,
    postgres: f64,
    statements: f64,
}

async fn idle(run: Run, rig: &Rig, relays: usize) -> anyhow::Result<Idle> {
    let mut running: Vec<Running> = Vec::new();
    for n in 0..relays {
        let name = format!("idle{relays}-{n}");
        rig.declare(&name, Start::End).await?;
        running.push(rig.relay(&name).await?);
    }
    // Each has its lease once a message has gone through it.
    rig.fill(1, 200, 1).await?;
    for relay in &running {
        relay.broker.wait_for(1).await?;
    }
    let result = watch(run, rig, &format!("{relays} idle")).await?;
    for relay in running {
        relay.stop().await?;
    }
    Ok(result)
}

/// `select 1` every 50 ms on one connection: what any poll costs on this machine.
async fn floor(run: Run, rig: &Rig) -> anyhow::Result<Idle> {
    let mut connection = PgConnection::connect(&rig.url).await?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let looking = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            tokio::time::sleep(POLL).await;
            sqlx::query("select 1").execute(&mut connection).await?;
        }
        anyhow::Ok(())
    });
    let result = watch(run, rig, "bare loop").await?;
    stop.cancel();
    looking.await??;
    Ok(result)
}

/// What is used for a while.
async fn watch(run: Run, rig: &Rig, what: &str) -> anyhow::Result<Idle> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = reading(rig).await?;
    tokio::time::sleep(Duration::from_secs(run.size(60))).await;
    let after = reading(rig).await?;
    let seconds = (after.at - before.at).as_secs_f64();
    let percent = |value: f64| value / seconds * 100.0;
    let result = Idle {
        cpu_percent: percent(after.postgres - before.postgres + after.own - before.own),
        postgres: percent(after.postgres - before.postgres),
        statements: (after.transactions - before.transactions) as f64 / seconds,
    };
    run.say(format!(
        "{what}: {:.2} % of a core in all, {:.2} % of it PostgreSQL, {:.1} statements/s",
        result.cpu_percent, result.postgres, result.statements
    ));
    Ok(result)
}

struct Reading {
    at: Instant,
    postgres: f64,
    own: f64,
    transactions: i64,
}

/// Idle relays send single statements, each of which is a transaction to the statistics.
async fn reading(rig: &Rig) -> anyhow::Result<Reading> {
    // Backends report their counts when idle for a second: they have been, by and large.
    let transactions = rig
        .number("select xact_commit from pg_stat_database where datname = current_database()")
        .await?;
    Ok(Reading {
        at: Instant::now(),
        postgres: cpu_seconds(&with_children(postmaster(rig).await?)),
        own: cpu_seconds(&[std::process::id()]),
        transactions,
    })
}

/// The server's first process: the parent of any backend.
async fn postmaster(rig: &Rig) -> anyhow::Result<u32> {
    let backend = rig.number("select pg_backend_pid()::bigint").await?;
    parent(u32::try_from(backend)?).context("the server runs as a process of this machine")
}

/// Attaches partitions far ahead, as a long retention would leave them behind.
async fn attach_partitions(rig: &Rig) -> anyhow::Result<()> {
    let base = 1_000_000_000_000_i64;
    for n in 0..PARTITIONS {
        let (from, to) = (base + n * 1_000, base + (n + 1) * 1_000);
        let statement = format!(
            "create table outbox.message_bench_{n} partition of outbox.message \
             for values from ({from}) to ({to})"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&rig.pool)
            .await?;
    }
    Ok(())
}
