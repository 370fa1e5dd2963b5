//! The server under test, and names that no other test uses.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outbox_tests::kafka::{Jars, Kafka, Process};

/// `apache` runs the suite against Apache Kafka instead: that proves that what the tests expect
/// is what Kafka does.
const SERVER_VARIABLE: &str = "OUTBOX_TEST_KAFKA";

/// How many times as many kills as in a short run.
const ROUNDS_VARIABLE: &str = "OUTBOX_TEST_KAFKA_ROUNDS";

/// Longest start of our own broker.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// A broker on loopback.
pub struct Server(Kind);

enum Kind {
    Outbox(Process),
    /// One for all tests of this binary: it takes seconds to start.
    Apache(&'static Kafka),
}

impl Server {
    /// A broker to test: our own binary with an empty data folder.
    pub fn start() -> Self {
        match std::env::var(SERVER_VARIABLE).as_deref() {
            Err(_) | Ok("outbox") => Self::outbox(),
            Ok("apache") => Self(Kind::Apache(apache())),
            Ok(other) => panic!("{SERVER_VARIABLE} is {other:?}; it may be outbox or apache"),
        }
    }

    fn outbox() -> Self {
        let process = Process::empty("outbox-broker").expect("a folder and a port");
        let mut server = Self(Kind::Outbox(process));
        server.spawn();
        server
    }

    fn spawn(&mut self) {
        let Kind::Outbox(process) = &mut self.0 else {
            panic!("only our own broker is killed and started again");
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_outbox"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTBOX_") {
                command.env_remove(name);
            }
        }
        command
            .arg("broker")
            .args(["--listen", &process.address()])
            .args(["--data-dir", "data"]);
        process.spawn(command, STARTED_WITHIN).expect("it starts");
    }

    /// Whether this is our own broker, which a test may kill.
    pub fn is_ours(&self) -> bool {
        matches!(self.0, Kind::Outbox(_))
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> String {
        match &self.0 {
            Kind::Outbox(process) => process.address(),
            Kind::Apache(kafka) => kafka.bootstrap(),
        }
    }

    /// `kill -9`, and a start on the same folder and port.
    pub fn crash(&mut self) {
        if let Kind::Outbox(process) = &mut self.0 {
            process.kill().expect("killed");
        }
        self.spawn();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let (Kind::Outbox(process), true) = (&self.0, std::thread::panicking()) {
            eprintln!("the end of the broker's log:\n{}", process.log_tail());
        }
    }
}

fn apache() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| {
        let jars = Jars::fetch().expect("Apache's jars");
        Kafka::start(&jars, &[("auto.create.topics.enable", "true")]).expect("Kafka starts")
    })
}

/// 1 by default; more in a long run.
pub fn rounds() -> usize {
    let given = std::env::var(ROUNDS_VARIABLE);
    given.map_or(1, |given| given.parse().expect("a number of rounds"))
}

/// `prefix` with a number that no other test has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
