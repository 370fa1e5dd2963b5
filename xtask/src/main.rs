//! The project's own tasks.
//!
//! - `cargo xtask test [SUITE]`: everything that must hold, with its own set-up;
//! - `cargo xtask test librdkafka [--listed] [NUMBER]…`: librdkafka's own tests;
//! - `cargo xtask test [SUITE] --postgres-major N`: the store's suites, or one, on that PostgreSQL;
//! - `cargo xtask bench NAME [--json]`: one benchmark, in release mode.

mod bench;
mod cargo;
mod librdkafka;
mod setup;
mod test;
mod totals;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test [SUITE]          format, lints, docs and all tests; or one suite's tests
       cargo xtask test [SUITE] --postgres-major N
                                         the store's suites, or one, on PostgreSQL N (from npm)
       cargo xtask test librdkafka       librdkafka's own tests against the broker
       cargo xtask bench NAME [--json]   drain, latency, write-cost, held-xmin, idle, flights or
                                         broker (and which of its rows)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words[..] {
        ["test"] => test::everything(),
        ["test", "librdkafka", ref rest @ ..] => librdkafka::run(rest),
        ["test", suite] if !suite.starts_with('-') => test::suite(suite, None),
        ["test", "--postgres-major", major] => test::on_major(major),
        ["test", suite, "--postgres-major", major] if !suite.starts_with('-') => {
            test::suite(suite, Some(major))
        }
        ["bench", name, ref rest @ ..] if !name.starts_with('-') => bench::run(name, rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
