//! How long a message takes: commit returned → fsynced in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outbox_broker_adapters::LogBroker;
use outbox_core::Start;
use outbox_log_broker::{Log, LogOptions};
use outbox_postgres::Outbox;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::Run;
use crate::load::{KEYS, Zipf, message};
use crate::probe::FdatasyncProbe;
use crate::rig::{Metered, Rig};
use crate::stats::{median, percentile, round};

/// Single-message transactions a second.
pub const RATE: f64 = 2_000.0;
const PAYLOAD: usize = 200;
const RUNS: usize = 5;
/// Connections that enqueue.
const WRITERS: u32 = 16;

/// What one run saw, in milliseconds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1,000 were faster.
    pub p999: f64,
    /// Median fdatasync of 4 KiB on the same disk meanwhile.
    pub fdatasync_p50: f64,
    /// Transactions a second that the load really made.
    pub rate: f64,
}

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let rig = Rig::start().await?;
    let seconds = run.size(20) as f64;
    let mut runs = Vec::new();
    for n in 0..RUNS {
        let name = format!("latency{n}");
        let latency = measure(&rig, &name, seconds, 0.0).await?;
        run.say(format!("run {}: {latency:.3?}", n + 1));
        runs.push(latency);
    }
    let of =
        |field: fn(&Latency) -> f64| round(median(&runs.iter().map(field).collect::<Vec<_>>()));
    Ok(json!({
        "bench": "latency", "p50_ms": of(|l| l.p50), "p99_ms": of(|l| l.p99),
        "p999_ms": of(|l| l.p999), "fdatasync_p50_ms": of(|l| l.fdatasync_p50),
        "rate_per_s": of(|l| l.rate), "runs": RUNS,
    }))
}

/// One run of `seconds` into a fresh destination; `rollback` of the transactions roll back.
pub async fn measure(
    rig: &Rig,
    destination: &str,
    seconds: f64,
    rollback: f64,
) -> anyhow::Result<Latency> {
    rig.declare(destination, Start::End).await?;
    let (acked, mut acks) = mpsc::unbounded_channel::<(Uuid, Instant)>();
    let log = Log::open(LogOptions::new(rig.dir.path().join(destination)))?;
    let broker = Metered::with(
        Arc::new(LogBroker::new(log)),
        Some(Box::new(move |batch, now| {
            for message in &batch.messages {
                // The receiver lives until the run ends; later batches are of no interest.
                let _ = acked.send((message.id, now));
            }
        })),
    );
    let relay = rig.relay_into(destination, broker.clone()).await?;
    warm_up(rig, &broker).await?;
    let probe = FdatasyncProbe::start(rig.dir.path());
    let (committed, rate) = enqueue_for(rig, seconds, rollback).await?;
    broker.wait_for(committed.len() as u64 + WARM_UP).await?;
    let syncs = probe.stop()?;
    relay.stop().await?;
    acks.close();
    let mut seen = HashMap::with_capacity(committed.len());
    while let Some((id, at)) = acks.recv().await {
        seen.entry(id).or_insert(at);
    }
    let waits: Vec<f64> = committed
        .iter()
        .filter_map(|(id, at)| {
            seen.get(id)
                .map(|ack| ms(ack.saturating_duration_since(*at)))
        })
        .collect();
    anyhow::ensure!(
        waits.len() == committed.len(),
        "some messages were never acknowledged"
    );
    Ok(Latency {
        p50: percentile(&waits, 0.5),
        p99: percentile(&waits, 0.99),
        p999: percentile(&waits, 0.999),
        fdatasync_p50: median(&syncs),
        rate,
    })
}

const WARM_UP: u64 = 100;

/// The relay has the lease and has sent something: only then does the clock run.
async fn warm_up(rig: &Rig, broker: &Metered) -> anyhow::Result<()> {
    rig.fill(WARM_UP, PAYLOAD, 9).await?;
    broker.wait_for(WARM_UP).await
}

/// Enqueues for `seconds` by a Poisson process; answers the committed ids with the moment their
/// commit returned, and the rate reached.
async fn enqueue_for(
    rig: &Rig,
    seconds: f64,
    rollback: f64,
) -> anyhow::Result<(Vec<(Uuid, Instant)>, f64)> {
    let committed = Arc::new(Mutex::new(Vec::new()));
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, committed) = (rig.pool.clone(), committed.clone());
        writers.spawn(async move {
            let mut connection = pool.acquire().await?;
            let (outbox, mut zipf) = (Outbox::default(), Zipf::new(KEYS, u64::from(writer) + 1));
            let mut next = started;
            loop {
                next += Duration::from_secs_f64(zipf.next_gap(RATE / f64::from(WRITERS)));
                if next.duration_since(started).as_secs_f64() > seconds {
                    return anyhow::Ok(());
                }
                tokio::time::sleep_until(next.into()).await;
                let message = message(&mut zipf, PAYLOAD);
                if zipf.next_gap(1.0) < rollback {
                    let mut tx = sqlx::Connection::begin(&mut *connection).await?;
                    outbox.enqueue(&mut tx, message).await?;
                    tx.rollback().await?;
                    continue;
                }
                // One statement outside a transaction block is a transaction of its own.
                let id = outbox.enqueue(&mut connection, message).await?;
                let now = Instant::now();
                committed
                    .lock()
                    .map_err(|_| anyhow::anyhow!("a writer panicked"))?
                    .push((id, now));
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let committed = std::mem::take(
        &mut *committed
            .lock()
            .map_err(|_| anyhow::anyhow!("a writer panicked"))?,
    );
    let rate = committed.len() as f64 / elapsed;
    Ok((committed, rate))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
