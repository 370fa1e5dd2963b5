//! How fast a backlog goes: PostgreSQL → relay → fsynced log, against COPY of the same rows.

use std::time::Instant;

use anyhow::Context;
use futures_util::TryStreamExt;
use outbox_core::Start;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPoolCopyExt};

use crate::Run;
use crate::rig::Rig;
use crate::stats::{median, round};

const PAYLOAD: usize = 200;
const ROUNDS: usize = 5;

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    let count = run.size(1_000_000);
    run.say(format!("filling {count} messages of {PAYLOAD} B"));
    rig.fill(count, PAYLOAD, 1).await?;
    let (mut drains, mut copies) = (Vec::new(), Vec::new());
    for round_no in 0..ROUNDS {
        // The order alternates, so that neither always finds the other's warm cache.
        for turn in 0..2 {
            rig.settle_down().await?;
            if (round_no + turn) % 2 == 0 {
                drains.push(drain(&rig, &format!("drain{round_no}"), count).await?);
            } else {
                copies.push(copy(&rig, 0).await?);
            }
        }
        run.say(format!(
            "round {}: relay {:.0} msg/s, COPY {:.0} rows/s",
            round_no + 1,
            drains[round_no],
            copies[round_no]
        ));
    }
    let (relay, copied) = (median(&drains), median(&copies));
    let large = large_backlog(run, &rig, count).await?;
    Ok(json!({
        "bench": "drain", "msgs_per_s": relay.round(), "copy_rows_per_s": copied.round(),
        "ratio": round(relay / copied), "ratio_large_backlog": round(large),
        "runs_msgs_per_s": drains.iter().map(|v| v.round()).collect::<Vec<_>>(),
        "runs_copy_rows_per_s": copies.iter().map(|v| v.round()).collect::<Vec<_>>(),
    }))
}

/// Messages a second from the relay's start until all `count` are fsynced in the log.
pub async fn drain(rig: &Rig, destination: &str, count: u64) -> anyhow::Result<f64> {
    rig.declare(destination, Start::Beginning).await?;
    timed_drain(rig, destination, count).await
}

async fn timed_drain(rig: &Rig, destination: &str, count: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let relay = rig.relay(destination).await?;
    relay.broker.wait_for(count).await?;
    let seconds = started.elapsed().as_secs_f64();
    relay.stop().await?;
    Ok(count as f64 / seconds)
}

/// Rows a second of `COPY … TO STDOUT (FORMAT binary)` of every row behind `from`.
async fn copy(rig: &Rig, from: i64) -> anyhow::Result<f64> {
    let statement = format!(
        "copy (select seq, id, topic, key, payload, content_type, headers, created_at \
         from outbox.message where seq > {from} order by seq) to stdout (format binary)"
    );
    let rows = rig.number("select count(*) from outbox.message").await? - from;
    let started = Instant::now();
    let mut stream = rig.pool.copy_out_raw(&statement).await?;
    let mut bytes = 0;
    while let Some(chunk) = stream.try_next().await? {
        bytes += chunk.len();
    }
    anyhow::ensure!(bytes > 0, "COPY answered nothing");
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// The rate with 5M waiting behind 5M sent and one open gap, over the rate with 1M waiting; each
/// the median of three. The gap is a transaction that took a seq and stays open.
async fn large_backlog(run: Run, rig: &Rig, small: u64) -> anyhow::Result<f64> {
    let sent = run.size(5_000_000);
    let have = rig.number("select count(*) from outbox.message").await? as u64;
    run.say(format!("filling up to {sent} sent messages"));
    rig.fill(sent - have.min(sent), PAYLOAD, 2).await?;
    let mut small_rates = Vec::new();
    let mut large_rates = Vec::new();
    let mut holder = PgConnection::connect(&rig.url)
        .await
        .context("connect the gap's holder")?;
    let mut gap = holder.begin().await?;
    let one = outbox_core::Message::bytes("bench.event", vec![b'x'; PAYLOAD]);
    outbox_postgres::Outbox::default()
        .enqueue(&mut gap, one)
        .await?;
    let names: Vec<String> = (0..3).map(|n| format!("large{n}")).collect();
    for name in &names {
        rig.declare(name, Start::End).await?;
    }
    let waiting = run.size(5_000_000);
    run.say(format!("filling {waiting} waiting messages"));
    rig.fill(waiting, PAYLOAD, 3).await?;
    for (at, name) in names.iter().enumerate() {
        rig.settle_down().await?;
        large_rates.push(timed_drain(rig, name, waiting).await?);
        rig.settle_down().await?;
        let from = rig.number("select max(seq) from outbox.message").await? - small as i64;
        let name = format!("small{at}");
        rig.declare(&name, Start::At(created_at(rig, from).await?))
            .await?;
        small_rates.push(timed_drain(rig, &name, small).await?);
        run.say(format!(
            "large backlog {:.0} msg/s, small {:.0} msg/s",
            large_rates[at], small_rates[at]
        ));
    }
    gap.rollback().await?;
    Ok(median(&large_rates) / median(&small_rates))
}

async fn created_at(rig: &Rig, seq: i64) -> anyhow::Result<chrono::DateTime<chrono::Utc>> {
    let sql = "select created_at from outbox.message where seq >= $1 order by seq limit 1";
    Ok(sqlx::query_scalar(sql)
        .bind(seq)
        .fetch_one(&rig.pool)
        .await?)
}
