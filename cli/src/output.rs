//! What goes to stdout and stderr: one JSON document, or text for a person; never both.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::exit::{Exit, Problem};

/// How a command speaks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document on stdout instead of text.
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON on one line, or what `human` makes of it.
    ///
    /// # Errors
    /// When stdout cannot be written, except when its reader has gone (`outbox status | head`).
    pub fn emit<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Problem> {
        let mut text = if self.json {
            serde_json::to_string(value).map_err(|e| unwritable(&e))?
        } else {
            human(value)
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match written {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&e)),
            _ => Ok(()),
        }
    }

    /// Prints why the command ended early, to stderr.
    pub fn fail(self, problem: &Problem) {
        let mut stderr = io::stderr().lock();
        // Nothing is left to do when stderr is closed as well.
        let _ = if self.json {
            let document = serde_json::json!({
                "error": problem.text,
                "kind": problem.exit.word(),
                "exit_code": problem.exit.code(),
            });
            writeln!(stderr, "{document}")
        } else {
            writeln!(stderr, "outbox: failed to {}", problem.text)
        };
    }

    /// A progress bar on stderr: hidden with `--json`, and when nobody watches.
    pub fn progress(self, len: u64, what: &'static str, unit: Unit) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = match unit {
            Unit::Bytes => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            Unit::Count => "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}",
        };
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what)
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Things.
    Count,
}

fn unwritable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Exit::Failed, format!("write to stdout: {error}"))
}

/// A table without borders, as wide as the terminal.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(n), text);
        }
    }
}
