//! Real events end to end: file → `outbox send` → PostgreSQL → relay → log → consumer → table,
//! with the process that relays and consumes killed (-9) on the way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use outbox_core::{Admin, Start};
use outbox_postgres::{PostgresOptions, PostgresStore};
use rand::RngExt;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgPool;

use crate::condition::reaches;
use crate::ledger::{Entry, Verdict, verify};
use crate::node::{APPLIED_POSTGRES, DESTINATION};
use crate::seed::Seed;

/// Longest time without one more event applied.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Everything a run needs.
#[derive(Clone, Debug)]
pub struct Flights {
    /// The `outbox` binary.
    pub outbox: PathBuf,
    /// The `node` binary.
    pub node: PathBuf,
    /// The events, one JSON object a line.
    pub file: PathBuf,
    /// A database that is empty.
    pub url: String,
    /// A folder for the log.
    pub dir: PathBuf,
    /// How often the node is killed.
    pub kills: u64,
}

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Landed {
    /// Lost, out of order, applied twice.
    pub verdict: Verdict,
    /// Events in the file.
    pub events: u64,
    /// From the start of the sender to the last effect.
    pub seconds: f64,
}

impl Flights {
    /// Sends the file, kills the node `kills` times on the way, and holds the table against the
    /// file.
    pub async fn run(&self, seed: &mut Seed) -> anyhow::Result<Landed> {
        let committed = expected(&self.file)?;
        let events = committed.len() as u64;
        let pool = self.prepare().await?;
        let started = Instant::now();
        let mut sender = Running(self.send().spawn().context("start outbox send")?);
        let mut node = self.start_node()?;
        for kill in 1..=self.kills {
            // Each kill waits for its share of the events, and a random instant more.
            wait_for(&pool, events * kill / (self.kills + 2)).await?;
            tokio::time::sleep(Duration::from_millis(seed.random_range(0..150))).await;
            ensure!(
                node.0.try_wait()?.is_none(),
                "the node ended by itself ({seed})"
            );
            drop(node);
            node = self.start_node()?;
        }
        wait_for(&pool, events).await?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(sender.0.wait()?.success(), "outbox send failed ({seed})");
        drop(node);
        // Sent once more, nothing is sent: the file's position is in the database.
        ensure!(
            self.send().status()?.success(),
            "outbox send failed when repeated"
        );
        let verdict = verify(&committed, &effects(&pool).await?);
        Ok(Landed {
            verdict,
            events,
            seconds,
        })
    }

    async fn prepare(&self) -> anyhow::Result<PgPool> {
        let options = PostgresOptions {
            url: self.url.clone(),
            ..PostgresOptions::default()
        };
        let store = PostgresStore::connect(options).await?;
        store.migrate().await?;
        store
            .declare(&[crate::destination(DESTINATION, Start::Beginning)])
            .await?;
        let pool = PgPool::connect(&self.url).await?;
        sqlx::query(APPLIED_POSTGRES).execute(&pool).await?;
        Ok(pool)
    }

    fn send(&self) -> Command {
        let flags = "--topic-field origin --topic-prefix flights. --topic-lowercase \
                     --key-field tailnum --key-none NA";
        let mut command = Command::new(&self.outbox);
        command
            .args(["--store", &self.url, "send", "--file"])
            .arg(&self.file)
            .args(flags.split_whitespace())
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command
    }

    fn start_node(&self) -> anyhow::Result<Running> {
        let child = Command::new(&self.node)
            .args(["--store", &self.url, "--roles", "relay,consumer", "--log"])
            .arg(self.dir.join("log"))
            .spawn()
            .context("start a node")?;
        Ok(Running(child))
    }
}

/// A child that is killed (-9) and reaped when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it is left.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What must come out of `file`, line by line.
pub fn expected(file: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read {}", file.display()))?;
    text.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line)?;
            let origin = event["origin"]
                .as_str()
                .context("an event without origin")?;
            let tail = event["tailnum"].as_str().filter(|t| *t != "NA");
            Ok(Entry {
                topic: format!("flights.{}", origin.to_lowercase()),
                key: tail.map(str::to_owned),
                payload: line.to_owned(),
            })
        })
        .collect()
}

async fn wait_for(pool: &PgPool, count: u64) -> anyhow::Result<()> {
    let applied = "select count(*) from applied";
    reaches("events applied", count, STUCK_AFTER, async || {
        let now: i64 = sqlx::query_scalar(applied).fetch_one(pool).await?;
        Ok(now.unsigned_abs())
    })
    .await
}

async fn effects(pool: &PgPool) -> anyhow::Result<Vec<Entry>> {
    let sql = "select topic, key, payload from applied order by position";
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
