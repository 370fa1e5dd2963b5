//! `cargo xtask bench NAME`: the benchmarks build and set up what they need themselves.

use anyhow::Result;

use crate::cargo::{cargo, step};

/// Runs one benchmark in release mode; its last line is one JSON object.
pub fn run(name: &str, rest: &[&str]) -> Result<bool> {
    let build = [
        "build",
        "--release",
        "-p",
        "outbox-bench",
        "-p",
        "outbox-cli",
    ];
    if !step("build in release mode", &mut cargo(build))? {
        return Ok(false);
    }
    let mut run = cargo([
        "run",
        "--quiet",
        "--release",
        "-p",
        "outbox-bench",
        "--",
        name,
    ]);
    step(&format!("bench {name}"), run.args(rest))
}
