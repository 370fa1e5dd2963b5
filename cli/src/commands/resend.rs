//! `outbox resend`: sends messages again, whatever became of them.

use chrono::Utc;
use outbox_core::{Admin, RequestAction, Selection};

use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::Output;

/// Runs the command.
pub async fn run(args: &args::Resend, admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let now = Utc::now();
    let selection = match args.since {
        None => Selection::Ids(args.ids.clone()),
        Some(since) => Selection::Window {
            since: since.resolve(now),
            until: args.until.map_or(now, |until| until.resolve(now)),
        },
    };
    super::request(
        admin,
        &args.destination,
        RequestAction::Resend,
        &selection,
        output,
    )
    .await
}
