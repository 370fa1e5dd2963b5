//! Running cargo, the one that runs us.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::totals::Totals;

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// `cargo ARGUMENTS` in the workspace.
pub fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(root());
    command
}

/// The cargo that runs us, so that a chosen toolchain stays chosen.
pub fn program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Runs one step to its end, and says how long it took.
///
/// # Errors
/// When the program could not be started; a step that ran and failed is `false`.
pub fn step(what: &str, command: &mut Command) -> Result<bool> {
    eprintln!("xtask: {what}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("failed to run {command:?}"))?;
    let seconds = started.elapsed().as_secs_f64();
    match status.success() {
        true => eprintln!("xtask: {what}: ok ({seconds:.0} s)"),
        false => eprintln!("xtask: {what}: FAILED ({status}, {seconds:.0} s)"),
    }
    Ok(status.success())
}

/// How a run of the tests ended.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Exit status of the command; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What its tests said.
    pub totals: Totals,
}

/// Runs tests, passing their output on while adding up their results.
pub fn run_tests(what: &str, command: &mut Command) -> Result<Ran> {
    eprintln!("xtask: {what}");
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {command:?}"))?;
    let Some(stdout) = child.stdout.take() else {
        bail!("the tests have no output")
    };
    let mut totals = Totals::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let mut line = line?;
        totals.add_line(&String::from_utf8_lossy(&line));
        line.push(b'\n');
        std::io::stdout().write_all(&line)?;
    }
    let status = child.wait()?;
    eprintln!(
        "xtask: {what}: {status}, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(Ran {
        code: status.code(),
        totals,
    })
}

/// Builds, and answers where the program `name` is; `None` when the build failed.
pub fn build(what: &str, arguments: &[&str], name: &str) -> Result<Option<PathBuf>> {
    eprintln!("xtask: {what}");
    let started = Instant::now();
    let mut command = cargo(arguments);
    let mut child = command
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run cargo")?;
    let Some(stdout) = child.stdout.take() else {
        bail!("cargo has no output")
    };
    let mut found = None;
    for line in BufReader::new(stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?).unwrap_or_default();
        let is_it = message["target"]["name"] == name && message["profile"]["test"] == false;
        if let (true, Some(path)) = (is_it, message["executable"].as_str()) {
            found = Some(PathBuf::from(path));
        }
    }
    if !child.wait()?.success() {
        eprintln!("xtask: {what}: FAILED");
        return Ok(None);
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("xtask: {what}: ok ({seconds:.0} s)");
    let found = found.with_context(|| format!("cargo did not build the program {name}"))?;
    Ok(Some(found))
}
