//! `drain` and `latency` while everything that holds the xmin horizon is done to the server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::Run;
use crate::drain::drain;
use crate::latency::{Latency, measure};
use crate::rig::Rig;
use crate::stats::{median, round};

const PAYLOAD: usize = 200;
/// Part of the enqueuing transactions that roll back.
const ROLLBACK: f64 = 0.02;
/// Runs of each figure, undisturbed and at the end of the disturbance.
const RUNS: usize = 3;

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    let count = run.size(1_000_000);
    rig.fill(count, PAYLOAD, 1).await?;
    let before = figures(run, &rig, "before", count, 0.0).await?;
    run.say(format!(
        "undisturbed: drain {:.0}/s, p50 {:.3} ms",
        before.0, before.1.p50
    ));
    let disturbance = Disturbance::start(&rig).await?;
    let started = Instant::now();
    let length = Duration::from_secs(run.size(600));
    let mut round_no = 0;
    while started.elapsed() < length {
        let name = format!("during{round_no}");
        let latency = measure(&rig, &name, run.size(60) as f64, ROLLBACK).await?;
        run.say(format!(
            "{:.0} s: {latency:.3?}",
            started.elapsed().as_secs_f64()
        ));
        round_no += 1;
    }
    let after = figures(run, &rig, "after", count, ROLLBACK).await?;
    let dead = dead_tuples(&rig).await?;
    disturbance.stop().await?;
    Ok(json!({
        "bench": "held-xmin",
        "ratio_drain": round(after.0 / before.0),
        "ratio_latency": round(before.1.p50 / after.1.p50),
        "ratio_latency_p99": round(before.1.p99 / after.1.p99),
        "drain_msgs_per_s": [before.0.round(), after.0.round()],
        "p50_ms": [round(before.1.p50), round(after.1.p50)],
        "p99_ms": [round(before.1.p99), round(after.1.p99)],
        "dead_tuples": dead.log, "dead_tuples_small_tables": dead.small,
        "minutes": round(started.elapsed().as_secs_f64() / 60.0),
    }))
}

/// Medians of drain (of the same first `count` messages) and latency.
async fn figures(
    run: Run,
    rig: &Rig,
    name: &str,
    count: u64,
    rollback: f64,
) -> anyhow::Result<(f64, Latency)> {
    let (mut rates, mut latencies) = (Vec::new(), Vec::new());
    for n in 0..RUNS {
        let latency = measure(
            rig,
            &format!("{name}-latency{n}"),
            run.size(20) as f64,
            rollback,
        )
        .await?;
        latencies.push(latency);
        sqlx::query("checkpoint").execute(&rig.pool).await?;
        rates.push(drain(rig, &format!("{name}-drain{n}"), count).await?);
    }
    latencies.sort_by(|a, b| a.p50.total_cmp(&b.p50));
    Ok((median(&rates), latencies[RUNS / 2].clone()))
}

/// An xid held in another database, a snapshot held in this one.
struct Disturbance {
    foreign: PgConnection,
    snapshot: PgConnection,
}

impl Disturbance {
    async fn start(rig: &Rig) -> anyhow::Result<Self> {
        let other = rig.server.url(&rig.server.create_database().await?);
        let mut foreign = PgConnection::connect(&other).await?;
        for sql in ["begin", "select pg_current_xact_id()::text"] {
            sqlx::query(sql).execute(&mut foreign).await?;
        }
        let mut snapshot = PgConnection::connect(&rig.url).await?;
        for sql in ["begin isolation level repeatable read", "select 1"] {
            sqlx::query(sql).execute(&mut snapshot).await?;
        }
        Ok(Self { foreign, snapshot })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for connection in [&mut self.foreign, &mut self.snapshot] {
            sqlx::query("rollback").execute(connection).await?;
        }
        Ok(())
    }
}

struct DeadTuples {
    /// Of the message and progress tables, less those of rolled-back inserts.
    log: i64,
    /// Table by table.
    small: Value,
}

/// A rolled-back insert leaves one dead tuple that is nobody's doing but the writer's:
/// taken seqs less rows is their number.
async fn dead_tuples(rig: &Rig) -> anyhow::Result<DeadTuples> {
    // Statistics of backends that still run are flushed within a second or so.
    sqlx::query("select pg_stat_force_next_flush()")
        .execute(&rig.pool)
        .await?;
    let rows = sqlx::query(
        "select relname, n_dead_tup from pg_stat_user_tables where schemaname = 'outbox'",
    )
    .fetch_all(&rig.pool)
    .await?;
    let rolled_back = rig
        .number("select (select last_value from outbox.message_seq) - count(*) from outbox.message")
        .await?;
    let (mut log, mut small) = (-rolled_back, serde_json::Map::new());
    for row in rows {
        let (name, dead): (String, i64) = (row.get(0), row.get(1));
        if name.starts_with("message") || name.starts_with("progress") {
            log += dead;
        } else if dead > 0 {
            small.insert(name, dead.into());
        }
    }
    Ok(DeadTuples {
        log,
        small: Value::Object(small),
    })
}
