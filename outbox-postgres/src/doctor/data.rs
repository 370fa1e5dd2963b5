//! What stands in the way: old snapshots, dead rows, gaps, blocked keys, lost progress.

use outbox_core::{Finding, Seq, Severity, StoreError};
use sqlx::{PgConnection, Row};

use super::{bad, duration, ok};
use crate::admin::Desk;
use crate::error::OrStoreError;
use crate::incarnation::Incarnation;
use crate::sql::{
    ADMIN_LAST_SEQ, ADMIN_UNROUTED, DOCTOR_DEAD_TUPLES, DOCTOR_GAPS, DOCTOR_HORIZON, DOCTOR_KEYS,
    DOCTOR_PROGRESS,
};

const CONTEXT: &str = "examine the data";

/// Age in seconds at which an open transaction is worth a word.
const TRANSACTION_AGE_MAX: f64 = 600.0;

/// Transactions that a replication slot without a time may lie behind.
const HORIZON_AGE_MAX: i32 = 1_000_000;

/// Dead rows in one table at which autovacuum does not keep up: its own threshold for a small
/// table is far below.
const DEAD_TUPLES_MAX: i64 = 100_000;

/// An old snapshot stops nothing here, but everything that is updated anywhere bloats.
pub(super) async fn horizon(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<Finding, StoreError> {
    let rows = desk
        .query(DOCTOR_HORIZON)
        .fetch_all(tx)
        .await
        .or_store(CONTEXT)?;
    for row in &rows {
        let kind: String = row.try_get(0).or_store(CONTEXT)?;
        let name: Option<String> = row.try_get(1).or_store(CONTEXT)?;
        let age: i32 = row.try_get(2).or_store(CONTEXT)?;
        let seconds: Option<f64> = row.try_get(3).or_store(CONTEXT)?;
        let old = seconds.map_or(age > HORIZON_AGE_MAX, |s| s > TRANSACTION_AGE_MAX);
        if old {
            return Ok(held(&kind, &name.unwrap_or_default(), age, seconds));
        }
    }
    Ok(ok(
        "xmin_held",
        "no transaction, prepared transaction or slot is old",
    ))
}

fn held(kind: &str, name: &str, age: i32, seconds: Option<f64>) -> Finding {
    let since = seconds.map_or(String::new(), |s| format!(" for {}", duration(s)));
    let cure = match kind {
        "session" => "select pg_terminate_backend(pid), if it is not wanted",
        "prepared transaction" => "commit prepared or rollback prepared, with the name above",
        _ => "let its standby catch up, or pg_drop_replication_slot(name)",
    };
    bad(
        Severity::Warning,
        "xmin_held",
        format!(
            "{kind} {name} holds the xmin horizon{since}, {age} transactions behind: nothing \
                 that died since can be vacuumed"
        ),
        cure,
    )
}

pub(super) async fn dead_tuples(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
) -> Result<Finding, StoreError> {
    let row = desk
        .query(DOCTOR_DEAD_TUPLES)
        .fetch_optional(tx)
        .await
        .or_store(CONTEXT)?;
    let Some(row) = row else {
        return Ok(ok("dead_tuples", "no statistics yet"));
    };
    let table: String = row.try_get(0).or_store(CONTEXT)?;
    let dead: i64 = row.try_get(1).or_store(CONTEXT)?;
    let size: String = row.try_get(2).or_store(CONTEXT)?;
    let text = format!("{table} has the most dead rows: {dead}, in {size}");
    Ok(match dead {
        dead if dead > DEAD_TUPLES_MAX => bad(
            Severity::Warning,
            "dead_tuples",
            text,
            format!(
                "vacuum (verbose) {}.{table}; if it removes none, see xmin_held",
                desk.quoted()
            ),
        ),
        _ => ok("dead_tuples", text),
    })
}

pub(super) async fn gaps(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<Finding, StoreError> {
    let row = desk
        .query(DOCTOR_GAPS)
        .fetch_one(tx)
        .await
        .or_store(CONTEXT)?;
    let count: i64 = row.try_get(0).or_store(CONTEXT)?;
    if count == 0 {
        return Ok(ok("gaps_stuck", "no gap is open for over a minute"));
    }
    let seconds: f64 = row.try_get(1).or_store(CONTEXT)?;
    let lowest: Seq = row.try_get(2).or_store(CONTEXT)?;
    let holders: Option<String> = row.try_get(3).or_store(CONTEXT)?;
    Ok(bad(
        Severity::Warning,
        "gaps_stuck",
        format!(
            "{count} gaps are open for over a minute, the oldest for {} (from seq {lowest}): their \
             messages wait for a transaction to end. Writing to the log now: {}",
            duration(seconds),
            holders.as_deref().unwrap_or("nobody"),
        ),
        "end the oldest of these transactions; if nobody writes, let a relay lead the destination",
    ))
}

pub(super) async fn keys(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<Finding, StoreError> {
    let row = desk
        .query(DOCTOR_KEYS)
        .fetch_one(tx)
        .await
        .or_store(CONTEXT)?;
    let count: i64 = row.try_get(0).or_store(CONTEXT)?;
    if count == 0 {
        return Ok(ok("keys_blocked", "no key waits for an operator"));
    }
    let seconds: f64 = row.try_get(1).or_store(CONTEXT)?;
    let first: Option<String> = row.try_get(2).or_store(CONTEXT)?;
    Ok(bad(
        Severity::Warning,
        "keys_blocked",
        format!(
            "{count} keys wait behind a dead message, the longest for {}; the first is {}",
            duration(seconds),
            first.unwrap_or_default(),
        ),
        "outbox dead list, then outbox dead resend, discard or unblock",
    ))
}

pub(super) async fn unrouted(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
) -> Result<Finding, StoreError> {
    let rows = desk
        .query(ADMIN_UNROUTED)
        .fetch_all(tx)
        .await
        .or_store(CONTEXT)?;
    let Some(first) = rows.first() else {
        return Ok(ok("unrouted", "every message had a destination"));
    };
    let topic: String = first.try_get(0).or_store(CONTEXT)?;
    let count: i64 = first.try_get(1).or_store(CONTEXT)?;
    Ok(bad(
        Severity::Warning,
        "unrouted",
        format!(
            "messages of {} topics went nowhere, {count} of {topic:?} among them",
            rows.len()
        ),
        "correct the topic where it is enqueued, or declare a destination for it that starts at \
         the beginning",
    ))
}

/// Progress of another store stops the relay, and so does a sequence that fell behind it.
pub(super) async fn progress(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
) -> Result<Finding, StoreError> {
    let here = Incarnation::read(&mut *tx, desk.statements).await?;
    let row = desk
        .query(ADMIN_LAST_SEQ)
        .fetch_one(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let last_seq: Seq = row.try_get(0).or_store(CONTEXT)?;
    let rows = desk
        .query(DOCTOR_PROGRESS)
        .fetch_all(tx)
        .await
        .or_store(CONTEXT)?;
    for row in &rows {
        let name: String = row.try_get(0).or_store(CONTEXT)?;
        let stored: Option<String> = row.try_get(1).or_store(CONTEXT)?;
        let high_water: Seq = row.try_get(2).or_store(CONTEXT)?;
        let known = stored.as_ref().and_then(|s| s.parse::<Incarnation>().ok());
        if !known.is_some_and(|known| here.same_store(&known)) {
            return Ok(foreign(&name, stored.as_deref(), &here));
        }
        if high_water > last_seq {
            return Ok(behind(desk, &name, last_seq, high_water));
        }
    }
    Ok(ok(
        "progress",
        format!(
            "the progress of {} destinations was written here",
            rows.len()
        ),
    ))
}

fn foreign(name: &str, stored: Option<&str>, here: &Incarnation) -> Finding {
    bad(
        Severity::Error,
        "progress",
        format!(
            "progress of {name:?} was written on {}, this store is {here}: a copy must not publish",
            stored.unwrap_or("no store at all"),
        ),
        "if this store now takes over, run `outbox adopt`",
    )
}

fn behind(desk: &Desk<'_>, name: &str, last_seq: Seq, high_water: Seq) -> Finding {
    bad(
        Severity::Error,
        "progress",
        format!(
            "the sequence stands at {last_seq}, but {name:?} handed out messages up to \
                 {high_water}: new ones would be skipped"
        ),
        format!(
            "select setval('{}.message_seq', {high_water})",
            desk.quoted().replace('\'', "''")
        ),
    )
}
