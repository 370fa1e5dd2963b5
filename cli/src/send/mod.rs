//! `outbox send`: a file of JSON lines, enqueued in batches.
//!
//! The file's position moves in the same transaction as each batch, so that after a kill the same
//! command goes on where it stopped: nothing is left out, nothing comes twice. A reader thread
//! parses ahead of the store, two batches at most.

mod event;
mod lines;
mod position;

use std::io::{BufReader, Read};
use std::time::Instant;

use indicatif::ProgressBar;
use outbox_core::Admin;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{Output, Unit, thousands};
use event::Mapping;
use lines::{Batch, LineError, Lines};
use position::{At, Source};

/// Batches parsed ahead of the store.
const BATCHES_AHEAD: usize = 2;
/// Bytes read from the input at a time.
const READ_BYTES: usize = 256 * 1024;

/// What was done, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// The file as given.
    file: String,
    /// Messages enqueued by this run.
    enqueued: u64,
    /// Byte at which this run began; more than 0 when it went on after an earlier one.
    resumed_at_byte: u64,
    /// Byte behind the last line that is enqueued.
    position: u64,
    /// Ended by a signal before the end of the input.
    interrupted: bool,
    /// How long it took.
    seconds: f64,
}

/// Runs the command.
pub async fn run(args: &args::Send, admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let mapping = Mapping::new(args);
    let input = match args.file.as_os_str() == "-" {
        true => Input::stdin(),
        false => Input::file(args, admin).await?,
    };
    let shutdown = crate::signals::shutdown()?;
    let bar = output.progress(input.len(), "send", Unit::Bytes);
    let mut report = Report {
        file: args.file.display().to_string(),
        enqueued: 0,
        resumed_at_byte: input.start,
        position: input.start,
        interrupted: false,
        seconds: 0.0,
    };
    let started = Instant::now();
    let mut batches = input.read_ahead(mapping)?;
    let mut position = input.position(input.start)?;
    loop {
        // Both arms are cancel-safe, and a batch that was received is always imported.
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => { report.interrupted = true; None }
            next = batches.recv() => next,
        };
        let Some(next) = next else { break };
        let batch = next.map_err(|error| input.problem(args, error, &report, &bar))?;
        let to = input.position(batch.end)?;
        admin
            .import(&input.name, position, to, &batch.messages)
            .await?;
        position = to;
        report.enqueued += batch.messages.len() as u64;
        report.position = batch.end;
        bar.set_position(batch.end);
    }
    bar.finish_and_clear();
    report.seconds = started.elapsed().as_secs_f64();
    output.emit(&report, human)?;
    Ok(if report.interrupted {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn human(report: &Report) -> String {
    let from = match report.resumed_at_byte {
        0 => String::new(),
        byte => format!(", going on from byte {}", thousands(byte)),
    };
    let end = if report.interrupted {
        "; interrupted: repeat the command to go on"
    } else {
        ""
    };
    format!(
        "enqueued {} messages from {}{from} in {:.1} s{end}",
        thousands(report.enqueued),
        report.file,
        report.seconds,
    )
}

/// Where lines come from.
struct Input {
    /// Its name in the store.
    name: String,
    /// The file; `None` for stdin, which cannot be gone on with.
    source: Option<Source>,
    /// Where this run begins.
    start: u64,
}

impl Input {
    /// Each run is a source of its own: nobody can tell whether a pipe is the same one again.
    fn stdin() -> Self {
        Self {
            name: format!("stdin#{}", Uuid::now_v7()),
            source: None,
            start: 0,
        }
    }

    async fn file(args: &args::Send, admin: &dyn Admin) -> Result<Self, Problem> {
        let unreadable =
            |e| Problem::new(Exit::Input, format!("read {}: {e}", args.file.display()));
        let source = Source::open(&args.file).map_err(unreadable)?;
        let stored = admin.import_position(&source.name).await?;
        let Some(start) = source.offset(stored).map_err(unreadable)? else {
            let text = format!(
                "go on with {}: it begins like a file that was enqueued before, but is not the \
                 same up to where that one stopped. Nothing was enqueued. Cure: give a changed \
                 file a new name",
                args.file.display()
            );
            return Err(Problem::new(Exit::Input, text));
        };
        Ok(Self {
            name: source.name.clone(),
            source: Some(source),
            start,
        })
    }

    /// Bytes in all; 0 when nobody knows.
    fn len(&self) -> u64 {
        self.source.as_ref().map_or(0, |source| source.len)
    }

    /// The number the store keeps for `offset`.
    fn position(&self, offset: u64) -> Result<u64, Problem> {
        match &self.source {
            None => Ok(offset),
            Some(source) => source.position(offset).map_err(|e| {
                Problem::new(Exit::Input, format!("read {}: {e}", source.path.display()))
            }),
        }
    }

    /// Parses on a thread of its own: reading stdin blocks, and must not hold up a signal.
    fn read_ahead(
        &self,
        mapping: Mapping,
    ) -> Result<mpsc::Receiver<Result<Batch, LineError>>, Problem> {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let failed = |e| Problem::new(Exit::Failed, format!("start reading: {e}"));
        let start = self.start;
        match &self.source {
            None => {
                std::thread::spawn(move || read(std::io::stdin().lock(), mapping, start, &sender))
            }
            Some(source) => {
                let file = source.file.try_clone().map_err(failed)?;
                std::thread::spawn(move || {
                    read(
                        At {
                            file: &file,
                            offset: start,
                        },
                        mapping,
                        start,
                        &sender,
                    );
                })
            }
        };
        Ok(receiver)
    }

    /// The line's number in the whole file, not in this run.
    fn problem(
        &self,
        args: &args::Send,
        error: LineError,
        report: &Report,
        bar: &ProgressBar,
    ) -> Problem {
        bar.finish_and_clear();
        let file = args.file.display();
        let done = format!(
            "Everything before it is enqueued ({} messages by this run), nothing of it is",
            report.enqueued
        );
        let text = match error {
            LineError::Io(e) => format!("read {file}: {e}. {done}"),
            LineError::Line(line, why) => {
                let before = self
                    .source
                    .as_ref()
                    .map_or(Ok(0), |s| s.lines_before(self.start));
                format!(
                    "send {file}: line {}: {why}. {done}",
                    before.unwrap_or(0) + line
                )
            }
        };
        Problem::new(Exit::Input, text)
    }
}

/// Sends batches until the end, an error, or nobody listens.
fn read(
    input: impl Read,
    mapping: Mapping,
    start: u64,
    sender: &mpsc::Sender<Result<Batch, LineError>>,
) {
    let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, input), mapping, start);
    loop {
        let batch = lines.batch();
        let last = !matches!(batch, Ok(Some(_)));
        if let Some(batch) = batch.transpose()
            && sender.blocking_send(batch).is_err()
        {
            return;
        }
        if last {
            return;
        }
    }
}
