//! Running librdkafka's own tests, each number in a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::{Librdkafka, tools};
use crate::kafka::Jars;

/// Numbers that run at a time. Most tests wait most of the time.
const AT_A_TIME: usize = 4;

/// Longest run of one number; the runner ends most tests that hang long before.
const SECONDS_MAX: u32 = 600;

/// The suite multiplies its own time-outs by this, for machines with few cores.
const TIMEOUT_MULTIPLIER: u32 = 3;

/// Numbers that quick mode would leave out.
const NOT_QUICK: [&str; 1] = ["0082"];

/// What the suite takes the broker for: it leaves out tests of what a release did not have.
const BROKER_VERSION: &str = "3.9.0.0";

/// The state of the broker that a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Topics come into being when a client asks for them.
    Default,
    /// They do not.
    NoAutoCreate,
}

impl Scenario {
    /// All that a single node can be.
    pub const ALL: [Self; 2] = [Self::Default, Self::NoAutoCreate];

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::NoAutoCreate => "noautocreate",
        }
    }
}

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As its authors want it.
    Passed,
    /// The suite left it out: its reason.
    Skipped(String),
    /// The suite's reason, or how its process ended.
    Failed(String),
}

/// The built suite.
#[derive(Debug)]
pub struct Suite {
    library: Librdkafka,
    runner: PathBuf,
    logs: PathBuf,
    tools: PathBuf,
}

impl Suite {
    /// Builds it, unless that was done before. A few of its tests call Apache's tools.
    ///
    /// # Errors
    /// When it does not build.
    pub fn new(library: Librdkafka, jars: &Jars) -> Result<Self> {
        let runner = library.build_tests()?;
        let logs = library.tests().join("logs");
        std::fs::create_dir_all(&logs)?;
        let tools = library.tests().join("kafka");
        tools::lay_out(&tools, jars)?;
        Ok(Self {
            library,
            runner,
            logs,
            tools,
        })
    }

    /// Where each number's output lies.
    pub fn logs(&self) -> &PathBuf {
        &self.logs
    }

    /// The number of each file of tests; manual ones (8000 and above) are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn numbers(&self) -> Result<BTreeSet<String>> {
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(self.library.tests())? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let is_source = name.ends_with(".c") || name.ends_with(".cpp");
            if let Some((number, _)) = name.split_once('-')
                && is_source
                && number.len() == 4
                && number.starts_with('0')
            {
                numbers.insert(number.to_owned());
            }
        }
        Ok(numbers)
    }

    /// Runs `numbers` against the broker at `address`; answers how each of their tests ended that
    /// belongs to the scenario and meets a broker.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn run(
        &self,
        scenario: Scenario,
        address: &str,
        numbers: &[String],
    ) -> Result<BTreeMap<String, Outcome>> {
        let configuration = tempfile::NamedTempFile::new()?;
        std::fs::write(
            &configuration,
            format!(
                "bootstrap.servers={address}\n\
                 test.timeout.multiplier={TIMEOUT_MULTIPLIER}\n"
            ),
        )?;
        let waiting = Mutex::new(numbers.iter());
        let ended = Mutex::new(BTreeMap::new());
        let work = || -> Result<()> {
            loop {
                let Some(number) = lock(&waiting).next() else {
                    return Ok(());
                };
                let mut command = self.command(scenario, number);
                command.env("RDKAFKA_TEST_CONF", configuration.path());
                command.env("BROKERS", address);
                let outcomes = self.run_number(scenario, number, &mut command)?;
                for (name, outcome) in &outcomes {
                    tracing::info!(name, ?outcome);
                }
                lock(&ended).extend(outcomes);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                worker
                    .join()
                    .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
            }
            anyhow::Ok(())
        })?;
        Ok(ended.into_inner().unwrap_or_default())
    }

    fn command(&self, scenario: Scenario, number: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", &SECONDS_MAX.to_string()])
            // A failed test ends in an abort, which would take a buffered summary with it.
            .args(["stdbuf", "-oL"])
            .arg(&self.runner)
            // One at a time, without those that meet no broker.
            .args(["-p1", "-L"]);
        if !NOT_QUICK.contains(&number) {
            command.arg("-Q");
        }
        command
            .current_dir(self.library.tests())
            .env("LD_LIBRARY_PATH", "../src:../src-cpp")
            .env("TESTS", number)
            .env("TEST_SCENARIO", scenario.name())
            .env("TEST_KAFKA_VERSION", BROKER_VERSION)
            .env("KAFKA_PATH", &self.tools)
            // It changes the suite's time-outs and what it runs at a time.
            .env_remove("CI");
        command
    }

    fn run_number(
        &self,
        scenario: Scenario,
        number: &str,
        command: &mut Command,
    ) -> Result<BTreeMap<String, Outcome>> {
        let output = command
            .output()
            .with_context(|| format!("failed to run {command:?}"))?;
        let said = [output.stdout, output.stderr].concat();
        let log = self.logs.join(format!("{number}-{}.log", scenario.name()));
        std::fs::write(log, &said)?;
        let said = String::from_utf8_lossy(&said);
        let mut outcomes = read_summary(&said);
        if !said.contains(SUMMARY) {
            // A process that broke down has no summary: each test that it had begun has failed.
            let reason = format!("the process ended before its summary: {}", output.status);
            let begun = begun(&said);
            ensure!(!begun.is_empty(), "number {number} ran nothing: {said}");
            for name in begun {
                outcomes.insert(name, Outcome::Failed(reason.clone()));
            }
        }
        Ok(outcomes)
    }
}

