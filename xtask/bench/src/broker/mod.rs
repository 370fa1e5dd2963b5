//! The network broker beside Apache Kafka, measured with librdkafka's own load generator.
//!
//! Client and broker have a core each. All peers of a row run at the same time and take turns,
//! so that the disk's moods hit each of them. `cargo xtask bench broker [ROW]…` runs some rows
//! only: `produce`, `partitions`, `latency`, `fetch`, `big-log`.

mod big_log;
mod client;
mod fetch;
mod latency;
mod null;
mod partitions;
mod peer;
mod produce;
mod wire;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use crate::Run;
use client::{Client, Load, Ran};
use peer::{Kind, Peer};

pub use null::serve as null_broker;

const ROWS: [&str; 5] = ["produce", "partitions", "latency", "fetch", "big-log"];

/// Messages of a first run, which warms the broker up and says how many a real run takes.
const WARM_UP: u64 = 200_000;

/// Runs the rows named, or all.
pub fn run(run: Run, named: &[String]) -> anyhow::Result<Value> {
    for row in named {
        ensure!(
            ROWS.contains(&row.as_str()),
            "no row {row:?}: there are {}",
            ROWS.join(" ")
        );
    }
    let client = Client::build()?;
    let mut result = Map::new();
    result.insert("bench".to_owned(), json!("broker"));
    for row in ROWS {
        if !named.is_empty() && !named.iter().any(|name| name == row) {
            continue;
        }
        let measured = match row {
            "produce" => produce::run(run, &client),
            "partitions" => partitions::run(run, &client),
            "latency" => latency::run(run, &client),
            "fetch" => fetch::run(run, &client),
            _ => big_log::run(run, &client),
        };
        let measured = measured.with_context(|| format!("row {row}"))?;
        result.insert(row.replace('-', "_"), measured);
    }
    Ok(Value::Object(result))
}

/// Starts a broker of each kind.
fn start(kinds: &[Kind]) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in kinds {
        peers.push(Peer::start(*kind)?);
    }
    Ok(peers)
}

/// Produces for about `seconds`, after `warm_up` messages have said how many that takes.
fn produce_for(
    client: &Client,
    peer: &Peer,
    load: &Load<'_>,
    warm_up: u64,
    seconds: f64,
) -> anyhow::Result<Ran> {
    let first = client.produce(peer, load, warm_up)?;
    let count = (first.rate() * seconds) as u64;
    client.produce(peer, load, count.max(warm_up))
}
