//! A driver as a process: commands in, events out.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for an event that must come, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A running driver; killed when this is dropped.
pub struct Driver {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    complaints: Arc<Mutex<String>>,
}

impl Driver {
    /// Starts `command`; its events go to `events`, each under the number `id`.
    pub fn start(
        name: impl Into<String>,
        mut command: Command,
        id: usize,
        events: Sender<(usize, Value)>,
    ) -> Self {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if events.send((id, event)).is_err() {
                    return;
                }
            }
            // The last event of each driver, however it ended.
            let _ = events.send((id, Value::Null));
        });
        let complaints = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let kept = Arc::clone(&complaints);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..length]);
                kept.lock().expect("not poisoned").push_str(&text);
            }
        });
        Self {
            input: child.stdin.take(),
            name,
            child,
            complaints,
        }
    }

    /// Sends one command.
    pub fn tell(&mut self, command: &Value) {
        let input = self.input.as_mut().expect("not finished yet");
        if let Err(error) = writeln!(input, "{command}") {
            panic!(
                "{} takes no command: {error}\n{}",
                self.name,
                self.complaints()
            );
        }
    }

    /// Asks it to finish: its input ends.
    pub fn finish(&mut self) {
        self.input = None;
    }

    /// Waits until it has ended well.
    pub fn ended_well(&mut self) {
        self.finish();
        let status = self.child.wait().expect("waited for");
        assert!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            self.complaints()
        );
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// SIGTERM, and the wait for its end. Its input ends too: some look up from it only then.
    pub fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signalled");
        self.input = None;
        self.child.wait().expect("reaped");
    }

    /// What it wrote to standard error.
    pub fn complaints(&self) -> String {
        self.complaints.lock().expect("not poisoned").clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "{} wrote to standard error:\n{}",
                self.name,
                self.complaints()
            );
        }
    }
}

/// The next event of any driver; panics when none comes in time.
pub fn next(events: &Receiver<(usize, Value)>, waiting_for: &str) -> (usize, Value) {
    events
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("within {PATIENCE:?} there was not {waiting_for}"))
}

/// Tries again and again until `reached`; panics when it takes too long.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(
            started.elapsed() < PATIENCE,
            "within {PATIENCE:?} there was not {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
