//! `outbox adopt`: this store, a copy or promotion, is now the one.

use outbox_core::Admin;
use serde::Serialize;

use crate::exit::{Exit, Problem};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Adopted {
    adopted: Vec<String>,
}

/// Runs the command.
pub async fn run(admin: &dyn Admin, output: Output) -> Result<Exit, Problem> {
    let adopted = Adopted {
        adopted: admin.adopt().await?,
    };
    output.emit(&adopted, |a| match a.adopted.is_empty() {
        true => "nothing to adopt: every destination already belongs to this store".to_owned(),
        false => format!(
            "adopted: {}. Make sure that the original store no longer publishes",
            a.adopted.join(", ")
        ),
    })?;
    Ok(Exit::Ok)
}
