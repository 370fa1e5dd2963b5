//! Real events end to end, with ten kills on the way.
//!
//! `BENCH_FLIGHTS` names the file (NDJSON, or `.xz`, which the `xz` command unpacks); without it
//! the slice in `tests/data` is used.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use outbox_tests::flights::Flights;
use outbox_tests::seed::Seed;
use serde_json::{Value, json};

use crate::Run;
use crate::rig::Rig;

const KILLS: u64 = 10;

/// Runs the benchmark.
pub async fn run(run: Run) -> anyhow::Result<Value> {
    let binaries = binaries()?;
    let rig = Rig::start().await?;
    let flights = Flights {
        outbox: binaries.join("outbox"),
        node: binaries.join("node"),
        file: input(rig.dir.path())?,
        url: rig.server.url(&rig.server.create_database().await?),
        dir: rig.dir.path().to_owned(),
        kills: KILLS,
    };
    run.say(format!(
        "events from {}, {KILLS} kills",
        flights.file.display()
    ));
    let mut seed = Seed::from_environment();
    let landed = flights.run(&mut seed).await?;
    for example in &landed.verdict.examples {
        run.say(example);
    }
    Ok(json!({
        "bench": "flights", "events": landed.events,
        "events_per_s": (landed.events as f64 / landed.seconds).round(), "kills": KILLS,
        "lost": landed.verdict.lost, "out_of_order": landed.verdict.out_of_order,
        "applied_twice": landed.verdict.applied_twice, "unexpected": landed.verdict.unexpected,
        "replay": seed.to_string(),
    }))
}

/// The folder of the two binaries, which `cargo xtask bench` has built beside this one.
fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a binary lies in a folder")?;
    for name in ["outbox", "node"] {
        let path = folder.join(name);
        ensure!(
            path.exists(),
            "{} is missing: run cargo xtask bench",
            path.display()
        );
    }
    Ok(folder.to_owned())
}

/// The input as plain NDJSON.
fn input(scratch: &Path) -> anyhow::Result<PathBuf> {
    let slice = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/data/flights.ndjson"
    );
    let given = std::env::var_os("BENCH_FLIGHTS").map(PathBuf::from);
    let path = given.unwrap_or_else(|| slice.into());
    if path.extension().is_none_or(|e| e != "xz") {
        return Ok(path.canonicalize()?);
    }
    let plain = scratch.join("flights.ndjson");
    let out = std::fs::File::create(&plain)?;
    let status = Command::new("xz")
        .arg("-dc")
        .arg(&path)
        .stdout(out)
        .status()?;
    ensure!(status.success(), "xz could not unpack {}", path.display());
    Ok(plain)
}
