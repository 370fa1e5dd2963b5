//! The store at a glance.

use outbox_core::{DestinationStatus, Seq, Status, StoreError, UnroutedStatus};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Desk, declare::last_seq};
use crate::error::OrStoreError;
use crate::sql::{ADMIN_STATUS, ADMIN_UNROUTED};

const CONTEXT: &str = "read the status";

/// Backlog, age, rate and exceptions of each destination, and what no route covers.
pub(super) async fn status(desk: &Desk<'_>) -> Result<Status, StoreError> {
    let mut tx = desk.begin().await?;
    let last_seq = last_seq(desk, &mut tx).await?;
    let rows = desk
        .query(ADMIN_STATUS)
        .bind(last_seq)
        .fetch_all(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let destinations = rows
        .iter()
        .map(|row| destination(row, last_seq))
        .collect::<Result<_, _>>()
        .or_store(CONTEXT)?;
    let rows = desk
        .query(ADMIN_UNROUTED)
        .fetch_all(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let unrouted = rows
        .iter()
        .map(unrouted)
        .collect::<Result<_, _>>()
        .or_store(CONTEXT)?;
    tx.commit().await.or_store(CONTEXT)?;
    Ok(Status {
        last_seq,
        destinations,
        unrouted,
    })
}

fn destination(row: &PgRow, last_seq: Seq) -> Result<DestinationStatus, sqlx::Error> {
    let cursor: Seq = row.try_get(5)?;
    let count = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
    Ok(DestinationStatus {
        name: row.try_get(0)?,
        broker: row.try_get::<Option<_>, _>(1)?.unwrap_or_default(),
        paused: row.try_get(2)?,
        owner: row.try_get(3)?,
        epoch: row.try_get(4)?,
        cursor,
        patterns: row.try_get(6)?,
        pending: (last_seq - cursor).max(0).unsigned_abs(),
        oldest_pending_seconds: row.try_get::<Option<f64>, _>(7)?.map(|age| age.max(0.0)),
        seqs_per_second: row.try_get(8)?,
        gaps: count(9)?,
        parked_keys: count(10)?,
        retrying: count(11)?,
        parked: count(12)?,
        scheduled: count(13)?,
        dead: count(14)?,
        expired: count(15)?,
    })
}

fn unrouted(row: &PgRow) -> Result<UnroutedStatus, sqlx::Error> {
    Ok(UnroutedStatus {
        topic: row.try_get(0)?,
        count: row.try_get::<i64, _>(1)?.unsigned_abs(),
        first: row.try_get(2)?,
        last: row.try_get(3)?,
    })
}
