//! `cargo xtask test librdkafka`: librdkafka's own tests against the broker.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{build, root, run_tests};
use crate::setup;
use crate::test::report;

/// The suite's runner, and beside it the command that is the broker.
const BUILD: [&str; 6] = ["build", "-p", "outbox-cli", "-p", "outbox-tests", "--bins"];

/// Runs all of them, or with `--listed` those that must pass, or some numbers.
///
/// # Errors
/// When something cannot be built or started; `false` when a test that must pass does not.
pub fn run(rest: &[&str]) -> Result<bool> {
    setup::provide_librdkafka()?;
    let Some(suite) = build("build the broker", &BUILD, "librdkafka_suite")? else {
        return Ok(false);
    };
    let mut command = Command::new(suite);
    let ran = run_tests("librdkafka's tests", command.args(rest).current_dir(root()))?;
    report(ran.totals, ran.code == Some(0))
}
