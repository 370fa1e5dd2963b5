//! `kill -9` of the broker at random instants, under the load of several producers.
//!
//! What the producers were told is kept outside of the broker (`ledger`), and at the end held against
//! all that a reader gets (`reading`, `verdict`).

mod ledger;
mod producer;
mod reading;
mod transactional;
mod verdict;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outbox_broker::client::{Admin, ClientOptions};
use outbox_tests::kafka::Process;
use outbox_tests::seed::Seed;
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{PATIENCE, Place};
use ledger::{KINDS, Kind, Ledger, PARTITIONS, PLACES, TOPICS, Unit};
use producer::Producer;
use verdict::Read;
use wire::Wire;

/// Kills in a run; `OUTBOX_BROKER_KILLS` asks for more.
const KILLS: u64 = 20;
/// Producers of each kind.
const PRODUCERS: u64 = 2;
/// One start in so many is killed before the broker serves.
const STARTS_KILLED: f64 = 0.2;
/// After one kill in so many every byte of the log is checked as it was left.
const VERIFIED: f64 = 0.1;

/// The broker, which dies often.
struct Victim {
    place: Place,
    process: Process,
    up: watch::Sender<bool>,
}

impl Victim {
    fn new() -> Self {
        Self {
            place: Place::new(),
            process: Process::empty("outbox-broker").expect("a folder and a port"),
            up: watch::Sender::new(false),
        }
    }

    fn command(&self) -> std::process::Command {
        let address = self.process.address();
        let arguments = ["broker", "--listen", &address, "--data-dir", "data"];
        self.place.command(&arguments)
    }

    fn start(&mut self) {
        let command = self.command();
        self.process.spawn(command, PATIENCE).expect("it starts");
        self.up.send_replace(true);
    }

    fn kill(&mut self) {
        self.up.send_replace(false);
        self.process.kill().expect("killed");
    }

    /// Every byte of the log, as it stands.
    fn verify(&self, when: &str) {
        let folder = self.process.folder().join("data");
        let folder = folder.to_str().expect("a path in UTF-8");
        let ran = self
            .place
            .run(&["log", "verify", "--json", "--dir", folder]);
        let document = ran.ended_with(0).json();
        let damage = document["damage"].as_array().map(Vec::len);
        assert_eq!(damage, Some(0), "{when}: {document}");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of its log:\n{}", self.process.log_tail());
        }
    }
}

#[test]
fn kill_minus_nine_of_the_broker_breaks_no_promise_to_its_producers() {
    let kills = std::env::var("OUTBOX_BROKER_KILLS");
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let mut seed = Seed::from_environment();
    eprintln!("{seed}");
    let runtime = Runtime::new().expect("a runtime");
    let mut victim = Victim::new();
    victim.start();
    runtime.block_on(create_topics(&victim.process.address()));

    let ledger = Arc::new(Ledger::new());
    let stop = Arc::new(AtomicBool::new(false));
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS * KINDS.len() as u64 {
        let producer = Producer {
            number,
            seed: seed.fork(),
            ledger: ledger.clone(),
            address: victim.process.address(),
            up: victim.up.subscribe(),
            stop: stop.clone(),
            next: 0,
            wire: None,
        };
        let kind = KINDS[number as usize % KINDS.len()];
        producers.spawn_on(producer.run(kind), runtime.handle());
    }
    for kill in 0..kills {
        runtime.block_on(load(&ledger, &mut producers, &mut seed));
        pause(&mut seed, 20_000);
        victim.kill();
        if seed.random_bool(VERIFIED) {
            victim.verify(&format!("after kill {kill} ({seed})"));
        }
        if seed.random_bool(STARTS_KILLED) {
            victim.process.launch(victim.command()).expect("launched");
            pause(&mut seed, 40_000);
            victim.kill();
        }
        victim.start();
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        while let Some(ended) = timeout(PATIENCE, producers.join_next())
            .await
            .expect("the producers end")
        {
            ended.expect("a producer that did not fail");
        }
    });

    let read = runtime.block_on(read(&victim.process.address()));
    let stopped = victim.process.stop().expect("signalled");
    assert!(stopped, "it stops when it is asked to ({seed})");
    victim.verify("at the end");
    judge(kills, &ledger, &read, &seed);
}

async fn create_topics(address: &str) {
    let mut admin = Admin::connect(&ClientOptions::new(address))
        .await
        .expect("an administrator");
    for (topic, flush) in TOPICS {
        // Small segments, so that kills meet what happens between two of them.
        let configs = [("flush", flush), ("segment.bytes", "262144")];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let partitions = Some(PARTITIONS as i32);
        let created = admin.create_topic(topic, partitions, &configs).await;
        created.expect("a topic");
    }
}

/// Lets the broker answer a random number of times.
async fn load(ledger: &Ledger, producers: &mut JoinSet<()>, seed: &mut Seed) {
    let mut settled = ledger.settled();
    let goal = *settled.borrow() + seed.random_range(1..300);
    let answered = settled.wait_for(|settled| *settled >= goal);
    tokio::select! {
        answered = timeout(PATIENCE, answered) => {
            let answered = answered.unwrap_or_else(|_| panic!("nothing is answered ({seed})"));
            answered.expect("the ledger is there");
        }
        Some(ended) = producers.join_next() => {
            ended.unwrap_or_else(|error| panic!("a producer failed: {error} ({seed})"));
            panic!("a producer ended by itself ({seed})");
        }
    }
}

/// The random instant of a kill: up to so many µs from now.
fn pause(seed: &mut Seed, micros: u64) {
    std::thread::sleep(Duration::from_micros(seed.random_range(0..micros)));
}

async fn read(address: &str) -> Read {
    let mut wire = Wire::connect(address).await.expect("a connection");
    let (mut everything, mut committed) = (Vec::new(), Vec::new());
    for place in 0..PLACES {
        everything.push(reading::everything(&mut wire, place).await);
        committed.push(reading::committed(&mut wire, place).await);
    }
    Read {
        everything,
        committed,
    }
}

fn judge(kills: u64, ledger: &Ledger, read: &Read, seed: &Seed) {
    let (units, ids) = ledger.take();
    let broken = verdict::broken(&units, read);
    let first: Vec<_> = broken.iter().take(10).collect();
    assert!(
        broken.is_empty(),
        "{} promises are broken ({seed}): {first:#?}",
        broken.len()
    );
    let unique: HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "a producer id came twice ({seed})");
    eprintln!("{kills} kills, {} answers lost", ledger.lost());
    for kind in KINDS {
        tell(kind, &units, read, kills);
    }
    assert!(ledger.lost() >= kills, "the kills took hardly an answer");
}

/// Says how much of one kind was held against the ledger, and that it was enough to show something.
fn tell(kind: Kind, units: &[Unit], read: &Read, kills: u64) {
    let count = verdict::count(kind, units, read);
    eprintln!("{kind:?}: {count:?}");
    assert!(count.done >= kills, "{kind:?}: {count:?} shows nothing");
    let undone = count.undone > 0;
    assert_eq!(undone, kind == Kind::Transactional, "{kind:?}: {count:?}");
}
