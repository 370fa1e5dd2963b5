//! The figures of the project: `cargo xtask bench NAME [ROW]… [--json] [--quick] [--warm]`.
//!
//! Each benchmark sets up what it needs (its own PostgreSQL with fsync on, its own folders),
//! measures what it is compared with in the same run, and prints one JSON object last.
//! `--quick` is a tenth of the size, for trying a change; its figures are not for quoting.
//! `--warm` fills the page cache before: see `warm`.
#![allow(clippy::print_stdout)]

mod broker;
mod drain;
mod flights;
mod held_xmin;
mod idle;
mod latency;
mod load;
mod probe;
mod rig;
mod stats;
mod warm;
mod write_cost;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

const NAMES: &str = "drain latency write-cost held-xmin idle flights broker";

/// How a benchmark is run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Print the JSON object only.
    pub json: bool,
    /// A tenth of the size.
    pub quick: bool,
}

impl Run {
    /// `full` of something, or a tenth of it.
    pub fn size(&self, full: u64) -> u64 {
        if self.quick { (full / 10).max(1) } else { full }
    }

    /// Prints a line for a person.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.json {
            println!("{}", line.as_ref());
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = Vec::new();
    let mut run = Run {
        json: false,
        quick: false,
    };
    let mut warm = false;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--json" => run.json = true,
            "--quick" => run.quick = true,
            "--warm" => warm = true,
            other if !other.starts_with('-') => words.push(other.to_owned()),
            other => bail!("unknown argument {other:?}"),
        }
    }
    let (name, rows) = words
        .split_first()
        .with_context(|| format!("which benchmark? {NAMES}"))?;
    ensure!(
        rows.is_empty() || ["broker", "null-broker"].contains(&name.as_str()),
        "{name} has no rows to choose from"
    );
    let _held_to_the_end = warm.then(warm::fill).transpose()?;
    let result: Value = match name.as_str() {
        "broker" => broker::run(run, rows)?,
        // What the row above compares with, as a process of its own.
        "null-broker" => return broker::null_broker(rows.concat().parse()?),
        "drain" => drain::run(run).await?,
        "latency" => latency::run(run).await?,
        "write-cost" => write_cost::run(run).await?,
        "held-xmin" => held_xmin::run(run).await?,
        "idle" => idle::run(run).await?,
        "flights" => flights::run(run).await?,
        other => bail!("no benchmark {other:?}: there are {NAMES}"),
    };
    println!("{result}");
    Ok(())
}
