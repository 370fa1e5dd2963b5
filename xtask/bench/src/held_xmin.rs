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
/// Rounds before the disturbance, and rounds at its end that are compared with them.
const ROUNDS: usize = 3;
/// Longest disturbance, in seconds, unless so many settles are made before.
const LENGTH: u64 = 600;
const SETTLES: u64 = 20_000;
/// Seconds of one measurement of latency.
const LATENCY: u64 = 30;

/// One drain and one latency.
struct Round {
    drain: f64,
    latency: Latency,
}

/// Runs the benchmark: rounds of both figures, undisturbed, then disturbed until the time is over,
/// then undisturbed again: what changed since the first rounds may be the machine's doing, what changes
/// when the disturbance ends is not.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    let count = run.size(1_000_000);
    rig.fill(count, PAYLOAD, 1).await?;
    let mut before = Vec::new();
    for n in 0..ROUNDS {
        before.push(round_of(run, &rig, &format!("before{n}"), count, 0.0).await?);
    }
    let disturbance = Disturbance::start(&rig).await?;
    let (started, settles_before) = (Instant::now(), settles(&rig).await?);
    let length = Duration::from_secs(run.size(LENGTH));
    let (mut during, mut made) = (Vec::new(), 0);
    while during.len() < ROUNDS || (started.elapsed() < length && made < run.size(SETTLES) as i64) {
        let name = format!("during{}", during.len());
        during.push(round_of(run, &rig, &name, count, ROLLBACK).await?);
        made = settles(&rig).await? - settles_before;
    }
    let disturbed = started.elapsed();
    let dead = dead_tuples(&rig).await?;
    disturbance.stop().await?;
    let mut after = Vec::new();
    for n in 0..ROUNDS {
        after.push(round_of(run, &rig, &format!("after{n}"), count, 0.0).await?);
    }
    let last = &during[during.len() - ROUNDS..];
    let (ratio_drain, ratio_p50, ratio_p99) = ratios(&before, last);
    let (whole_drain, whole_p50, whole_p99) = ratios(&before, &during);
    let (after_drain, after_p50, after_p99) = ratios(&after, last);
    let drains = |rounds: &[Round]| rounds.iter().map(|r| r.drain.round()).collect::<Vec<_>>();
    let p50s = |rounds: &[Round]| {
        rounds
            .iter()
            .map(|r| round(r.latency.p50))
            .collect::<Vec<_>>()
    };
    Ok(json!({
        "bench": "held-xmin",
        "ratio_drain": ratio_drain, "ratio_latency": ratio_p50, "ratio_latency_p99": ratio_p99,
        "ratios_whole_run": [whole_drain, whole_p50, whole_p99],
        "ratios_to_after": [after_drain, after_p50, after_p99],
        "drains_before": drains(&before), "drains_during": drains(&during), "drains_after": drains(&after),
        "p50s_before": p50s(&before), "p50s_during": p50s(&during), "p50s_after": p50s(&after),
        "dead_tuples": dead.log, "dead_tuples_small_tables": dead.small,
        "minutes": round(disturbed.as_secs_f64() / 60.0), "settles": made,
    }))
}

/// Latency into a fresh destination, then a drain of the same first `count` messages.
async fn round_of(
    run: Run,
    rig: &Rig,
    name: &str,
    count: u64,
    rollback: f64,
) -> anyhow::Result<Round> {
    let seconds = run.size(LATENCY) as f64;
    let latency = measure(rig, &format!("{name}-latency"), seconds, rollback).await?;
    sqlx::query("checkpoint").execute(&rig.pool).await?;
    let drain = drain(rig, &format!("{name}-drain"), count).await?;
    rig.forget_logs()?;
    run.say(format!("{name}: drain {drain:.0}/s, {latency:.3?}"));
    Ok(Round { drain, latency })
}

/// Of medians: drain, p50 and p99; below 1 where the disturbance costs something.
fn ratios(before: &[Round], during: &[Round]) -> (f64, f64, f64) {
    let of = |rounds: &[Round], value: fn(&Round) -> f64| {
        median(&rounds.iter().map(value).collect::<Vec<_>>())
    };
    let undisturbed_over_disturbed =
        |value: fn(&Round) -> f64| round(of(before, value) / of(during, value));
    (
        round(of(during, |r| r.drain) / of(before, |r| r.drain)),
        undisturbed_over_disturbed(|r| r.latency.p50),
        undisturbed_over_disturbed(|r| r.latency.p99),
    )
}

/// Settles so far: each takes a number for its row of progress.
async fn settles(rig: &Rig) -> anyhow::Result<i64> {
    rig.number("select last_value from outbox.progress_id")
        .await
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

/// What is dead, or would be had no vacuum passed: every row that was updated or deleted. A rolled-back
/// insert leaves a dead tuple too, which is nobody's doing but the writer's: taken seqs less rows
/// is their number. The larger of both counts, for the first misses nothing that we do and the second
/// nothing that the server sees.
async fn dead_tuples(rig: &Rig) -> anyhow::Result<DeadTuples> {
    let rows = sqlx::query(
        "select relname, n_tup_upd + n_tup_del, n_dead_tup \
           from pg_stat_user_tables where schemaname = 'outbox'",
    )
    .fetch_all(&rig.pool)
    .await?;
    let rolled_back = rig
        .number("select (select last_value from outbox.message_seq) - count(*) from outbox.message")
        .await?;
    let (mut changed, mut seen, mut small) = (0, -rolled_back, serde_json::Map::new());
    for row in rows {
        let (name, rewritten, dead): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if name.starts_with("message") || name.starts_with("progress") {
            changed += rewritten;
            seen += dead;
        } else if dead > 0 {
            small.insert(name, dead.into());
        }
    }
    Ok(DeadTuples {
        log: changed.max(seen),
        small: Value::Object(small),
    })
}
