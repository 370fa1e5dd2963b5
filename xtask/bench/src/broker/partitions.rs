//! What the number of partitions costs when each batch has the same size.

use serde_json::{Map, Value, json};

use super::client::{Client, Load};
use super::peer::Kind;
use super::{produce_for, start};
use crate::Run;
use crate::stats::{median, round};

const PEERS: [Kind; 3] = [Kind::Null, Kind::Outbox, Kind::KafkaFsynced];
const PARTITIONS: [i32; 4] = [1, 16, 256, 2_000];
/// Bytes of a message.
const SIZE: u32 = 100;
/// A batch is sent when it has a hundred messages; each message goes to any partition. Less
/// than a fifth of the time that the shortest turn takes passes until the last batches are sent.
const SETTINGS: [&str; 3] = [
    "batch.num.messages=100",
    "sticky.partitioning.linger.ms=0",
    "linger.ms=1000",
];
/// Messages of the first run: four batches for each of 2,000 partitions.
const WARM_UP: u64 = 800_000;
/// The slow peer's: one batch for each.
const WARM_UP_FSYNCED: u64 = 200_000;
/// Each peer's turns; the median counts.
const ROUNDS: usize = 3;
/// Seconds of one turn.
const SECONDS: f64 = 5.0;

/// Runs the row.
pub fn run(run: Run, client: &Client) -> anyhow::Result<Value> {
    let peers = start(&PEERS)?;
    let seconds = if run.quick { SECONDS / 5.0 } else { SECONDS };
    let rounds = if run.quick { 1 } else { ROUNDS };
    let mut row = Map::new();
    for partitions in PARTITIONS {
        let topic = format!("partitions-{partitions}");
        let load = Load {
            topic: &topic,
            size: SIZE,
            settings: &SETTINGS,
        };
        for peer in &peers {
            peer.create_topic(&topic, partitions)?;
        }
        let mut turns = vec![Vec::new(); peers.len()];
        for _ in 0..rounds {
            for (peer, turns) in peers.iter().zip(&mut turns) {
                let warm_up = match peer.kind {
                    Kind::KafkaFsynced => WARM_UP_FSYNCED,
                    _ => WARM_UP,
                };
                let ran = produce_for(client, peer, &load, warm_up, seconds)?;
                run.say(format!(
                    "{partitions} partitions, {}: {:.0} messages/s, {:.2} µs of CPU each",
                    peer.kind.name(),
                    ran.rate(),
                    ran.cpu_us()
                ));
                turns.push(ran);
            }
        }
        let mut rates = Map::new();
        for (peer, turns) in peers.iter().zip(&turns) {
            let of = |f: fn(&super::Ran) -> f64| median(&turns.iter().map(f).collect::<Vec<_>>());
            rates.insert(
                peer.kind.name().to_owned(),
                json!({
                    "messages_per_s": of(super::Ran::rate).round(),
                    "broker_cpu_us": round(of(super::Ran::cpu_us)),
                }),
            );
        }
        row.insert(format!("partitions_{partitions}"), Value::Object(rates));
    }
    Ok(Value::Object(row))
}
