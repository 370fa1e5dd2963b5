//! `outbox log tail`: the last records of a topic.

use std::ops::ControlFlow;

use outbox_log_broker::Log;
use serde::Serialize;

use super::record::Record;
use super::{partitions, unreadable, view};
use crate::args::LogTail;
use crate::exit::{Exit, Problem};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Tail {
    records: Vec<Record>,
}

/// Runs the command.
pub fn run(args: &LogTail, output: Output) -> Result<Exit, Problem> {
    let log = view(&args.folder.dir)?;
    let count = partitions(&log, &args.topic)?;
    let chosen = match args.partition {
        Some(n) if n >= count => {
            let text = format!("find partition {n} of {:?}: it has {count}", args.topic);
            return Err(Problem::new(Exit::NotFound, text));
        }
        Some(n) => n..n + 1,
        None => 0..count,
    };
    let limit = args.lines as usize;
    let mut records = Vec::new();
    for partition in chosen {
        records.extend(last(&log, &args.topic, partition, limit)?);
        records.sort_by_key(|r| (r.timestamp_ms, r.partition, r.offset));
        records.drain(..records.len().saturating_sub(limit));
    }
    output.emit(&Tail { records }, |tail| match tail.records.is_empty() {
        true => "no record".to_owned(),
        false => tail.records.iter().map(Record::lines).collect(),
    })?;
    Ok(Exit::Ok)
}

/// The last records of a partition. In a compacted one offsets are missing, so that it goes further
/// back until there are enough.
fn last(log: &Log, topic: &str, partition: u32, limit: usize) -> Result<Vec<Record>, Problem> {
    let offsets = log.offsets(topic, partition);
    let (first, end) = offsets.map_err(|e| unreadable(&e.into()))?;
    let mut back = limit as i64;
    loop {
        let from = end.saturating_sub(back).max(first);
        let mut records = Vec::new();
        let scanned = log.scan::<()>(topic, partition, from, |record| {
            records.push(Record::of(topic, partition, record));
            ControlFlow::Continue(())
        });
        scanned.map_err(|e| unreadable(&e))?;
        if records.len() >= limit || from == first {
            records.drain(..records.len().saturating_sub(limit));
            return Ok(records);
        }
        back = back.saturating_mul(4);
    }
}
