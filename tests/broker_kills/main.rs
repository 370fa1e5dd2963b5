//! `kill -9` of `outbox broker` at random instants, with a ledger of what it acknowledged.
//!
//! `OUTBOX_BROKER_KILLS` asks for more kills; `OUTBOX_TEST_SEED` repeats the random choices.

mod ledger;
mod producers;
mod reading;
mod wire;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outbox_tests::kafka::Process;
use outbox_tests::seed::Seed;
use proto_kafka::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use proto_kafka::messages::{CreateTopicsRequest, TopicName};
use proto_kafka::protocol::StrBytes;
use rand::RngExt;

use ledger::{Ledger, Place};
use producers::Writer;
use reading::{ALL, COMMITTED, Partition, read};
use wire::Wire;

/// Kills in a run.
const KILLS: u32 = 20;
/// Longest start, recovery included.
const STARTED_WITHIN: Duration = Duration::from_secs(30);
/// Producers of each kind.
const WRITERS: usize = 2;

const PARTITIONS: i32 = 3;
const PLAIN: &str = "plain";
const IDEMPOTENT: &str = "idempotent";
const TRANSACTIONAL: &str = "transactional";
const TOPICS: [&str; 3] = [PLAIN, IDEMPOTENT, TRANSACTIONAL];

#[test]
fn kill_minus_nine_of_the_broker_takes_nothing_back_that_it_acknowledged() -> Result<()> {
    let kills = match std::env::var("OUTBOX_BROKER_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => KILLS,
    };
    let mut seed = Seed::from_environment();
    let mut process = Process::empty("broker-kills")?;
    start(&mut process)?;
    let addr = process.address();
    create_topics(&mut Wire::connect(&addr)?)?;
    let stop = AtomicBool::new(false);
    let ledger = std::thread::scope(|scope| -> Result<Ledger> {
        let mut threads = Vec::new();
        for n in 0..WRITERS {
            for topic in TOPICS {
                let name = format!("{topic}-{n}");
                let writer = Writer::new(name, &addr, seed.fork(), &stop);
                threads.push(scope.spawn(move || match topic {
                    PLAIN => writer.plain(),
                    IDEMPOTENT => writer.idempotent(),
                    _ => writer.transactional(),
                }));
            }
        }
        let killed = kill(&mut process, kills, &mut seed);
        stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for thread in threads {
            ledger.add(thread.join().expect("a producer panicked")?);
        }
        killed.map(|()| ledger)
    });
    let ledger = ledger.with_context(|| format!("{seed}\n{}", process.log_tail()))?;
    ensure!(
        ledger.acknowledged.len() > 100,
        "only {} batches were acknowledged: the test shows nothing",
        ledger.acknowledged.len()
    );
    let checked = check(&ledger, &addr);
    checked.with_context(|| format!("{seed}\n{}", process.log_tail()))?;
    process.stop()?;
    let folder = process.folder().join("data");
    let verified = Command::new(env!("CARGO_BIN_EXE_outbox"))
        .args(["log", "verify", "--dir"])
        .arg(&folder)
        .output()?;
    ensure!(verified.status.success(), "{verified:?} ({seed})");
    eprintln!(
        "{kills} kills, {} batches acknowledged, {} without an answer, {} transactions: all as told",
        ledger.acknowledged.len(),
        ledger.unanswered.len(),
        ledger.transactions.len()
    );
    Ok(())
}

/// Kills the broker and starts it again. The random length of its life is the instant of the kill.
fn kill(process: &mut Process, kills: u32, seed: &mut Seed) -> Result<()> {
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(seed.random_range(0..500)));
        process.kill()?;
        start(process)?;
    }
    Ok(())
}

fn start(process: &mut Process) -> Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outbox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUTBOX_") {
            command.env_remove(name);
        }
    }
    command.args([
        "broker",
        "--listen",
        &process.address(),
        "--data-dir",
        "data",
    ]);
    process.spawn(command, STARTED_WITHIN)
}

fn create_topics(wire: &mut Wire) -> Result<()> {
    let small = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("segment.bytes"))
        .with_value(Some(StrBytes::from_static_str("1048576")));
    let topics = TOPICS.map(|name| {
        CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(PARTITIONS)
            .with_replication_factor(1)
            .with_configs(vec![small.clone()])
    });
    let request = CreateTopicsRequest::default()
        .with_topics(topics.into())
        .with_timeout_ms(30_000);
    let answer = wire.call(5, &request)?;
    let refused = answer.topics.iter().find(|t| t.error_code != 0);
    ensure!(refused.is_none(), "{refused:?}");
    Ok(())
}

fn check(ledger: &Ledger, addr: &str) -> Result<()> {
    let mut wire = Wire::connect(addr)?;
    let places = TOPICS
        .iter()
        .flat_map(|&topic| (0..PARTITIONS).map(move |partition| (topic, partition)));
    let (mut all, mut committed) = (BTreeMap::new(), BTreeMap::<Place, Partition>::new());
    for place in places {
        all.insert(place, read(&mut wire, place, ALL)?);
        if place.0 == TRANSACTIONAL {
            committed.insert(place, read(&mut wire, place, COMMITTED)?);
        }
    }
    ledger.check_all(&all)?;
    ledger.check_committed(&committed)
}
