//! Apache Kafka from its published jars, as one KRaft node on loopback.
//!
//! The suite of clients runs against it to prove that its own expectations are Kafka's, and the
//! benchmarks compare with it. It needs Java 17 and Maven; where they or Maven Central cannot be
//! had, [`Jars::fetch`] says so in one sentence.

mod jars;
mod process;

pub use jars::Jars;
pub(crate) use jars::target_folder;
pub use process::{Process, free_port};

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Version of the server, the tools and the Java clients.
pub const KAFKA_VERSION: &str = "4.1.1";

/// Heap and collector of Kafka's own start script.
const JVM: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// What a single node needs, and rebalances without the pause that production wants.
const SINGLE_NODE: [(&str, &str); 14] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    (
        "listener.security.protocol.map",
        "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    ),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("log.initial.task.delay.ms", "500"),
];

/// Longest start on a busy machine.
const STARTED_WITHIN: Duration = Duration::from_secs(120);

/// A running node; killed, and its folder removed, when this is dropped or its owner dies.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
}

impl Kafka {
    /// Starts a node with an empty data folder. `settings` are lines of `server.properties` that
    /// go before the defaults, such as `("flush.messages", "1")` or `("num.partitions", "4")`.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer in time: with the end of its log.
    pub fn start(jars: &Jars, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_on(None, jars, settings)
    }

    /// The same, on one core alone: the virtual machine then sees no more than that.
    ///
    /// # Errors
    /// As [`Self::start`], and when there is no `taskset`.
    pub fn start_on(core: Option<usize>, jars: &Jars, settings: &[(&str, &str)]) -> Result<Self> {
        let mut process = Process::empty("kafka")?;
        let controller = free_port()?;
        let mut lines: Vec<String> = SINGLE_NODE
            .iter()
            .filter(|(name, _)| !settings.iter().any(|(set, _)| set == name))
            .chain(settings)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let address = process.address();
        lines.push(format!("controller.quorum.voters=1@127.0.0.1:{controller}"));
        lines.push(format!(
            "listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}"
        ));
        lines.push(format!("advertised.listeners=PLAINTEXT://{address}"));
        lines.push(format!(
            "log.dirs={}",
            process.folder().join("data").display()
        ));
        let properties = process.folder().join("server.properties");
        std::fs::write(&properties, lines.join("\n"))?;

        let formatted = jars
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"])
            .arg(&properties)
            .output()
            .context("failed to run Kafka's storage tool")?;
        ensure!(
            formatted.status.success(),
            "failed to format Kafka's data folder: {}",
            String::from_utf8_lossy(&formatted.stderr)
        );
        let mut server = match core {
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core.to_string(), "java"]);
                pinned
            }
            None => Command::new("java"),
        };
        server
            .args(JVM)
            .args(jars.arguments("kafka.Kafka"))
            .arg(&properties);
        process.spawn(server, STARTED_WITHIN)?;
        Ok(Self { process })
    }

    /// `host:port` for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.process.address()
    }

    /// The node's folder.
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// The server's process id, for its CPU time and memory.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}
