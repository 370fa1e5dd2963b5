//! A PostgreSQL server as a child process in a temporary folder.
//!
//! PostgreSQL refuses to run as root, so root starts it as the user `postgres` or `nobody`.
//! The server must die with whoever started it, even after `kill -9`: a small shell, the reaper,
//! holds the reading end of a pipe whose writing end only we hold; when we are gone it stops the
//! server and removes the folder.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Binaries;

/// What the reaper does once its standard input ends. `$1` is the server's folder. The working
/// folder of the process is compared, so that a pid used again is never hit.
const REAPER: &str = r#"
trap '' INT TERM HUP
while read -r line; do :; done
if read -r pid 2>/dev/null < "$1/data/postmaster.pid" \
    && { [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; }; then
  kill -QUIT "$pid"
  for tick in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// How a stopped server may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Checkpoint and exit, as an operator would.
    Fast,
    /// No checkpoint: it recovers from its WAL at the next start, but leaves nothing running.
    Immediate,
    /// `kill -9`.
    Kill,
}

/// One server: its folder, its port and, while it runs, its process.
#[derive(Debug)]
pub(super) struct Process {
    binaries: Binaries,
    settings: Vec<String>,
    pub(super) port: u16,
    child: Option<Child>,
    reaper: Child,
    folder: TempDir,
}

impl Process {
    /// An initialised data folder, not yet started.
    pub(super) fn initialise(binaries: Binaries, settings: Vec<String>) -> Result<Self> {
        let process = Self::empty(binaries, settings)?;
        let mut initdb = process.command("initdb");
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(process.data());
        run(&mut initdb)?;
        Ok(process)
    }

    /// A standby's data folder: a copy of this running server's files, taken between
    /// `pg_backup_start` and `pg_backup_stop`. (`pg_basebackup` does the same, but not every set
    /// of binaries brings it.)
    pub(super) fn standby(&self) -> Result<Self> {
        let mut settings = self.settings.clone();
        settings.push(format!(
            "primary_conninfo=host=127.0.0.1 port={} user=postgres",
            self.port
        ));
        let standby = Self::empty(self.binaries.clone(), settings)?;
        copy_folder(&self.data(), &standby.data(), &|path| {
            let below = path.strip_prefix(self.data()).unwrap_or(path);
            let parent = below.parent().unwrap_or(Path::new(""));
            path.is_file() && (parent.starts_with("pg_wal") || below.starts_with("postmaster.pid"))
        })?;
        Ok(standby)
    }

    /// Writes a file into the data folder, owned by the server's user.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.data().join(name);
        std::fs::write(&path, content)?;
        own(&path)
    }

    fn empty(binaries: Binaries, settings: Vec<String>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("outbox-postgres-")
            .tempdir_in(std::env::temp_dir().canonicalize()?)
            .context("failed to create a folder for a test server")?;
        own(folder.path())?;
        let reaper = reaper(folder.path())?;
        let port = free_port()?;
        Ok(Self {
            binaries,
            settings,
            port,
            child: None,
            reaper,
            folder,
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of the server's programs, run as the user that may run it, in a process group of its
    /// own so that Ctrl-C at the terminal does not reach it before us.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .process_group(0);
        if let Ok(Some(user)) = server_user() {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Starts the server; it accepts connections some tenths of a second later.
    pub(super) fn spawn(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("failed to open the test server's log")?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        command.arg("-p").arg(self.port.to_string());
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("failed to start postgres")?);
        Ok(())
    }

    /// Whether the process ended by itself.
    pub(super) fn has_exited(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Stops the server and waits for its process to be gone.
    pub(super) fn stop(&mut self, how: Stop) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if child.try_wait()?.is_none() {
            let signal = match how {
                Stop::Fast => Signal::INT,
                Stop::Immediate => Signal::QUIT,
                Stop::Kill => Signal::KILL,
            };
            kill_process(Pid::from_child(&child), signal)?;
        }
        child.wait().context("failed to wait for postgres")?;
        Ok(())
    }

    /// Picks another port, after somebody else took ours between finding and using it.
    pub(super) fn change_port(&mut self) -> Result<()> {
        self.port = free_port()?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }

    /// The last lines of the server's log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure here leaves the rest to the reaper, which runs as soon as its input ends.
        let _ = self.stop(Stop::Immediate);
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The user the server runs as: `None` for our own, when we are not root.
pub(super) fn server_user() -> Result<Option<ServerUser>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("failed to read /etc/passwd")?;
    let find = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?;
        Some(ServerUser {
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
        })
    };
    match find("postgres").or_else(|| find("nobody")) {
        Some(user) => Ok(Some(user)),
        None => bail!("postgres refuses to run as root, and there is no user postgres or nobody"),
    }
}

/// Gives `path` to the user the server runs as.
fn own(path: &Path) -> Result<()> {
    if let Some(user) = server_user()? {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Copies a folder of a running server, but for the files that `skip` names. A file that is gone
/// before it was copied is none that recovery needs.
fn copy_folder(from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    own(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if skip(&path) {
            continue;
        }
        if path.is_dir() {
            copy_folder(&path, &target, skip)?;
            continue;
        }
        match std::fs::copy(&path, &target) {
            Ok(_) => own(&target)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn reaper(folder: &Path) -> Result<Child> {
    Command::new("sh")
        .args(["-c", REAPER, "reaper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("failed to start the shell that cleans up after a test server")
}

/// A port nobody listens on at this moment.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?;
    Ok(listener.local_addr()?.port())
}

fn run(command: &mut Command) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .output()
        .with_context(|| format!("failed to run {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
