//! `outbox migrate`: creates or upgrades the schema.

use serde::Serialize;

use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::Output;
use crate::store::{IfMissing, open};

#[derive(Debug, Serialize)]
struct Migrated {
    /// The store, without its password.
    store: String,
    /// The version it has now.
    schema_version: u32,
}

/// Runs the command.
pub async fn run(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let store = open(&settings.store, IfMissing::Create).await?;
    let migrated = Migrated {
        store: settings.store.url.masked_url(),
        schema_version: store.admin.migrate().await?,
    };
    output.emit(&migrated, |m| {
        format!("{} has schema version {}", m.store, m.schema_version)
    })?;
    Ok(Exit::Ok)
}