/// What the suite prints above the summary.
const SUMMARY: &str = " SUMMARY\n";

/// Reads lines such as `| 0001_multiobj | PASSED | 1.234s | reason`, coloured or not.
fn read_summary(said: &str) -> BTreeMap<String, Outcome> {
    let Some((_, summary)) = said.split_once(SUMMARY) else {
        return BTreeMap::new();
    };
    let mut outcomes = BTreeMap::new();
    for line in summary.lines() {
        let line = without_colours(line);
        let fields: Vec<&str> = line.splitn(5, '|').map(str::trim).collect();
        let ["", name, state, _seconds, reason] = fields[..] else {
            continue;
        };
        if name == "<MAIN>" {
            continue;
        }
        let outcome = match state {
            "PASSED" => Outcome::Passed,
            // Without a word: it belongs to the other scenario.
            "SKIPPED" if reason.is_empty() || reason.contains("negative test flags") => continue,
            "SKIPPED" => Outcome::Skipped(reason.to_owned()),
            _ => Outcome::Failed(reason.to_owned()),
        };
        outcomes.insert(name.to_owned(), outcome);
    }
    outcomes
}

/// Tests whose beginning was announced: `[0001_multiobj …] ==== Running test 0001_multiobj ====`.
fn begun(said: &str) -> BTreeSet<String> {
    said.lines()
        .filter_map(|line| {
            line.split_once("= Running test ")?
                .1
                .split_whitespace()
                .next()
        })
        .map(str::to_owned)
        .collect()
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, text)| text));
    }
    plain
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_with_its_colours() {
        let said = "noise | 0001_a | PASSED | 1s |\n\
            TEST 20261126 (bare, scenario default) SUMMARY\n#====#\n\
            |\u{1b}[32m <MAIN>        |     PASSED |   9.000s \u{1b}[0m|\n\
            |\u{1b}[32m 0001_multiobj |     PASSED |   1.000s \u{1b}[0m|\n\
            |\u{1b}[31m 0002_unkpart  |     FAILED |   2.000s \u{1b}[0m|\u{1b}[31m a | b\u{1b}[0m\n\
            |\u{1b}[36m 0003_x        |    SKIPPED |   0.000s \u{1b}[0m|\u{1b}[36m needs 3\u{1b}[0m\n\
            |\u{1b}[36m 0004_conf     |    SKIPPED |   0.000s \u{1b}[0m|\u{1b}[36m Filtered due to \
            negative test flags\u{1b}[0m\n#====#\n";
        let expected = BTreeMap::from([
            ("0001_multiobj".to_owned(), Outcome::Passed),
            (
                "0002_unkpart".to_owned(),
                Outcome::Failed("a | b".to_owned()),
            ),
            ("0003_x".to_owned(), Outcome::Skipped("needs 3".to_owned())),
        ]);
        assert_eq!(read_summary(said), expected);
    }
}
