//! How long a message takes from a producer to a consumer at 5,000 messages a second.
//!
//! Producer and consumer are librdkafka's, the time is in the payload. Both share the client's
//! core, where the producer spins to keep its rate.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::client::{Client, Load, output};
use super::peer::{Kind, Peer};
use super::start;
use crate::Run;
use crate::probe::FdatasyncProbe;
use crate::stats::{median, percentile, round};

const PEERS: [Kind; 2] = [Kind::Outbox, Kind::KafkaFsynced];
const PARTITIONS: i32 = 16;
/// Messages a second.
const RATE: u64 = 5_000;
/// Bytes of a message.
const SIZE: u32 = 200;
/// Seconds of one turn.
const SECONDS: u64 = 10;
/// Seconds that pass before a message counts: connections, leaders and the first fetch.
const WARM_UP_SECONDS: u64 = 2;
/// Each peer's turns; the medians count.
const ROUNDS: usize = 3;

/// What one turn saw, in milliseconds.
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    fdatasync_p50: f64,
}

/// Runs the row.
pub fn run(run: Run, client: &Client) -> anyhow::Result<Value> {
    let peers = start(&PEERS)?;
    let seconds = WARM_UP_SECONDS + if run.quick { SECONDS / 5 } else { SECONDS };
    let mut turns: Vec<Vec<Latency>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for (peer, turns) in peers.iter().zip(&mut turns) {
            let topic = format!("latency-{round}");
            peer.create_topic(&topic, PARTITIONS)?;
            let latency = turn(client, peer, &topic, seconds)?;
            run.say(format!(
                "latency, {}: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms; fdatasync {:.2} ms",
                peer.kind.name(),
                latency.p50,
                latency.p99,
                latency.p999,
                latency.fdatasync_p50
            ));
            turns.push(latency);
        }
    }
    let mut row = Map::new();
    for (peer, turns) in peers.iter().zip(&turns) {
        let of = |f: fn(&Latency) -> f64| round(median(&turns.iter().map(f).collect::<Vec<_>>()));
        row.insert(
            peer.kind.name().to_owned(),
            json!({
                "p50_ms": of(|l| l.p50), "p99_ms": of(|l| l.p99), "p999_ms": of(|l| l.p999),
                "fdatasync_p50_ms": of(|l| l.fdatasync_p50),
            }),
        );
    }
    Ok(Value::Object(row))
}

fn turn(client: &Client, peer: &Peer, topic: &str, seconds: u64) -> anyhow::Result<Latency> {
    let scratch = tempfile::tempdir()?;
    let times = scratch.path().join("times");
    let count = RATE * seconds;
    let mut consumer = client.consumer(peer, topic, PARTITIONS, count);
    consumer.arg("-l").arg("-A").arg(&times);
    let probe = FdatasyncProbe::start(peer.folder());
    let consumer = std::thread::spawn(move || output(&mut consumer));
    let load = Load {
        topic,
        size: SIZE,
        settings: &["linger.ms=0"],
    };
    let mut producer = client.producer(peer, &load, count);
    output(producer.args(["-l", "-r", &RATE.to_string()]))?;
    consumer
        .join()
        .map_err(|_| anyhow::anyhow!("the consumer's thread panicked"))??;
    let fdatasync = probe.stop()?;
    let times = read_times(&times)?;
    Ok(Latency {
        p50: percentile(&times, 0.5),
        p99: percentile(&times, 0.99),
        p999: percentile(&times, 0.999),
        fdatasync_p50: median(&fdatasync),
    })
}

/// Each message's time in milliseconds, without those of the warm-up.
fn read_times(file: &Path) -> anyhow::Result<Vec<f64>> {
    std::fs::read_to_string(file)?
        .lines()
        .skip((RATE * WARM_UP_SECONDS) as usize)
        .map(|us| Ok(us.parse::<f64>()? / 1e3))
        .collect()
}
