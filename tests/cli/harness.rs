//! Runs the binary and reads what it says.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What one run said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts the exit status, showing everything when it is another one.
    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts what the error says.
    #[track_caller]
    pub fn complained(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON document ({e}): {self:#?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// A folder to run in, with no configuration of whoever runs the tests.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and answers its name.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path().join(name), content).expect("written");
        name.to_owned()
    }

    /// The command, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outbox"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTBOX_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments)
            .output()
            .expect("the binary runs")
            .into()
    }

    /// Runs the command to its end with variables set.
    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        command
            .envs(variables.iter().copied())
            .output()
            .expect("the binary runs")
            .into()
    }

    /// Starts the command.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Running(Some(child.expect("the binary starts")))
    }
    /// Starts the command; what it logs goes into a file of the place.
    pub fn start_logging(&self, arguments: &[&str], file: &str) -> Running {
        let log = std::fs::File::create(self.path().join(file)).expect("a file");
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(log).spawn();
        Running(Some(child.expect("the binary starts")))
    }
}

/// A started command, killed when the test ends.
pub struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended yet")
    }

    /// Asks it to stop, and waits for its end.
    pub fn terminate(mut self) -> Ran {
        let id = i32::try_from(self.child().id()).expect("a process id");
        let process = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("signalled");
        self.output()
    }

    /// Kills it, as `kill -9`.
    pub fn kill(mut self) {
        self.child().kill().expect("killed");
        self.child().wait().expect("reaped");
        self.0 = None;
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child().try_wait().expect("a status").is_none()
    }

    /// Waits for its end.
    pub fn output(mut self) -> Ran {
        let child = self.0.take().expect("not ended yet");
        child.wait_with_output().expect("output").into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks until `look` answers, at most for [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain: {what}"
        );
        std::thread::yield_now();
    }
}
