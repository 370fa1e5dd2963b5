//! Nodes as child processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use outbox_tests::node::LEASE_TTL;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a node may take to stop: the relay's grace, and a little for the machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(11);

/// A running node; killed when dropped.
pub struct Node(Child);

impl Node {
    /// Starts a node.
    pub fn start(store: &str, log: &Path, roles: &str) -> anyhow::Result<Self> {
        Self::start_with(store, log, roles, LEASE_TTL)
    }

    /// As [`Node::start`], with another lease TTL.
    pub fn start_with(
        store: &str,
        log: &Path,
        roles: &str,
        lease_ttl: Duration,
    ) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_node"))
            .args(["--store", store, "--roles", roles, "--lease-ttl-ms"])
            .arg(lease_ttl.as_millis().to_string())
            .arg("--log")
            .arg(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start a node")?;
        Ok(Self(child))
    }

    /// `kill -9`; fails when the node had already ended, for then it did not survive by itself.
    pub async fn kill9(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("a node ended by itself: {status}");
        }
        Ok(self.0.kill().await?)
    }

    /// SIGSTOP: it stands still, with its connections and locks, until [`Node::go_on`].
    pub fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.0.id().context("a node ended by itself")?;
        let pid = Pid::from_raw(id.cast_signed()).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGTERM, and a clean exit in time.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let Ok(status) = timeout(STOPPED_WITHIN, self.0.wait()).await else {
            bail!("a node did not stop in {STOPPED_WITHIN:?}");
        };
        let status = status?;
        ensure!(status.success(), "a node stopped with {status}");
        Ok(())
    }
}
