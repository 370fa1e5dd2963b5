//! The project's own tasks.
//!
//! - `cargo xtask test [SUITE]`: everything that must hold, with its own set-up;
//! - `cargo xtask test librdkafka [--listed] [NUMBER]…`: librdkafka's own tests;
//! - `cargo xtask test [SUITE] --postgres-major N`: the store's suites, or one, on that PostgreSQL;
//! - `cargo xtask bench NAME [--json]`: one benchmark, in release mode;
//! - `cargo xtask fuzz [TARGET] [--seconds N]`: hostile bytes, for a while.

mod bench;
mod cargo;
mod fuzz;
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
       cargo xtask fuzz [TARGET] [--seconds N]
                                         hostile bytes for each fuzz target, 60 s unless told
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
        ["fuzz", ref rest @ ..] => match fuzz_arguments(rest) {
            Some((target, seconds)) => fuzz_only(target, seconds),
            None => return usage(),
        },
        ["bench", name, ref rest @ ..] if !name.starts_with('-') => bench::run(name, rest),
        _ => return usage(),
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

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// The target, if one is named, and the seconds for each.
fn fuzz_arguments<'a>(words: &[&'a str]) -> Option<(Option<&'a str>, u32)> {
    let (target, rest) = match words {
        [name, rest @ ..] if !name.starts_with('-') => (Some(*name), rest),
        rest => (None, rest),
    };
    match rest {
        [] => Some((target, fuzz::SECONDS)),
        ["--seconds", seconds] => Some((target, seconds.parse().ok()?)),
        _ => None,
    }
}

fn fuzz_only(target: Option<&str>, seconds: u32) -> anyhow::Result<bool> {
    let totals = fuzz::run(target, seconds)?;
    let passed = totals.is_some_and(|totals| totals.failed == 0);
    test::report(totals.unwrap_or_default(), passed)
}
