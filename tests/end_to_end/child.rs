//! Nodes as child processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A running node; killed when dropped.
pub struct Node(Child);

impl Node {
    /// Starts a node.
    pub fn start(store: &str, log: &Path, roles: &str) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_node"))
            .args(["--store", store, "--roles", roles, "--log"])
            .arg(log)
            .stdin(Stdio::null())
            .spawn()
            .context("start a node")?;
        Ok(Self(child))
    }

    /// `kill -9`; fails when the node had already ended, for then it did not survive by itself.
    pub fn kill9(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("a node ended by itself: {status}");
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// SIGTERM, and a clean exit within ten seconds.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let started = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "a node stopped with {status}");
                return Ok(());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(11),
                "a node did not stop in 11 s"
            );
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it is left.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
