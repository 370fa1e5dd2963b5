//! Memory with 2,000 partitions, 200 connections and 10 GB of log; and the start after `kill -9`.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::client::{Client, Load};
use super::peer::{Kind, Peer};
use super::wire;
use crate::Run;
use crate::stats::round;

const TOPIC: &str = "big";
const PARTITIONS: i32 = 2_000;
const CONNECTIONS: usize = 200;
/// Bytes of a message.
const SIZE: u32 = 4_096;
/// Messages of 10 GB.
const MESSAGES: u64 = 2_441_407;
/// Messages are spread over all partitions.
const SETTINGS: [&str; 2] = ["sticky.partitioning.linger.ms=0", "linger.ms=200"];
/// Partitions that the consumer reads while memory is looked at.
const READ_PARTITIONS: i32 = 200;

/// How long the broker has worked on a producer's load when it is killed.
const CPU_SECONDS_BEFORE_KILL: f64 = 1.0;

/// Runs the row.
pub fn run(run: Run, client: &Client) -> anyhow::Result<Value> {
    let mut peer = Peer::start(Kind::Outbox)?;
    peer.create_topic(TOPIC, PARTITIONS)?;
    let load = Load {
        topic: TOPIC,
        size: SIZE,
        settings: &SETTINGS,
    };
    let count = run.size(MESSAGES);
    let ran = client.produce(&peer, &load, count)?;
    run.say(format!("wrote {count} messages at {:.0}/s", ran.rate()));
    let connections = connect_all(&peer)?;
    let read = count / u64::try_from(PARTITIONS)? * u64::try_from(READ_PARTITIONS)? / 2;
    client.consume(&peer, TOPIC, READ_PARTITIONS, read)?;
    let (now, most) = (peer.memory_mib("VmRSS")?, peer.memory_mib("VmHWM")?);
    run.say(format!("memory: {now:.0} MiB now, {most:.0} MiB at most"));
    drop(connections);
    kill_under_load(client, &mut peer, &load)?;
    let start = peer.restart()?.as_secs_f64();
    run.say(format!("start after kill -9: {start:.2} s"));
    Ok(json!({
        "gb": round(count as f64 * f64::from(SIZE) / 1e9),
        "rss_mib": now.round(), "rss_max_mib": most.round(),
        "rss_max_after_start_mib": peer.memory_mib("VmHWM")?.round(),
        "start_s": round(start),
    }))
}

/// Connections that each have asked for the whole topic's metadata.
fn connect_all(peer: &Peer) -> anyhow::Result<Vec<TcpStream>> {
    (0..CONNECTIONS)
        .map(|_| {
            let mut socket = wire::connect(&peer.address())?;
            let found = wire::leaders(&mut socket, TOPIC)?;
            ensure!(found == PARTITIONS, "{found} of {PARTITIONS} have a leader");
            Ok(socket)
        })
        .collect()
}

/// Kills the broker while a producer writes.
fn kill_under_load(client: &Client, peer: &mut Peer, load: &Load<'_>) -> anyhow::Result<()> {
    let before = peer.cpu_seconds()?;
    let mut producer = client.producer(peer, load, MESSAGES);
    producer.stdout(Stdio::null()).stderr(Stdio::null());
    let mut producer = producer.spawn()?;
    // Once the broker has worked for a while, the producer's writes are under way.
    while peer.cpu_seconds()? < before + CPU_SECONDS_BEFORE_KILL {
        std::thread::sleep(Duration::from_millis(10));
    }
    peer.kill9()?;
    producer.kill()?;
    producer.wait()?;
    Ok(())
}
