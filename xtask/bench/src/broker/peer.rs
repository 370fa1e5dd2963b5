//! The brokers that are compared, each a process of its own, pinned to one core.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use outbox_tests::kafka::{Jars, Kafka, Process};

use super::wire;
use crate::probe::cpu_seconds;

/// The core of the broker.
pub const BROKER_CORE: usize = 1;
/// The core of the client.
pub const CLIENT_CORE: usize = 0;

/// Longest wait for a broker to listen.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads and acknowledges, keeps nothing: the client's ceiling.
    Null,
    /// Ours: an acknowledgement means that it is on disk.
    Outbox,
    /// Apache Kafka with `flush.messages=1`: the same promise.
    KafkaFsynced,
    /// Apache Kafka as it comes: acknowledged from the page cache.
    KafkaDefaults,
}

impl Kind {
    /// As it is called in the result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Outbox => "outbox",
            Self::KafkaFsynced => "kafka_fsynced",
            Self::KafkaDefaults => "kafka_defaults",
        }
    }
}

/// A broker that runs. It is killed, and its files go, when this is dropped.
pub struct Peer {
    /// Which one.
    pub kind: Kind,
    server: Server,
}

enum Server {
    Own(Process),
    Kafka(Kafka),
}

impl Peer {
    /// Starts a broker on an empty folder.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        let server = match kind {
            Kind::Null | Kind::Outbox => Server::Own(Process::empty(kind.name())?),
            Kind::KafkaFsynced => start_kafka(&[("log.flush.interval.messages", "1")])?,
            Kind::KafkaDefaults => start_kafka(&[])?,
        };
        let mut peer = Self { kind, server };
        if matches!(peer.server, Server::Own(_)) {
            peer.restart()?;
        }
        Ok(peer)
    }

    /// Starts one of ours again on its folder; answers how long it took until it served.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        let Server::Own(process) = &mut self.server else {
            bail!("{} is not started again", self.kind.name())
        };
        let started = Instant::now();
        let mut command = pinned(BROKER_CORE);
        match self.kind {
            Kind::Null => {
                let port = process.address().split_off("127.0.0.1:".len());
                command
                    .arg(std::env::current_exe()?)
                    .args(["null-broker", &port]);
            }
            _ => {
                command.arg(outbox()?).arg("broker");
                command.arg("--data-dir").arg(process.folder().join("data"));
                command.args(["--listen", &process.address()]);
            }
        }
        process.spawn(command, READY_WITHIN)?;
        Ok(started.elapsed())
    }

    /// `kill -9` of one of ours.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Own(process) => process.kill(),
            Server::Kafka(_) => bail!("Kafka is not killed"),
        }
    }

    /// For `bootstrap.servers`.
    pub fn address(&self) -> String {
        match &self.server {
            Server::Own(process) => process.address(),
            Server::Kafka(kafka) => kafka.bootstrap(),
        }
    }

    /// Where the broker's files lie.
    pub fn folder(&self) -> &Path {
        match &self.server {
            Server::Own(process) => process.folder(),
            Server::Kafka(kafka) => kafka.folder(),
        }
    }

    /// Creates a topic, and waits until it can be written.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        wire::create_topic(&self.address(), name, partitions)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let pid = match &self.server {
            Server::Own(process) => process.pid(),
            Server::Kafka(kafka) => kafka.pid(),
        };
        pid.context("the broker does not run")
    }

    /// CPU time used so far, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(cpu_seconds(&[self.pid()?]))
    }

    /// A line of the broker's `/proc/…/status` in MiB: `VmRSS` is what it has now, `VmHWM` the
    /// most it ever had.
    pub fn memory_mib(&self, line: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let kib: f64 = status
            .lines()
            .find_map(|l| {
                l.strip_prefix(line)?
                    .strip_prefix(':')?
                    .split_whitespace()
                    .next()
            })
            .with_context(|| format!("no {line} in the process's status"))?
            .parse()?;
        Ok(kib / 1024.0)
    }
}

/// Starts a node on the broker's core.
fn start_kafka(settings: &[(&str, &str)]) -> anyhow::Result<Server> {
    let mut all = vec![("auto.create.topics.enable", "false")];
    all.extend(settings);
    let core = Some(BROKER_CORE);
    Ok(Server::Kafka(Kafka::start_on(core, &Jars::fetch()?, &all)?))
}

/// A command that will run on `core` alone.
pub fn pinned(core: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]);
    command
}

/// The command, which `cargo xtask bench` has built beside this one.
fn outbox() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("outbox");
    ensure!(
        path.exists(),
        "{} is missing: run cargo xtask bench",
        path.display()
    );
    Ok(path)
}
