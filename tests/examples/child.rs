//! Examples and tools as child processes, gone when their owner is gone.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long a process may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a build of the examples may take, from nothing, on a small machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(1_200);

/// How long a package manager may take: it downloads.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);

/// A Rust example that runs.
pub struct Example {
    child: Child,
    name: &'static str,
}

impl Example {
    /// Starts the example with these variables; its log goes to the test's output.
    pub async fn start(name: &'static str, variables: &[(&str, &str)]) -> Self {
        let child = Command::new(built().await.join(name))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the example {name}: {error}"));
        Self { child, name }
    }

    /// The rest of the first line of its output that begins with `start`.
    pub async fn line(&mut self, start: &str) -> String {
        let stdout = self.child.stdout.take().expect("asked for once");
        let mut lines = BufReader::new(stdout).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.expect("readable") {
                if let Some(rest) = line.strip_prefix(start) {
                    return rest.to_owned();
                }
            }
            panic!(
                "{} ended without a line that begins with {start:?}",
                self.name
            );
        };
        timeout(PATIENCE, reading).await.expect("it says so soon")
    }

    /// `kill -9`.
    pub async fn kill9(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// SIGTERM; checks that it ends by itself, and well.
    pub async fn stop(mut self) {
        let id = self.child.id().expect("it runs").cast_signed();
        let id = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signalled");
        let ended = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends soon");
        let status = ended.expect("waited for");
        assert!(status.success(), "{} ended with {status}", self.name);
    }
}

/// The folder with the built examples, beside this test's own binary.
async fn built() -> &'static Path {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_init(build).await
}

/// `cargo test -p outbox-tests` alone does not build another package's examples. With `--workspace`
/// they are built with the features of `cargo test --workspace`: there this finds nothing to do.
async fn build() -> PathBuf {
    let profile_dir = profile_dir();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            "--package",
            "outbox-examples",
            "--examples",
            "--target-dir",
        ])
        .arg(profile_dir.parent().expect("it has one"));
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    run(command, "build the examples", BUILD_PATIENCE).await;
    profile_dir.join("examples")
}

/// `target/debug`: this test's binary is in its folder `deps`.
fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors()
        .nth(2)
        .expect("target/debug/deps/…")
        .to_owned()
}

/// A folder under `target` that is kept from run to run, for what package managers bring.
pub fn kept_dir(name: &str) -> PathBuf {
    let target = profile_dir()
        .parent()
        .expect("it has one")
        .join("examples-setup");
    let dir = target.join(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    dir
}

/// The folder of the examples' sources.
pub fn sources() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).to_owned()
}

/// Runs a tool that sets something up.
pub async fn install(command: Command, what: &str) {
    run(command, what, INSTALL_PATIENCE).await;
}

/// Runs a script to its end; answers what it printed.
pub async fn script(command: Command, what: &str) -> String {
    let output = run(command, what, PATIENCE).await;
    String::from_utf8(output.stdout).expect("text")
}

async fn run(mut command: Command, what: &str, patience: Duration) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let running = timeout(patience, command.output());
    let output = match running.await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!(
            "cannot {what}: {:?}: {error}",
            command.as_std().get_program()
        ),
        Err(_) => panic!("cannot {what}: it takes longer than {patience:?}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cannot {what}: {}\n{stderr}",
        output.status
    );
    output
}
