//! The commands, one a file: each opens what it needs, does one thing, and prints it.

mod adopt;
mod broker;
mod config_check;
mod dead;
mod doctor;
mod group;
mod letters;
mod log;
mod migrate;
mod relay;
mod remote;
mod resend;
mod status;
mod topic;

use outbox_core::{Admin, RequestAction, Selection};
use serde::Serialize;

use crate::args::{Command, Config, Dead};
use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::Output;
use crate::send;
use crate::store::{IfMissing, open};

/// Runs one command to its end.
pub async fn run(command: &Command, settings: &Settings, output: Output) -> Result<Exit, Problem> {
    match command {
        // Runs outside of this runtime, which is one that it must be able to kill.
        Command::Demo(demo) => crate::demo::run(demo, settings, output),
        Command::Config(Config::Check) => config_check::run(settings, output),
        Command::Relay(_) => relay::run(settings, output).await,
        Command::Broker(_) => broker::run(settings, output).await,
        Command::Topic(args) => topic::run(args, settings, output).await,
        Command::Group(args) => group::run(args, settings, output).await,
        Command::Migrate => migrate::run(settings, output).await,
        Command::Send(args) => {
            let store = open(&settings.store, IfMissing::Create).await?;
            send::run(args, &*store.admin, output).await
        }
        Command::Status => status::run(&*admin(settings).await?, output).await,
        Command::Dead(Dead::Messages(dead)) => {
            dead::run(dead, &*admin(settings).await?, output).await
        }
        Command::Dead(Dead::Letters(letters)) => letters::run(letters, settings, output).await,
        Command::Resend(args) => resend::run(args, &*admin(settings).await?, output).await,
        Command::Adopt => adopt::run(&*admin(settings).await?, output).await,
        Command::Log(command) => log::run(command, output),
        Command::Doctor => doctor::run(&*admin(settings).await?, output).await,
    }
}

async fn admin(settings: &Settings) -> Result<std::sync::Arc<dyn Admin>, Problem> {
    Ok(open(&settings.store, IfMissing::Fail).await?.admin)
}

/// What an operator asked for, for `--json`.
#[derive(Debug, Serialize)]
struct Requested {
    destination: String,
    action: RequestAction,
    /// How many messages the request names.
    messages: u64,
}

/// Leaves a request and says so.
async fn request(
    admin: &dyn Admin,
    destination: &str,
    action: RequestAction,
    selection: &Selection,
    output: Output,
) -> Result<Exit, Problem> {
    let messages = admin.request(destination, action, selection).await?;
    if messages == 0 {
        let text = format!(
            "{} at {destination:?}: no message matches. `outbox dead list` shows what there is",
            action.as_str()
        );
        return Err(Problem::new(Exit::NotFound, text));
    }
    let requested = Requested {
        destination: destination.to_owned(),
        action,
        messages,
    };
    output.emit(&requested, |r| {
        format!(
            "{} of {} messages at {} is requested; the relay that leads it does it at once",
            r.action.as_str(),
            r.messages,
            r.destination
        )
    })?;
    Ok(Exit::Ok)
}
