//! `cargo xtask fuzz [TARGET] [--seconds N]`: the fuzz targets, on the toolchain that is there.
//!
//! `fuzz` is laid out for cargo-fuzz, which works on it as well. It is not needed: what its
//! `--sanitizer none` does is a matter of compiler flags, and allocations are bounded by the targets
//! themselves.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo::{cargo, root, step};
use crate::totals::Totals;

/// Every target, with its longest input in bytes.
const TARGETS: [(&str, u32); 4] = [
    ("request", 4_096),
    ("connection", 4_096),
    ("batch", 16_384),
    ("storage", 512),
];

/// Seconds for each target, unless told otherwise.
pub const SECONDS: u32 = 60;

/// What cargo-fuzz builds with, without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// Runs one target, or all, each for `seconds`. What it finds beyond the committed corpus stays in
/// `fuzz/target/found`, and is where the next run begins.
pub fn run(only: Option<&str>, seconds: u32) -> Result<Option<Totals>> {
    let targets: Vec<_> = TARGETS
        .into_iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .collect();
    if targets.is_empty() {
        let names = TARGETS.map(|(name, _)| name).join(", ");
        bail!(
            "no fuzz target {:?}: there are {names}",
            only.unwrap_or_default()
        );
    }
    let host = host()?;
    let mut build = cargo(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    // Named, so that build scripts are not instrumented.
    build.args(["--target", &host, "--target-dir", "fuzz/target"]);
    for (name, _) in &targets {
        build.args(["--bin", name]);
    }
    if !step("build the fuzz targets", build.env("RUSTFLAGS", FLAGS))? {
        return Ok(None);
    }
    let mut totals = Totals::default();
    for (name, longest) in targets {
        let program = root()
            .join("fuzz/target")
            .join(&host)
            .join("release")
            .join(name);
        match fuzz(&program, name, longest, seconds)? {
            true => totals.passed += 1,
            false => totals.failed += 1,
        }
    }
    Ok(Some(totals))
}

/// The platform that is compiled for.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("run rustc")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

fn fuzz(program: &Path, name: &str, longest: u32, seconds: u32) -> Result<bool> {
    eprintln!("xtask: fuzz {name} for {seconds} s");
    let (found, artifacts) = (
        root().join("fuzz/target/found").join(name),
        root().join("fuzz/artifacts").join(name),
    );
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let started = Instant::now();
    let mut child = Command::new(program)
        .arg(&found)
        .arg(root().join("fuzz/corpus").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={longest}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1"])
        .current_dir(root())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let (mut tail, mut executed) = (Vec::new(), None);
    for line in BufReader::new(child.stderr.take().context("no output")?).lines() {
        let line = line?;
        if let Some(units) = line.strip_prefix("stat::number_of_executed_units:") {
            executed = Some(units.trim().to_owned());
        }
        tail.push(line);
    }
    let status = child.wait()?;
    let executed = executed.unwrap_or_else(|| "an unknown number of".to_owned());
    eprintln!(
        "xtask: fuzz {name}: {executed} inputs, {status}, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    if !status.success() {
        let from = tail.len().saturating_sub(60);
        eprintln!("{}", tail[from..].join("\n"));
        eprintln!(
            "xtask: the input is in {}; {} INPUT runs it again",
            artifacts.display(),
            program.display()
        );
    }
    Ok(status.success())
}
