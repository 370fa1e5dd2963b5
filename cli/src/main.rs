//! The outbox command: relay daemon, demo and operator's tools.
//!
//! The composition root: the only crate that knows every other one, and the only one that reads
//! files and the environment. A command reads its [`config::Settings`], opens its [`store`], does
//! its one thing in [`commands`] or [`demo`], speaks through [`output`] and ends with an
//! [`exit::Exit`].

mod args;
mod commands;
mod config;
mod demo;
mod exit;
mod output;
mod redact;
mod send;
mod signals;
mod store;
mod time;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use exit::{Exit, Problem};
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error).code()),
    };
    let output = Output {
        json: cli.global.json,
    };
    outbox_relay::ensure_crypto_provider();
    let ended = log_to_stderr(&cli.command).and_then(|()| run(&cli, output));
    let exit = ended.unwrap_or_else(|problem| {
        output.fail(&problem);
        problem.exit
    });
    ExitCode::from(exit.code())
}

fn run(cli: &Cli, output: Output) -> Result<Exit, Problem> {
    let overrides = cli.overrides(utf8_variables());
    let settings = config::Settings::load(&overrides)?;
    warn_about_unknown_variables(&overrides);
    if let Command::Demo(demo) = &cli.command {
        // The demo owns its runtimes: it kills some of them.
        return demo::run(demo, &settings, output);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::new(Exit::Failed, format!("start the runtime: {e}")))?;
    runtime.block_on(commands::run(&cli.command, &settings, output))
}

/// Help and version are no errors. A wrong command line is told in clap's words, or as JSON.
fn usage(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // A closed stdout (`outbox --help | head`) is no reason to fail.
        let _ = error.print();
        return Exit::Ok;
    }
    match std::env::args().any(|argument| argument == "--json") {
        true => {
            let text = error.render().to_string();
            let text = text.trim_start_matches("error: ").trim_end();
            let problem = Problem::new(Exit::Usage, format!("read the command line: {text}"));
            Output { json: true }.fail(&problem);
        }
        // Nothing is left to do when stderr is closed as well.
        false => drop(error.print()),
    }
    Exit::Usage
}

/// A variable that is not UTF-8 cannot be one of ours.
fn utf8_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Variables that are no settings.
const KNOWN_VARIABLES: [&str; 3] = [
    config::FILE_VARIABLE,
    config::LOG_VARIABLE,
    config::BROKER_PASSWORD_VARIABLE,
];

/// A mistyped variable would otherwise be a setting that silently is not in force.
fn warn_about_unknown_variables(overrides: &config::Overrides) {
    for name in overrides
        .variables
        .keys()
        .filter(|name| name.starts_with("OUTBOX_"))
    {
        let known = config::Setting::ALL.iter().any(|s| s.variable() == *name)
            || KNOWN_VARIABLES.contains(&name.as_str())
            || name.starts_with("OUTBOX_TEST_");
        if !known {
            tracing::warn!(variable = %name, "unknown variable: no setting has this name");
        }
    }
}

fn log_to_stderr(command: &Command) -> Result<(), Problem> {
    let default = match command {
        // A daemon tells what it does; the demo's kills would only alarm.
        Command::Relay(_) | Command::Broker(_) => "warn,outbox=info",
        Command::Demo(_) => "off,outbox::demo=warn",
        _ => "warn",
    };
    let text = std::env::var(config::LOG_VARIABLE).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|e| {
        let what = format!(
            "read the configuration: {}: {text:?}: {e}",
            config::LOG_VARIABLE
        );
        Problem::new(Exit::Config, what)
    })?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(filter)
        .init();
    Ok(())
}
