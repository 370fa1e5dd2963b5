//! The schema's version: bring it about, or say exactly what is wrong with it.

use outbox_core::StoreError;
use sqlx::migrate::MigrateError;
use sqlx::{PgConnection, Row};

use super::Desk;
use crate::error::{OrStoreError, damaged, store_error};
use crate::sql::{ADMIN_HAS_VERSION, ADMIN_VERSION};

/// How often a migration that lost a race for a row of the cluster's catalogues is run again.
/// Roles belong to the cluster, and two databases may be migrated at once.
const RACES_MAX: u32 = 20;

/// Creates or upgrades the schema; answers its version.
pub(super) async fn migrate(desk: &Desk<'_>) -> Result<u32, StoreError> {
    let migrator = outbox_migrations::postgres(desk.schema);
    let mut races = 0;
    loop {
        let mut connection = desk.pool.acquire().await.or_store("connect to migrate")?;
        match migrator.run_direct(None, &mut *connection, false).await {
            Ok(()) => return Ok(outbox_migrations::POSTGRES_VERSION.unsigned_abs() as u32),
            // Each migration is a transaction: what was lost is rolled back.
            Err(error) if races < RACES_MAX && is_race(&error) => races += 1,
            Err(error) => {
                return Err(match &error {
                    MigrateError::VersionMissing(version) => newer(desk, *version),
                    _ => failed(desk, error),
                });
            }
        }
        // The connection holds the migrator's lock until it is gone.
        drop(connection.detach());
    }
}

/// Checks, inside the caller's transaction, that the schema is the one this program is written
/// for.
pub(crate) async fn check(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<(), StoreError> {
    let context = "read the schema's version";
    let found = desk
        .query(ADMIN_HAS_VERSION)
        .fetch_optional(&mut *tx)
        .await
        .or_store(context)?;
    let Some(found) = found else {
        return Err(missing(desk));
    };
    if !found.try_get::<bool, _>(0).or_store(context)? {
        return Err(StoreError::Refused {
            problem: format!("this login may not use schema {:?}", desk.schema),
            cure:
                "grant outbox_relay (for a relay), outbox_operator (to decide), outbox_writer (to \
                   enqueue) or outbox_reader (to look) to it"
                    .to_owned(),
        });
    }
    if !found.try_get::<bool, _>(1).or_store(context)? {
        return Err(missing(desk));
    }
    let row = desk
        .query(ADMIN_VERSION)
        .fetch_one(&mut *tx)
        .await
        .or_store(context)?;
    let version: i64 = row.try_get(0).or_store(context)?;
    let whole: bool = row.try_get(1).or_store(context)?;
    judge(desk, version, whole)
}

fn judge(desk: &Desk<'_>, version: i64, whole: bool) -> Result<(), StoreError> {
    let ours = outbox_migrations::POSTGRES_VERSION;
    if version > ours {
        return Err(newer(desk, version));
    }
    if version == ours && whole {
        return Ok(());
    }
    let problem = match (version, whole) {
        (0, _) => format!("schema {:?} was never migrated", desk.schema),
        (_, false) => format!(
            "a migration of schema {:?} broke off at version {version}",
            desk.schema
        ),
        _ => format!(
            "schema {:?} is at version {version}, older than this program's {ours}",
            desk.schema
        ),
    };
    Err(StoreError::Schema {
        problem,
        cure: "run `outbox migrate`".to_owned(),
    })
}

fn missing(desk: &Desk<'_>) -> StoreError {
    StoreError::Schema {
        problem: format!(
            "there is no outbox in schema {:?} of this database",
            desk.schema
        ),
        cure: "run `outbox migrate`, or name the right database and schema in the store's \
               settings"
            .to_owned(),
    }
}

fn newer(desk: &Desk<'_>, version: i64) -> StoreError {
    StoreError::Schema {
        problem: format!(
            "schema {:?} is at version {version}, newer than the {} that outbox {} knows",
            desk.schema,
            outbox_migrations::POSTGRES_VERSION,
            env!("CARGO_PKG_VERSION"),
        ),
        cure: format!("use a newer outbox, one that knows version {version}"),
    }
}

fn failed(desk: &Desk<'_>, error: MigrateError) -> StoreError {
    let context = format!("migrate schema {:?}", desk.schema);
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            store_error(&context, error)
        }
        MigrateError::VersionMismatch(version) => StoreError::Schema {
            problem: format!(
                "migration {version} of schema {:?} was run from another text than this program's",
                desk.schema
            ),
            cure: "use the outbox that made the schema, or make a new schema".to_owned(),
        },
        error => damaged(&context, error.to_string()),
    }
}

fn is_race(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| {
        error.message() == "tuple concurrently updated"
            || matches!(error.code().as_deref(), Some("40P01" | "23505" | "42P06"))
    })
}
