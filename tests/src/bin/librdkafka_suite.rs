//! Runs librdkafka's own test suite against the broker.
//!
//! ```console
//! $ librdkafka_suite                       # everything, against the `outbox` beside this
//! $ librdkafka_suite --listed              # only what must pass
//! $ librdkafka_suite --against kafka 0081  # one number, against Apache Kafka
//! ```
//!
//! `tests/librdkafka/allowlist.txt` names the tests that must pass, and only grows: one of them
//! that does not pass fails the run. A test that is not listed and passes is reported. Each other
//! one must have its reason in `tests/librdkafka/FINDINGS.md`. Tests against librdkafka's mock
//! cluster are left out: they meet no broker.

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use outbox_tests::kafka::{Jars, Kafka, Process};
use outbox_tests::librdkafka::Librdkafka;
use outbox_tests::librdkafka::suite::{Outcome, Scenario, Suite};

/// Partitions of a topic that comes into being by itself: what the suite's own clusters have.
const PARTITIONS: &str = "4";

/// Longest start of the broker.
const READY_WITHIN: Duration = Duration::from_secs(30);

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    let options = Options::read()?;
    let expected = Expected::read()?;
    let jars = Jars::fetch()?;
    let suite = Suite::new(Librdkafka::build()?, &jars)?;
    let mut outcomes = BTreeMap::new();
    for scenario in Scenario::ALL {
        let mut numbers: Vec<String> = suite.numbers()?.into_iter().collect();
        numbers.retain(|number| options.wants(number, &expected));
        let server = Server::start(options.against, scenario, &jars)?;
        let address = server.address();
        outcomes.append(&mut suite.run(scenario, &address, &numbers)?);
    }
    println!("the output of each number is in {}", suite.logs().display());
    Ok(expected.judge(&options, &outcomes))
}

/// What the command line asks for.
struct Options {
    against: Against,
    listed: bool,
    numbers: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Outbox,
    Kafka,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self {
            against: Against::Outbox,
            listed: false,
            numbers: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--listed" => options.listed = true,
                "--against" => match arguments.next().as_deref() {
                    Some("kafka") => options.against = Against::Kafka,
                    Some("outbox") => options.against = Against::Outbox,
                    _ => bail!("--against outbox, or --against kafka"),
                },
                number if !number.starts_with('-') => options.numbers.push(number.to_owned()),
                other => bail!("unknown argument {other:?}"),
            }
        }
        Ok(options)
    }

    fn wants(&self, number: &String, expected: &Expected) -> bool {
        let is_listed = || expected.listed.iter().any(|name| name.starts_with(number));
        (self.numbers.is_empty() || self.numbers.contains(number)) && (!self.listed || is_listed())
    }
}

/// The broker under test.
enum Server {
    Outbox(Process),
    Kafka(Kafka),
}

impl Server {
    fn start(against: Against, scenario: Scenario, jars: &Jars) -> Result<Self> {
        let auto_create = (scenario == Scenario::Default).to_string();
        match against {
            Against::Kafka => {
                let settings = [
                    ("num.partitions", PARTITIONS),
                    ("auto.create.topics.enable", &auto_create),
                ];
                Ok(Self::Kafka(Kafka::start(jars, &settings)?))
            }
            Against::Outbox => {
                let mut process = Process::empty("outbox")?;
                let mut command = Command::new(outbox()?);
                command.args(["broker", "--listen", &process.address()]);
                command.args(["--partitions", PARTITIONS]);
                command.arg("--data-dir").arg(process.folder().join("data"));
                command.env("OUTBOX_BROKER_AUTO_CREATE_TOPICS", &auto_create);
                process.spawn(command, READY_WITHIN)?;
                Ok(Self::Outbox(process))
            }
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Outbox(broker) => broker.address(),
            Self::Kafka(kafka) => kafka.bootstrap(),
        }
    }
}

/// The command, which `cargo xtask test librdkafka` has built beside this one.
fn outbox() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("outbox");
    ensure!(path.exists(), "{} is missing", path.display());
    Ok(path)
}

/// What is committed about the tests.
struct Expected {
    listed: BTreeSet<String>,
    findings: String,
}

impl Expected {
    fn read() -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("librdkafka");
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))
        };
        Ok(Self {
            listed: read("allowlist.txt")?.lines().map(str::to_owned).collect(),
            findings: read("FINDINGS.md")?,
        })
    }

    /// Prints the verdict, and last the counts as a test runner does.
    fn judge(&self, options: &Options, outcomes: &BTreeMap<String, Outcome>) -> ExitCode {
        let (mut passed, mut failed, mut explained) = (0, 0, 0);
        for (name, outcome) in outcomes {
            let is_listed = self.listed.contains(name);
            match outcome {
                Outcome::Passed if is_listed => passed += 1,
                Outcome::Passed => {
                    passed += 1;
                    println!("{name} passes and is not in allowlist.txt: add it");
                }
                other if is_listed => {
                    failed += 1;
                    println!("{name} is in allowlist.txt and does not pass: {other:?}");
                }
                other if !self.findings.contains(&format!("`{name}`")) => {
                    failed += 1;
                    println!("{name} is neither in allowlist.txt nor in FINDINGS.md: {other:?}");
                }
                _ => explained += 1,
            }
        }
        let absent = |name: &&String| {
            !outcomes.contains_key(*name) && options.wants(&name[..4].to_owned(), self)
        };
        for name in self.listed.iter().filter(absent) {
            failed += 1;
            println!("{name} is in allowlist.txt and did not run");
        }
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "test result: {verdict}. {passed} passed; {failed} failed; {explained} ignored; \
             of librdkafka's own tests"
        );
        ExitCode::from(u8::from(failed > 0))
    }
}
