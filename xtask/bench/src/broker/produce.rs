//! What a producer with `acks=all` reaches on 16 partitions.

use serde_json::{Map, Value, json};

use super::client::{Client, Load, Ran};
use super::peer::{Kind, Peer};
use super::{WARM_UP, produce_for, start};
use crate::Run;
use crate::stats::{median, round};

/// All of them.
const PEERS: [Kind; 4] = [
    Kind::Null,
    Kind::Outbox,
    Kind::KafkaFsynced,
    Kind::KafkaDefaults,
];
const PARTITIONS: i32 = 16;
/// Bytes of a message.
const SIZES: [u32; 2] = [100, 1_024];
/// Each peer's turns; the median counts.
const ROUNDS: usize = 3;
/// Seconds of one turn.
const SECONDS: f64 = 5.0;

/// Runs the row.
pub fn run(run: Run, client: &Client) -> anyhow::Result<Value> {
    let peers = start(&PEERS)?;
    let seconds = if run.quick { SECONDS / 5.0 } else { SECONDS };
    let mut row = Map::new();
    for size in SIZES {
        let turns = rounds(run, client, &peers, size, seconds)?;
        let mut of_size = Map::new();
        for (peer, ran) in peers.iter().zip(&turns) {
            of_size.insert(peer.kind.name().to_owned(), summary(ran));
        }
        row.insert(format!("bytes_{size}"), Value::Object(of_size));
    }
    for peer in &peers {
        let name = format!("{}_rss_max_mib", peer.kind.name());
        row.insert(name, json!(peer.memory_mib("VmHWM")?.round()));
    }
    Ok(Value::Object(row))
}

/// All turns of each peer; the peers take turns.
fn rounds(
    run: Run,
    client: &Client,
    peers: &[Peer],
    size: u32,
    seconds: f64,
) -> anyhow::Result<Vec<Vec<Ran>>> {
    let topic = format!("produce-{size}");
    let load = Load {
        topic: &topic,
        size,
        settings: &[],
    };
    for peer in peers {
        peer.create_topic(&topic, PARTITIONS)?;
    }
    let mut turns = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        for (peer, turns) in peers.iter().zip(&mut turns) {
            let ran = produce_for(client, peer, &load, WARM_UP, seconds)?;
            run.say(format!(
                "produce {size} B, {}: {:.0} messages/s, {:.2} µs of the broker's CPU each",
                peer.kind.name(),
                ran.rate(),
                ran.cpu_us()
            ));
            turns.push(ran);
        }
    }
    Ok(turns)
}

fn summary(turns: &[Ran]) -> Value {
    let rates: Vec<f64> = turns.iter().map(Ran::rate).collect();
    let cpu: Vec<f64> = turns.iter().map(Ran::cpu_us).collect();
    json!({
        "messages_per_s": median(&rates).round(), "broker_cpu_us": round(median(&cpu)),
    })
}
