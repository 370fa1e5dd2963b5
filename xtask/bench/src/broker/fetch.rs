//! Reading a backlog of 2 GB that is in the page cache.

use serde_json::{Map, Value, json};

use super::client::{Client, Load};
use super::peer::Kind;
use super::start;
use crate::Run;
use crate::stats::{median, round};

const PEERS: [Kind; 2] = [Kind::Outbox, Kind::KafkaDefaults];
const PARTITIONS: i32 = 16;
/// Bytes of a message.
const SIZE: u32 = 1_024;
/// Messages of 2 GB.
const MESSAGES: u64 = 1_953_125;
/// Each peer's turns; the medians count. One more comes first and warms up.
const ROUNDS: usize = 3;

/// Runs the row.
pub fn run(run: Run, client: &Client) -> anyhow::Result<Value> {
    let peers = start(&PEERS)?;
    let count = run.size(MESSAGES);
    let bytes = (count * u64::from(SIZE)) as f64;
    let load = Load {
        topic: "backlog",
        size: SIZE,
        settings: &[],
    };
    for peer in &peers {
        peer.create_topic(load.topic, PARTITIONS)?;
        client.produce(peer, &load, count)?;
    }
    let mut turns = vec![Vec::new(); peers.len()];
    for round in 0..=ROUNDS {
        for (peer, turns) in peers.iter().zip(&mut turns) {
            let ran = client.consume(peer, load.topic, PARTITIONS, count)?;
            run.say(format!(
                "fetch, {}: {:.0} MB/s, {:.2} s of the broker's CPU a GB",
                peer.kind.name(),
                bytes / ran.seconds / 1e6,
                ran.broker_cpu / bytes * 1e9
            ));
            if round > 0 {
                turns.push(ran);
            }
        }
    }
    let mut row = Map::new();
    for (peer, turns) in peers.iter().zip(&turns) {
        let of = |f: fn(&super::Ran) -> f64| median(&turns.iter().map(f).collect::<Vec<_>>());
        row.insert(
            peer.kind.name().to_owned(),
            json!({
                "mb_per_s": (bytes / of(|ran| ran.seconds) / 1e6).round(),
                "broker_cpu_s_per_gb": round(of(|ran| ran.broker_cpu) / bytes * 1e9),
            }),
        );
    }
    Ok(Value::Object(row))
}
