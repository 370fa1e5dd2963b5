//! librdkafka's `rdkafka_performance`, pinned to the client's core.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use outbox_tests::librdkafka::Librdkafka;

use super::peer::{CLIENT_CORE, Peer, pinned};

/// Messages that a producer may hold; at 1 KiB each below a third of `BUFFER_KIB`.
const BUFFER_MESSAGES: u32 = 500_000;
/// KiB that a producer may hold.
const BUFFER_KIB: u32 = 2_000_000;

/// The client program.
#[derive(Debug)]
pub struct Client {
    program: PathBuf,
}

/// What is produced, and how.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Bytes of a message.
    pub size: u32,
    /// `name=value` of librdkafka's configuration, on top of `acks=all`. The load generator's own
    /// linger of a second is set back to librdkafka's default of 5 ms.
    pub settings: &'a [&'a str],
}

/// What one run of the client saw.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Messages acknowledged, or consumed.
    pub messages: u64,
    /// From the first message to the last one's acknowledgement.
    pub seconds: f64,
    /// CPU time of the broker meanwhile.
    pub broker_cpu: f64,
}

impl Ran {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// The broker's CPU time for each message, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.broker_cpu * 1e6 / self.messages as f64
    }
}

impl Client {
    /// Builds it, unless that was done before.
    pub fn build() -> anyhow::Result<Self> {
        let program = Librdkafka::build()?.performance();
        Ok(Self { program })
    }

    /// Produces `count` messages and waits for their acknowledgements.
    ///
    /// # Errors
    /// When one of them failed.
    pub fn produce(&self, peer: &Peer, load: &Load<'_>, count: u64) -> anyhow::Result<Ran> {
        let mut command = self.producer(peer, load, count);
        let before = peer.cpu_seconds()?;
        let said = output(&mut command)?;
        let ran = Ran {
            messages: number_before(&said, " delivered (")?,
            seconds: number_before(&said, "ms: ")? as f64 / 1e3,
            broker_cpu: peer.cpu_seconds()? - before,
        };
        ensure!(
            ran.messages == count,
            "{} of {count} messages were acknowledged by {}:\n{said}",
            ran.messages,
            peer.kind.name()
        );
        Ok(ran)
    }

    /// The command that [`Self::produce`] runs.
    pub fn producer(&self, peer: &Peer, load: &Load<'_>, count: u64) -> Command {
        let mut command = self.command(peer, load.topic);
        command
            .args(["-P", "-a", "-1", "-s", &load.size.to_string()])
            .args(["-c", &count.to_string()])
            .args(["-X", "linger.ms=5"])
            .args([
                "-X",
                &format!("queue.buffering.max.messages={BUFFER_MESSAGES}"),
            ])
            .args(["-X", &format!("queue.buffering.max.kbytes={BUFFER_KIB}")]);
        for setting in load.settings {
            command.args(["-X", setting]);
        }
        command
    }

    /// Reads `count` messages of a topic from its beginning.
    ///
    /// # Errors
    /// When they are not all there.
    pub fn consume(
        &self,
        peer: &Peer,
        topic: &str,
        partitions: i32,
        count: u64,
    ) -> anyhow::Result<Ran> {
        let mut command = self.consumer(peer, topic, partitions, count);
        let before = peer.cpu_seconds()?;
        let said = output(&mut command)?;
        Ok(Ran {
            messages: number_before(&said, " messages (")?,
            seconds: number_before(&said, "ms: ")? as f64 / 1e3,
            broker_cpu: peer.cpu_seconds()? - before,
        })
    }

    /// The command that [`Self::consume`] runs.
    pub fn consumer(&self, peer: &Peer, topic: &str, partitions: i32, count: u64) -> Command {
        let mut command = self.command(peer, topic);
        command.args(["-C", "-o", "beginning", "-c", &count.to_string()]);
        for partition in 0..partitions {
            command.args(["-p", &partition.to_string()]);
        }
        command
    }

    fn command(&self, peer: &Peer, topic: &str) -> Command {
        let mut command = pinned(CLIENT_CORE);
        command.arg(Path::new(&self.program));
        command.args(["-b", &peer.address(), "-t", topic, "-q"]);
        command
    }
}

/// Runs to the end; answers what it printed. Its exit status says nothing: it counts one message
/// that was acknowledged in the last moment as missing. What counts is the summary.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.contains(" msgs/s "),
        "{command:?} gave up: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// The number in front of the last `mark`.
fn number_before(said: &str, mark: &str) -> anyhow::Result<u64> {
    let head = said
        .rsplit_once(mark)
        .with_context(|| format!("the client did not say {mark:?}:\n{said}"))?
        .0;
    let digits = head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    Ok(head[digits..].parse()?)
}
