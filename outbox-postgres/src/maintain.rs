//! House-keeping: partitions ahead, retention, rotation of progress.
//!
//! The steps themselves are functions of the schema (`migrations/postgres/0004_maintenance.sql`),
//! for the relay's role may run them and nothing behind them. Each call here is one step in one
//! transaction; a step that does not get its lock within 50 ms is put off to the next round.
//! `docs/retention.md` tells the whole story.

use std::time::Duration;

use outbox_core::{Maintained, Maintenance, StoreError};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::PostgresStore;
use crate::admin::Desk;
use crate::error::store_error;
use crate::sql::{
    MAINTAIN_ATTACH, MAINTAIN_DEFAULT_ROWS, MAINTAIN_DROP, MAINTAIN_EMPTY, MAINTAIN_ROTATE,
    MAINTAIN_SWEEP, Statement,
};

const CONTEXT: &str = "keep house";

/// Most partitions attached in a round: twice what is kept ahead, so that one round always
/// catches up.
const ATTACHED_MAX: u32 = 16;

/// Most partitions emptied in a round. Each takes a millisecond, but for copying what must
/// outlive it.
const EMPTIED_MAX: u32 = 16;

/// Longest retention (a thousand years), within what an interval can hold.
const RETENTION_MAX: Duration = Duration::from_secs(1_000 * 366 * 86_400);

/// One round.
pub(crate) async fn maintain(
    store: &PostgresStore,
    policy: &Maintenance,
) -> Result<Maintained, StoreError> {
    let desk = &store.desk();
    let mut done = Maintained::default();
    let retention = policy.retention.min(RETENTION_MAX).as_secs_f64();
    while done.partitions_attached < ATTACHED_MAX
        && let Some(row) = step(desk, MAINTAIN_ATTACH, None, &mut done).await?
        && named(&row)?
    {
        done.partitions_attached += 1;
    }
    while done.partitions_emptied < EMPTIED_MAX
        && let Some(row) = step(desk, MAINTAIN_EMPTY, Some(retention), &mut done).await?
        && named(&row)?
    {
        done.partitions_emptied += 1;
        done.kept += count(&row, 1)?;
    }
    if let Some(row) = step(desk, MAINTAIN_DROP, None, &mut done).await? {
        done.partitions_dropped = u32::from(named(&row)?);
    }
    step(desk, MAINTAIN_ROTATE, None, &mut done).await?;
    step(desk, MAINTAIN_SWEEP, Some(retention), &mut done).await?;
    if let Some(row) = step(desk, MAINTAIN_DEFAULT_ROWS, None, &mut done).await? {
        done.default_rows = count(&row, 0)?;
    }
    Ok(done)
}

/// Runs one step in its own transaction; `None` when it was put off.
async fn step(
    desk: &Desk<'_>,
    statement: Statement,
    retention: Option<f64>,
    done: &mut Maintained,
) -> Result<Option<PgRow>, StoreError> {
    let mut tx = desk.begin_anywhere().await?;
    let mut query = desk.query(statement);
    if let Some(seconds) = retention {
        query = query.bind(seconds);
    }
    let row = match query.fetch_one(&mut *tx).await {
        Ok(row) => row,
        Err(error) if is_put_off(&error) => {
            done.put_off += 1;
            return Ok(None);
        }
        Err(error) => return Err(store_error(CONTEXT, error)),
    };
    tx.commit()
        .await
        .map_err(|error| store_error(CONTEXT, error))?;
    Ok(Some(row))
}

/// Somebody holds the lock (55P03, 40P01), or wrote into the default partition while the next one was
/// about to be attached (23514).
fn is_put_off(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01" | "23514"))
}

/// Whether the step names a partition, that is: did something.
fn named(row: &PgRow) -> Result<bool, StoreError> {
    let name: Option<String> = row.try_get(0).map_err(|e| store_error(CONTEXT, e))?;
    Ok(name.is_some())
}

fn count(row: &PgRow, at: usize) -> Result<u64, StoreError> {
    let count: Option<i64> = row.try_get(at).map_err(|e| store_error(CONTEXT, e))?;
    Ok(count.unwrap_or(0).unsigned_abs())
}
