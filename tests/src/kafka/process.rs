//! A server as a child process in a temporary folder, on a port of its own on loopback.
//!
//! It must die with whoever started it, even after `kill -9`: a small shell, the reaper, holds
//! the reading end of a pipe whose writing end only we hold; when we are gone it kills the server
//! and removes the folder.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// `$1` is the server's folder; each line of its input is the pid of a server started there. The
/// working folder of the process is compared, so that a pid used again is never hit.
const REAPER: &str = r#"
trap '' INT TERM HUP
while read -r line; do pid=$line; done
if [ -n "$pid" ] && { [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "$1" ]; }; then
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// How long an asked server may take to end by itself.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at a server that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An ApiVersions request in version 0, without a client id: every Kafka server answers it once
/// it serves.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// One server: its folder, its address and, while it runs, its process.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    port: u16,
    child: Option<Child>,
    reaper: Child,
    folder: TempDir,
}

impl Process {
    /// A folder and a port, nothing started yet. `name` is for messages.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn empty(name: &'static str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("outbox-{name}-"))
            .tempdir_in(std::env::temp_dir().canonicalize()?)
            .context("failed to create a folder for a test server")?;
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("failed to start the shell that cleans up after a test server")?;
        Ok(Self {
            name,
            port: free_port()?,
            child: None,
            reaper,
            folder,
        })
    }

    /// The server's working folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Process id of the running server.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the server and waits until it is ready: it answers an ApiVersions request.
    ///
    /// # Errors
    /// When it ends or is not ready within `patience`: with the end of its log.
    pub fn spawn(&mut self, command: Command, patience: Duration) -> Result<()> {
        self.launch(command)?;
        let started = Instant::now();
        while !self.answers_api_versions().unwrap_or(false) {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            if started.elapsed() > patience {
                bail!(
                    "{} is not ready after {patience:?}:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Starts the server and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, mut command: Command) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        if let Some(reaper) = &mut self.reaper.stdin {
            writeln!(reaper, "{}", child.id())?;
        }
        self.child = Some(child);
        Ok(())
    }

    fn answers_api_versions(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&API_VERSIONS)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        let error = i16::from_be_bytes([answer[8], answer[9]]);
        Ok(error == 0)
    }

    /// `kill -9`; the folder stays.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM; answers whether it ended well, by itself, in time.
    ///
    /// # Errors
    /// When it cannot be signalled or waited for.
    pub fn stop(&mut self) -> Result<bool> {
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let asked = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if asked.elapsed() > STOPPED_WITHIN {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The last lines of the server's log, for an error message.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure here leaves the rest to the reaper, which runs as soon as its input ends.
        let _ = self.kill();
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

/// A port nobody listens on at this moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?;
    Ok(listener.local_addr()?.port())
}
