//! `outbox log verify`: checks every byte of a log that is not open.

use std::fmt::Write as _;

use outbox_log_broker::{Damage, Verified};
use serde::Serialize;

use super::unopened;
use crate::args::LogFolder;
use crate::exit::{Exit, Problem};
use crate::output::{Output, thousands};

#[derive(Debug, Serialize)]
struct Report {
    topics: usize,
    partitions: usize,
    segments: usize,
    batches: u64,
    records: u64,
    bytes: u64,
    /// Whole frames behind the last checkpoint.
    wal_frames: u64,
    damage: Vec<Place>,
    notes: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct Place {
    path: String,
    byte: u64,
    problem: String,
}

impl From<Damage> for Place {
    fn from(damage: Damage) -> Self {
        Self {
            path: damage.path.display().to_string(),
            byte: damage.position,
            problem: damage.problem,
        }
    }
}

/// Runs the command: [`Exit::Failed`] when something is damaged.
pub fn run(args: &LogFolder, output: Output) -> Result<Exit, Problem> {
    let verified = outbox_log_broker::verify(&args.dir);
    let report = report(verified.map_err(|error| unopened(&args.dir, &error))?);
    output.emit(&report, human)?;
    Ok(match report.damage.is_empty() {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

fn report(found: Verified) -> Report {
    Report {
        topics: found.topics,
        partitions: found.partitions,
        segments: found.segments,
        batches: found.batches,
        records: found.records,
        bytes: found.bytes,
        wal_frames: found.frames,
        damage: found.damage.into_iter().map(Place::from).collect(),
        notes: found.notes.into_iter().map(Place::from).collect(),
    }
}

fn human(report: &Report) -> String {
    let mut text = String::new();
    let kinds = [("DAMAGED", &report.damage), ("note", &report.notes)];
    for (word, places) in kinds {
        for place in places {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{word}  {} at byte {}: {}",
                place.path, place.byte, place.problem
            );
        }
    }
    if !report.damage.is_empty() {
        text.push_str("cure: restore the folder from a backup, or copy out what can be read\n");
    }
    let _ = writeln!(
        text,
        "{}: {} topics, {} partitions, {} segments, {} records in {} bytes; {} frames in the WAL \
         are replayed at the next start",
        if report.damage.is_empty() {
            "ok"
        } else {
            "damaged"
        },
        report.topics,
        report.partitions,
        report.segments,
        thousands(report.records),
        thousands(report.bytes),
        thousands(report.wal_frames),
    );
    text
}
