//! The schema: made in one transaction, and checked before use.

use outbox_core::StoreError;
use outbox_migrations::{SQLITE_VERSION, Script, sqlite};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::{MIGRATE, failed};
use crate::identity;
use crate::row::{get, now};
use crate::store::{SqliteStore, commit};

/// Runs the scripts that were not run. Two processes that migrate at once take turns.
pub(crate) async fn run(store: &SqliteStore) -> Result<u32, StoreError> {
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS outbox_migrations (version integer \
         PRIMARY KEY, description text NOT NULL, run_at integer NOT NULL) STRICT";
    let mut tx = store.write().await?;
    let created = sqlx::query(TABLE).execute(&mut *tx).await;
    created.map_err(|e| failed("migrate", e))?;
    let found = version(&mut tx).await?;
    if found > SQLITE_VERSION {
        return Err(newer(found));
    }
    for script in sqlite().iter().filter(|s| s.version > found) {
        apply(&mut tx, script).await?;
    }
    settle_in(store, &mut tx).await?;
    commit(tx).await?;
    Ok(u32::try_from(SQLITE_VERSION).unwrap_or(u32::MAX))
}

async fn apply(tx: &mut SqliteConnection, script: &Script) -> Result<(), StoreError> {
    const RUN: &str =
        "INSERT INTO outbox_migrations (version, description, run_at) VALUES (?, ?, ?)";
    let context = format!("run migration {} ({})", script.version, script.description);
    let run = sqlx::raw_sql(script.sql).execute(&mut *tx).await;
    run.map_err(|e| failed(&context, e))?;
    let noted = sqlx::query(RUN)
        .bind(script.version)
        .bind(script.description)
        .bind(now());
    noted.execute(tx).await.map_err(|e| failed(&context, e))?;
    Ok(())
}

/// The first migration makes this file the store's home; a later one leaves that alone.
async fn settle_in(store: &SqliteStore, tx: &mut SqliteConnection) -> Result<(), StoreError> {
    const HOME: &str = "INSERT INTO outbox_store (one, store_id, file) VALUES (1, ?, ?) \
         ON CONFLICT (one) DO NOTHING";
    let file = identity::of_file(store.path())?;
    let home = sqlx::query(HOME)
        .bind(Uuid::now_v7().simple().to_string())
        .bind(file);
    home.execute(tx).await.map_err(|e| failed("migrate", e))?;
    Ok(())
}

/// The highest script that was run; 0 for none.
async fn version(tx: &mut SqliteConnection) -> Result<i64, StoreError> {
    const VERSION: &str = "SELECT coalesce(max(version), 0) FROM outbox_migrations";
    let row = sqlx::query(VERSION).fetch_one(tx).await;
    get(&row.map_err(|e| failed("read the schema's version", e))?, 0)
}

/// Refuses a schema that is missing, older or newer than this program.
pub(crate) async fn check_version(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = version(tx).await?;
    if found > SQLITE_VERSION {
        return Err(newer(found));
    }
    if found < SQLITE_VERSION {
        return Err(StoreError::Schema {
            problem: format!("it is at version {found}, this program needs {SQLITE_VERSION}"),
            cure: MIGRATE.to_owned(),
        });
    }
    Ok(())
}

fn newer(found: i64) -> StoreError {
    StoreError::Schema {
        problem: format!("it is at version {found}, this program knows only {SQLITE_VERSION}"),
        cure: "run a newer version of this program".to_owned(),
    }
}
