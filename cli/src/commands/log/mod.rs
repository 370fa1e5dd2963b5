//! `outbox log …`: looks into the bundled log's folder, and changes nothing in it.

mod find;
mod record;
mod tail;
mod verify;

use std::path::Path;
use std::sync::Arc;

use outbox_log_broker::{Log, OpenError, ScanError};

use crate::args::LogCommand;
use crate::exit::{Exit, Problem};
use crate::output::Output;

/// Runs one of the commands. They block: nothing else runs in this process.
pub fn run(command: &LogCommand, output: Output) -> Result<Exit, Problem> {
    match command {
        LogCommand::Tail(args) => tail::run(args, output),
        LogCommand::Find(args) => find::run(args, output),
        LogCommand::Verify(args) => verify::run(args, output),
    }
}

/// The log as it stands now: its broker may go on.
fn view(dir: &Path) -> Result<Arc<Log>, Problem> {
    let log = Log::view(dir).map_err(|error| unopened(dir, &error))?;
    if let Some(damage) = log.damage() {
        // What is whole is shown all the same.
        tracing::warn!(%damage, "the log is damaged: `outbox log verify` tells more");
    }
    Ok(log)
}

fn unopened(dir: &Path, error: &OpenError) -> Problem {
    let exit = match error {
        OpenError::Locked { .. } => Exit::Refused,
        _ if !dir.is_dir() => Exit::NotFound,
        _ => Exit::Failed,
    };
    Problem::new(exit, error.to_string())
}

fn unreadable(error: &ScanError) -> Problem {
    Problem::new(Exit::Failed, error.to_string())
}

/// The number of partitions of a topic.
fn partitions(log: &Log, topic: &str) -> Result<u32, Problem> {
    let options = log.topic(topic).ok_or_else(|| {
        let text = format!("find topic {topic:?}: the log has none of that name");
        Problem::new(Exit::NotFound, text)
    })?;
    Ok(options.partitions)
}
