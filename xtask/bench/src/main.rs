//! The figures of the project: `cargo xtask bench NAME [--json] [--quick]`.
//!
//! Each benchmark sets up what it needs (its own PostgreSQL with fsync on, its own folders),
//! measures what it is compared with in the same run, and prints one JSON object last.
//! `--quick` is a tenth of the size, for trying a change; its figures are not for quoting.
#![allow(clippy::print_stdout)]

mod drain;
mod flights;
mod held_xmin;
mod idle;
mod latency;
mod load;
mod probe;
mod rig;
mod stats;
mod write_cost;

use anyhow::{Context, bail};
use serde_json::Value;

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
    let mut name = None;
    let mut run = Run {
        json: false,
        quick: false,
    };
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--json" => run.json = true,
            "--quick" => run.quick = true,
            other if name.is_none() && !other.starts_with('-') => name = Some(other.to_owned()),
            other => bail!("unknown argument {other:?}"),
        }
    }
    let name = name.context("which benchmark? drain latency write-cost held-xmin idle flights")?;
    let result: Value = match name.as_str() {
        "drain" => drain::run(run).await?,
        "latency" => latency::run(run).await?,
        "write-cost" => write_cost::run(run).await?,
        "held-xmin" => held_xmin::run(run).await?,
        "idle" => idle::run(run).await?,
        "flights" => flights::run(run).await?,
        other => bail!(
            "no benchmark {other:?}: there are drain latency write-cost held-xmin idle flights"
        ),
    };
    println!("{result}");
    Ok(())
}
