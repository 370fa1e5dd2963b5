//! What stands in the way: old snapshots, dead rows, gaps, blocked keys, lost progress.

use std::fmt;

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

/// Somebody who keeps dead rows from being vacuumed.
#[derive(Clone, Debug)]
struct Holder {
    /// `session`, `prepared transaction` or `replication slot`.
    kind: String,
    name: String,
    /// Transactions begun since.
    age: i32,
    /// Seconds since it began; a slot does not say.
    seconds: Option<f64>,
}

impl Holder {
    fn is_old(&self) -> bool {
        self.seconds
            .map_or(self.age > HORIZON_AGE_MAX, |s| s > TRANSACTION_AGE_MAX)
    }

    fn cure(&self) -> &'static str {
        match self.kind.as_str() {
            "session" => "select pg_terminate_backend(pid), if it is not wanted",
            "prepared transaction" => "commit prepared or rollback prepared, with the name above",
            _ => "let its standby catch up, or pg_drop_replication_slot(name)",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if let Some(seconds) = self.seconds {
            write!(f, " for {}", duration(seconds))?;
        }
        write!(f, ", {} transactions behind", self.age)
    }
}

/// An old snapshot stops nothing here, but everything that is updated anywhere bloats.
pub(super) async fn horizon(desk: &Desk<'_>, tx: &mut PgConnection) -> Result<Finding, StoreError> {
    let rows = desk
        .query(DOCTOR_HORIZON)
        .fetch_all(tx)
        .await
        .or_store(CONTEXT)?;
    let holders: Result<Vec<Holder>, sqlx::Error> = rows
        .iter()
        .map(|row| {
            Ok(Holder {
                kind: row.try_get(0)?,
                name: row.try_get::<Option<String>, _>(1)?.unwrap_or_default(),
                age: row.try_get(2)?,
                seconds: row.try_get(3)?,
            })
        })
        .collect();
    Ok(held(&holders.or_store(CONTEXT)?))
}

fn held(holders: &[Holder]) -> Finding {
    let check = "xmin_held";
    if let Some(old) = holders.iter().find(|holder| holder.is_old()) {
        let text =
            format!("the xmin horizon is held by {old}: nothing that died since is vacuumed");
        return bad(Severity::Warning, check, text, old.cure());
    }
    let young: Vec<String> = holders.iter().map(Holder::to_string).collect();
    let oldest = match young.is_empty() {
        true => String::new(),
        false => format!("; the oldest: {}", young.join("; ")),
    };
    ok(
        check,
        format!("no transaction, prepared transaction or slot is old{oldest}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(kind: &str, age: i32, seconds: Option<f64>) -> Holder {
        Holder {
            kind: kind.to_owned(),
            name: "x".to_owned(),
            age,
            seconds,
        }
    }

    #[test]
    fn whoever_holds_the_horizon_too_long_is_named_with_how_to_end_it() {
        let young = holder("session", 5, Some(599.0));
        for (old, words, cure) in [
            (
                holder("session", 5, Some(601.0)),
                "session x for 10 min",
                "pg_terminate_backend",
            ),
            (
                holder("prepared transaction", 5, Some(7_300.0)),
                "prepared transaction x for 2.0 h",
                "rollback prepared",
            ),
            (
                holder("replication slot", HORIZON_AGE_MAX + 1, None),
                "replication slot x, 1000001 transactions behind",
                "pg_drop_replication_slot",
            ),
        ] {
            let found = held(&[young.clone(), old]);
            assert_eq!(found.severity, Severity::Warning, "{found:?}");
            assert!(found.text.contains(words), "{found:?}");
            assert!(found.cure.contains(cure), "{found:?}");
        }
    }

    #[test]
    fn a_young_transaction_and_a_slot_that_keeps_up_are_well() {
        let well = [
            holder("session", 5, Some(600.0)),
            holder("replication slot", HORIZON_AGE_MAX, None),
        ];
        assert_eq!(held(&well).severity, Severity::Ok);
        assert_eq!(held(&[]).severity, Severity::Ok);
    }
}
