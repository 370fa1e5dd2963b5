//! `outbox log find`: the records of a message or a key.

use std::ops::ControlFlow;
use std::sync::Arc;

use outbox_log_broker::{Log, Wanted};
use serde::Serialize;

use super::record::Record;
use super::{partitions, unreadable, view};
use crate::args::LogFind;
use crate::exit::{Exit, Problem};
use crate::output::{Output, thousands};

/// The header that holds a message's id.
const ID_HEADER: &str = "ce_id";

#[derive(Debug, Default, Serialize)]
struct Found {
    /// In order of topic, partition and offset.
    records: Vec<Record>,
    /// How many were looked at.
    scanned: u64,
    /// Whether there may be more.
    limited: bool,
}

/// Runs the command: [`Exit::NotFound`] when there is no such record.
pub fn run(args: &LogFind, output: Output) -> Result<Exit, Problem> {
    let log = view(&args.folder.dir)?;
    let wanted = match (&args.id, &args.key) {
        (Some(id), _) => Wanted::Header {
            name: ID_HEADER.to_owned(),
            value: id.clone().into_bytes(),
        },
        (None, key) => Wanted::Key(key.clone().unwrap_or_default().into_bytes()),
    };
    let mut found = Found::default();
    for topic in topics(&log, args)? {
        for partition in 0..partitions(&log, &topic)? {
            if !found.limited {
                search(&log, &topic, partition, args, &wanted, &mut found)?;
            }
        }
    }
    if found.records.is_empty() {
        let text = format!(
            "find it: none of {} records is of that id or key",
            thousands(found.scanned)
        );
        return Err(Problem::new(Exit::NotFound, text));
    }
    output.emit(&found, human)?;
    Ok(Exit::Ok)
}

fn topics(log: &Log, args: &LogFind) -> Result<Vec<Arc<str>>, Problem> {
    match &args.topic {
        Some(topic) => partitions(log, topic).map(|_| vec![topic.as_str().into()]),
        None => Ok(log.topics().into_iter().map(|(name, _)| name).collect()),
    }
}

fn search(
    log: &Log,
    topic: &str,
    partition: u32,
    args: &LogFind,
    wanted: &Wanted,
    found: &mut Found,
) -> Result<(), Problem> {
    let offsets = log.offsets(topic, partition);
    let (mut from, _) = offsets.map_err(|e| unreadable(&e.into()))?;
    if let Some(since) = args.since {
        let since = since.resolve(chrono::Utc::now()).timestamp_millis();
        let at = log.offset_at_time(topic, partition, since);
        match at.map_err(|e| unreadable(&e.into()))? {
            Some(at) => from = at.offset,
            None => return Ok(()),
        }
    }
    let scanned = log.scan(topic, partition, from, |record| {
        found.scanned += 1;
        if wanted.matches(record) {
            if found.records.len() == args.limit as usize {
                return ControlFlow::Break(());
            }
            found.records.push(Record::of(topic, partition, record));
        }
        ControlFlow::Continue(())
    });
    found.limited = scanned.map_err(|e| unreadable(&e))?.is_some();
    Ok(())
}

fn human(found: &Found) -> String {
    let mut text: String = found.records.iter().map(Record::lines).collect();
    if found.limited {
        text.push_str("there are more: raise --limit, or name a --topic\n");
    }
    text
}
