//! The input in batches: whole lines, bounded, with the place of everything that is wrong.

use std::io::{self, BufRead, Read};

use outbox_core::{Message, limits};

use super::event::Mapping;

/// Most messages of a batch: one transaction of the store.
pub const BATCH_MESSAGES_MAX: usize = 1_000;
/// A batch ends once its payloads have so many bytes (4 MiB).
pub const BATCH_BYTES: usize = 4 * limits::PAYLOAD_BYTES_MAX;
/// Longest line: the payload's limit and a line end. A longer one is refused before it is read
/// to its end.
const LINE_BYTES_MAX: usize = limits::PAYLOAD_BYTES_MAX + 2;

/// Messages of consecutive lines.
#[derive(Debug, Default)]
pub struct Batch {
    /// One for each line that is not empty.
    pub messages: Vec<Message>,
    /// The offset behind the last line.
    pub end: u64,
}

/// Something is wrong with the input.
#[derive(Debug)]
pub enum LineError {
    /// A line is not a message: its number, counted from 1 at the reader's start, and why.
    Line(u64, String),
    /// The input could not be read.
    Io(io::Error),
}

/// Reads batches from `input`.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    mapping: Mapping,
    offset: u64,
    line: u64,
    /// The error that ended the last batch early: it comes after the lines before it.
    failed: Option<LineError>,
}

impl<R: BufRead> Lines<R> {
    /// Reads `input`, whose first byte is at `offset` of the file.
    pub fn new(input: R, mapping: Mapping, offset: u64) -> Self {
        Self {
            input,
            mapping,
            offset,
            line: 0,
            failed: None,
        }
    }

    /// The next batch; `None` at the end. An error comes after all lines before it were handed
    /// out, and ends the input.
    pub fn batch(&mut self) -> Result<Option<Batch>, LineError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let start = self.offset;
        let mut batch = Batch {
            end: start,
            ..Batch::default()
        };
        let (mut line, mut bytes) = (Vec::new(), 0);
        while batch.messages.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES {
            match self.message(&mut line) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    bytes += line.len();
                    batch.messages.extend(message);
                    batch.end = self.offset;
                }
                Err(error) if batch.end == start => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok((batch.end > start).then_some(batch))
    }

    /// The next line's message: `None` at the end, `Some(None)` for an empty line.
    fn message(&mut self, line: &mut Vec<u8>) -> Result<Option<Option<Message>>, LineError> {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self
            .input
            .by_ref()
            .take(limit)
            .read_until(b'\n', line)
            .map_err(LineError::Io)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        let ended = line.last() == Some(&b'\n');
        let wrong = |why: String| LineError::Line(self.line, why);
        if !ended && read > LINE_BYTES_MAX {
            let max = limits::PAYLOAD_BYTES_MAX;
            return Err(wrong(format!(
                "more than {max} bytes, the limit of a payload"
            )));
        }
        let text = trim_end(line);
        let message = match text.iter().all(u8::is_ascii_whitespace) {
            true => None,
            // JSON objects end themselves, so a last line without an end may still be whole.
            false => Some(self.mapping.message(text).map_err(|why| match ended {
                true => wrong(why),
                false => wrong(format!("the input ends in the middle of this line: {why}")),
            })?),
        };
        self.offset += read as u64;
        Ok(Some(message))
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    fn lines(input: &str) -> Lines<&[u8]> {
        let cli = Cli::parse_from(["outbox", "send", "--file", "-", "--topic", "t"]);
        let crate::args::Command::Send(args) = cli.command else {
            unreachable!()
        };
        Lines::new(input.as_bytes(), Mapping::new(&args), 0)
    }

    fn bodies(batch: &Batch) -> Vec<&str> {
        batch
            .messages
            .iter()
            .map(|m| std::str::from_utf8(&m.payload).expect("text"))
            .collect()
    }

    #[test]
    fn line_ends_and_empty_lines_are_no_part_of_a_message() {
        let mut lines = lines("{\"a\":1}\r\n\n  \n{\"a\":2}");
        let batch = lines.batch().expect("valid").expect("a batch");
        assert_eq!(bodies(&batch), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(batch.end, 20);
        assert!(lines.batch().expect("the end").is_none());
    }

    #[test]
    fn a_torn_line_comes_after_the_lines_before_it() {
        let mut lines = lines("{\"a\":1}\n{\"a\":2}\n{\"a\":");
        let batch = lines.batch().expect("valid").expect("a batch");
        assert_eq!((batch.messages.len(), batch.end), (2, 16));
        let Err(LineError::Line(number, why)) = lines.batch() else {
            panic!("no error")
        };
        assert_eq!(number, 3);
        assert!(
            why.starts_with("the input ends in the middle of this line: column 5"),
            "{why}"
        );
    }

    #[test]
    fn a_batch_is_bounded_and_the_next_one_goes_on() {
        let input = "{\"a\":1}\n".repeat(BATCH_MESSAGES_MAX + 1);
        let mut lines = lines(&input);
        let first = lines.batch().expect("valid").expect("a batch");
        assert_eq!(first.messages.len(), BATCH_MESSAGES_MAX);
        let second = lines.batch().expect("valid").expect("a batch");
        assert_eq!((second.messages.len(), second.end), (1, input.len() as u64));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_without_reading_all_of_it() {
        let input = format!(
            "{{\"a\":\"{}\"}}\n",
            "x".repeat(3 * limits::PAYLOAD_BYTES_MAX)
        );
        let mut lines = lines(&input);
        let Err(LineError::Line(1, why)) = lines.batch() else {
            panic!("no error")
        };
        assert!(why.contains("more than 1048576 bytes"), "{why}");
        let just_over = format!(
            "{{\"a\":\"{}\"}}\n",
            "x".repeat(limits::PAYLOAD_BYTES_MAX - 7)
        );
        let mut lines = super::tests::lines(&just_over);
        let Err(LineError::Line(1, why)) = lines.batch() else {
            panic!("no error")
        };
        assert!(
            why.contains("payload is 1048577 bytes long, the limit is 1048576"),
            "{why}"
        );
    }
}
