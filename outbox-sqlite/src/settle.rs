//! Settlements: one write transaction, guarded by the lease.

use outbox_core::{Exception, KeyRef, Lease, Seq, Settlement, StoreError};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::error::{failed, other};
use crate::limits::{RATE_IDLE, RATE_WINDOW};
use crate::row::{now, to_micros};
use crate::store::{holds, lost};

/// Moves the cursor, and the window of the rate: a new one begins when the old one is over, or the
/// destination was idle.
const CURSOR: &str = "UPDATE outbox_progress SET \
     rate = CASE WHEN ?3 - settled_at > ?5 THEN 0.0 \
                 WHEN ?3 - window_at >= ?4 \
                 THEN (?2 - window_cursor) * 1000000.0 / (?3 - window_at) ELSE rate END, \
     window_cursor = CASE WHEN ?3 - settled_at > ?5 THEN cursor \
                          WHEN ?3 - window_at >= ?4 THEN ?2 ELSE window_cursor END, \
     window_at = CASE WHEN ?3 - settled_at > ?5 OR ?3 - window_at >= ?4 THEN ?3 ELSE window_at END, \
     cursor = ?2, settled_at = ?3 WHERE destination = ?1 AND cursor < ?2";

const REMOVE: &str = "DELETE FROM outbox_delivery WHERE destination = ?1 \
     AND seq IN (SELECT value FROM json_each(?2))";

/// One statement for any number of rows.
const UPSERT: &str = "INSERT INTO outbox_delivery (destination, seq, topic, key, state, attempts, \
     next_attempt, last_error, redelivery, blocks_key) \
     SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
     value ->> 6, value ->> 7, value ->> 8 FROM json_each(?2) WHERE true \
     ON CONFLICT (destination, seq) DO UPDATE SET topic = excluded.topic, key = excluded.key, \
     state = excluded.state, attempts = excluded.attempts, next_attempt = excluded.next_attempt, \
     last_error = excluded.last_error, redelivery = excluded.redelivery, \
     blocks_key = excluded.blocks_key";

const MARK: &str = "INSERT INTO outbox_parked_key (destination, topic, key, from_seq) \
     VALUES (?, ?, ?, ?) ON CONFLICT (destination, topic, key) DO UPDATE SET from_seq = excluded.from_seq";

const UNMARK: &str =
    "DELETE FROM outbox_parked_key WHERE destination = ? AND topic = ? AND key = ?";

const APPLIED: &str = "DELETE FROM outbox_request WHERE destination = ?1 \
     AND id IN (SELECT value FROM json_each(?2))";

/// Whether there is nothing to write but perhaps the cursor. `late` has no meaning here: there are
/// no gaps.
pub(crate) fn is_empty(settlement: &Settlement) -> bool {
    settlement.upsert.is_empty()
        && settlement.remove.is_empty()
        && settlement.markers.is_empty()
        && settlement.requests.is_empty()
}

/// Writes `settlement` if `lease` is held; else nothing.
pub(crate) async fn write(
    tx: &mut SqliteConnection,
    lease: &Lease,
    settlement: &Settlement,
    read_to: Seq,
) -> Result<(), StoreError> {
    if !holds(tx, lease).await? {
        return Err(lost(lease));
    }
    if settlement.through > read_to {
        let (through, destination) = (settlement.through, &lease.destination);
        let text =
            format!("the cursor of {destination:?} cannot move to {through}: read to {read_to}");
        return Err(other("settle", text));
    }
    let destination = &lease.destination;
    move_cursor(tx, destination, settlement.through).await?;
    list(tx, REMOVE, destination, &settlement.remove).await?;
    let rows: Vec<Value> = settlement.upsert.iter().map(values).collect();
    list(tx, UPSERT, destination, &rows).await?;
    for (key, from) in &settlement.markers {
        mark(tx, destination, key, *from).await?;
    }
    list(tx, APPLIED, destination, &settlement.requests).await
}

async fn move_cursor(
    tx: &mut SqliteConnection,
    destination: &str,
    through: Seq,
) -> Result<(), StoreError> {
    let moved = sqlx::query(CURSOR)
        .bind(destination.to_owned())
        .bind(through)
        .bind(now())
        .bind(RATE_WINDOW.as_micros() as i64)
        .bind(RATE_IDLE.as_micros() as i64);
    moved
        .execute(tx)
        .await
        .map(drop)
        .map_err(|e| failed("settle", e))
}

/// Runs `sql` with `items` as one JSON array; nothing for none.
async fn list<T: serde::Serialize>(
    tx: &mut SqliteConnection,
    sql: &'static str,
    destination: &str,
    items: &[T],
) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_string(items).map_err(|e| other("settle", e))?;
    let run = sqlx::query(sql)
        .bind(destination.to_owned())
        .bind(json)
        .execute(tx)
        .await;
    run.map(drop).map_err(|e| failed("settle", e))
}

/// The columns of a row, in the order of [`UPSERT`].
fn values(row: &Exception) -> Value {
    json!([
        row.seq,
        &*row.topic,
        row.key.as_deref(),
        row.state.as_str(),
        row.attempts,
        row.next_attempt.map(to_micros),
        row.last_error.as_deref(),
        row.redelivery,
        row.blocks_key,
    ])
}

async fn mark(
    tx: &mut SqliteConnection,
    destination: &str,
    key: &KeyRef,
    from: Option<Seq>,
) -> Result<(), StoreError> {
    let sql = if from.is_some() { MARK } else { UNMARK };
    let mut query = sqlx::query(sql)
        .bind(destination.to_owned())
        .bind(key.topic.to_string())
        .bind(key.key.to_string());
    if let Some(from) = from {
        query = query.bind(from);
    }
    query
        .execute(tx)
        .await
        .map(drop)
        .map_err(|e| failed("settle", e))
}
