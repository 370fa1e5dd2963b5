//! `cargo xtask test`: everything that must hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{Ran, build, cargo, program, root, run_tests, step};
use crate::fuzz;
use crate::setup;
use crate::totals::Totals;

/// Program of the tests package that runs a command with a PostgreSQL server at hand.
const WITH_POSTGRES: &str = "with_postgres";
/// Its exit status when that server cannot be had.
const UNAVAILABLE: i32 = 69;
/// Test binaries that run once more on the newest PostgreSQL, and on any that is asked for.
const OF_STORE: [&str; 2] = ["store", "postgres"];
/// Seconds for each fuzz target beside the tests.
const FUZZ_SECONDS: u32 = 10;
/// What `with_postgres` calls the newest PostgreSQL that is supported.
const NEWEST: &str = "newest";

/// Format, lints, docs, all tests, the store's tests again on the newest PostgreSQL, and each fuzz
/// target for a few seconds.
///
/// # Errors
/// When a step could not be started; `false` when one failed.
pub fn everything() -> Result<bool> {
    setup::provide()?;
    let mut passed = step("format", &mut cargo(["fmt", "--all", "--check"]))?;
    passed &= step(
        "format of the fuzz targets",
        &mut cargo(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
    )?;
    passed &= step(
        "lints",
        &mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    let mut docs = cargo(["doc", "--workspace", "--no-deps"]);
    passed &= step("docs", docs.env("RUSTDOCFLAGS", "-D warnings"))?;
    let Some(with_postgres) = build_tests()? else {
        return report(Totals::default(), false);
    };
    let all = run_tests(
        "tests",
        Command::new(&with_postgres)
            .arg(program())
            .args(["test", "--workspace", "--no-fail-fast"])
            .current_dir(root()),
    )?;
    passed &= all.code == Some(0);
    let mut totals = all.totals;
    let newest = store_on(NEWEST, &with_postgres)?;
    if newest.code == Some(UNAVAILABLE) && newest.totals == Totals::default() {
        eprintln!(
            "xtask: NOT TESTED on the newest PostgreSQL: it cannot be had here (see above); the \
             tests ran on this machine's own version only"
        );
    } else {
        passed &= newest.code == Some(0);
        totals += newest.totals;
    }
    let fuzzed = fuzz::run(None, FUZZ_SECONDS)?;
    passed &= fuzzed.is_some_and(|fuzzed| fuzzed.failed == 0);
    totals += fuzzed.unwrap_or_default();
    report(totals, passed)
}

/// One suite: a test binary such as `cli`, or a package such as `core`. On the machine's own
/// PostgreSQL, or on that of another `major` version.
pub fn suite(name: &str, major: Option<&str>) -> Result<bool> {
    setup::provide()?;
    let selection = select(name)?;
    let Some(with_postgres) = build_tests()? else {
        return report(Totals::default(), false);
    };
    let (what, server) = match major {
        None => (format!("tests of {name}"), vec![]),
        Some(major) => (
            format!("tests of {name} on PostgreSQL {major}"),
            vec!["--major", major],
        ),
    };
    let ran = run_tests(
        &what,
        Command::new(&with_postgres)
            .args(server)
            .arg(program())
            .args(["test", "--no-fail-fast"])
            .args(selection)
            .current_dir(root()),
    )?;
    report(ran.totals, ran.code == Some(0))
}

/// The store's suites on another `major` version of PostgreSQL.
pub fn on_major(major: &str) -> Result<bool> {
    setup::provide()?;
    let Some(with_postgres) = build_tests()? else {
        return report(Totals::default(), false);
    };
    let ran = store_on(major, &with_postgres)?;
    report(ran.totals, ran.code == Some(0))
}

/// Everything is built once, by the same arguments as the runs; answers `with_postgres`.
fn build_tests() -> Result<Option<PathBuf>> {
    build(
        "build the tests",
        &["test", "--workspace", "--no-run"],
        WITH_POSTGRES,
    )
}

/// Runs the store's suites on PostgreSQL `major`. [`UNAVAILABLE`] says that it cannot be had here.
fn store_on(major: &str, with_postgres: &Path) -> Result<Ran> {
    let known = targets()?.tests;
    let suites: Vec<&str> = OF_STORE
        .into_iter()
        .filter(|name| known.contains(*name))
        .collect();
    let selection = suites.iter().flat_map(|name| ["--test", name]);
    run_tests(
        &format!("tests of the store on PostgreSQL {major}"),
        Command::new(with_postgres)
            .args(["--major", major])
            .arg(program())
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(selection)
            .current_dir(root()),
    )
}

/// The runner's own summary, last and alone on its line.
#[allow(
    clippy::print_stdout,
    reason = "the summary is what this program is for"
)]
pub fn report(totals: Totals, passed: bool) -> Result<bool> {
    println!("{totals}");
    if !passed {
        eprintln!("xtask: FAILED");
    }
    Ok(passed)
}

/// What cargo can test in this workspace.
struct Targets {
    packages: BTreeSet<String>,
    tests: BTreeSet<String>,
}

fn select(name: &str) -> Result<Vec<String>> {
    let targets = targets()?;
    if targets.tests.contains(name) {
        return Ok(["--workspace", "--test", name].map(str::to_owned).to_vec());
    }
    for package in [name.to_owned(), format!("outbox-{name}")] {
        if targets.packages.contains(&package) {
            return Ok(vec!["-p".to_owned(), package]);
        }
    }
    let known: Vec<&str> = targets
        .tests
        .iter()
        .chain(&targets.packages)
        .map(String::as_str)
        .collect();
    bail!(
        "there is no suite {name:?}; there are: {}",
        known.join(", ")
    )
}

fn targets() -> Result<Targets> {
    let output = cargo(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("failed to run cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("failed to read cargo metadata")?;
    let mut found = Targets {
        packages: BTreeSet::new(),
        tests: BTreeSet::new(),
    };
    for package in metadata["packages"].as_array().into_iter().flatten() {
        found
            .packages
            .extend(package["name"].as_str().map(str::to_owned));
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] == "test" {
                found
                    .tests
                    .extend(target["name"].as_str().map(str::to_owned));
            }
        }
    }
    Ok(found)
}
