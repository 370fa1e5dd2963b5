//! `cargo xtask bench NAME`: the benchmarks set up what they need themselves.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{build, root, step};
use crate::setup;

/// The benchmarks, and beside them the command and the node, which some of them run.
const BUILD: [&str; 9] = [
    "build",
    "--release",
    "-p",
    "outbox-bench",
    "-p",
    "outbox-cli",
    "-p",
    "outbox-tests",
    "--bins",
];

/// Runs one benchmark in release mode; its last line is one JSON object.
pub fn run(name: &str, rest: &[&str]) -> Result<bool> {
    if name == "broker" {
        setup::provide_librdkafka()?;
    }
    // Not by `cargo run`: it would select other features, and build everything again.
    let Some(program) = build("build in release mode", &BUILD, "outbox-bench")? else {
        return Ok(false);
    };
    let mut bench = Command::new(program);
    step(
        &format!("bench {name}"),
        bench.arg(name).args(rest).current_dir(root()),
    )
}
