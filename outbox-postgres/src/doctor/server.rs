//! The server and its roles.

use chrono::{DateTime, TimeDelta, Utc};
use outbox_core::{Finding, Severity, StoreError};
use sqlx::{PgConnection, Row};

use super::{bad, ok};
use crate::admin::Desk;
use crate::error::OrStoreError;
use crate::sql::{DOCTOR_ROLES, DOCTOR_SERVER, DOCTOR_VACUUM_OFF};

const CONTEXT: &str = "examine the server";

/// Oldest server that is supported, as `server_version_num`.
const VERSION_MIN: i32 = 150_000;

/// First one that is not known to work.
const VERSION_END: i32 = 190_000;

/// Most that the server's clock and ours may differ: times at which messages are due come from
/// both.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::seconds(2);

pub(super) async fn server(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
) -> Result<Vec<Finding>, StoreError> {
    let before = Utc::now();
    let row = desk
        .query(DOCTOR_SERVER)
        .fetch_one(&mut *tx)
        .await
        .or_store(CONTEXT)?;
    let after = Utc::now();
    let flag = |at: usize| row.try_get::<bool, _>(at).or_store(CONTEXT);
    let switched_off = desk.query(DOCTOR_VACUUM_OFF).fetch_optional(tx).await;
    // The schema may be missing; that is another check's finding.
    let switched_off: Option<String> = match switched_off {
        Ok(Some(row)) => row.try_get(0).or_store(CONTEXT)?,
        _ => None,
    };
    let name: String = row.try_get(1).or_store(CONTEXT)?;
    let there: DateTime<Utc> = row.try_get(8).or_store(CONTEXT)?;
    Ok(vec![
        version(row.try_get(0).or_store(CONTEXT)?, &name),
        recovery(flag(2)?),
        durability(flag(3)?, flag(4)?, flag(5)?),
        autovacuum(flag(6)? && flag(7)?, switched_off),
        clock(before, there, after),
    ])
}

fn version(number: i32, name: &str) -> Finding {
    let check = "server_version";
    match number {
        n if n < VERSION_MIN => bad(
            Severity::Error,
            check,
            format!("PostgreSQL {name} is older than 15"),
            "upgrade the server to 15 or later",
        ),
        n if n >= VERSION_END => bad(
            Severity::Warning,
            check,
            format!("PostgreSQL {name} is newer than any that outbox was tested with"),
            "look for a newer outbox",
        ),
        _ => ok(check, format!("PostgreSQL {name}")),
    }
}

fn recovery(recovering: bool) -> Finding {
    match recovering {
        false => ok("recovery", "the server is a primary"),
        true => bad(
            Severity::Error,
            "recovery",
            "the server is a standby: no relay can run on it",
            "name the primary in the store's url",
        ),
    }
}

fn durability(fsync: bool, full_pages: bool, synchronous: bool) -> Finding {
    let check = "durability";
    match (fsync && full_pages, synchronous) {
        (false, _) => bad(
            Severity::Error,
            check,
            "fsync or full_page_writes is off: a crash of the machine may lose everything",
            "set fsync = on and full_page_writes = on in postgresql.conf and reload",
        ),
        (_, false) => bad(
            Severity::Warning,
            check,
            "synchronous_commit is off by default: a crash takes back transactions that had \
             committed (none of their messages is sent before it is durable)",
            "set synchronous_commit = on for the enqueuing roles",
        ),
        _ => ok(check, "commits are durable"),
    }
}

fn autovacuum(running: bool, switched_off: Option<String>) -> Finding {
    let check = "autovacuum";
    match (running, switched_off) {
        (false, _) => bad(
            Severity::Warning,
            check,
            "autovacuum or track_counts is off: the small tables will bloat",
            "set autovacuum = on and track_counts = on in postgresql.conf and reload",
        ),
        (true, Some(tables)) => bad(
            Severity::Warning,
            check,
            format!("autovacuum is switched off for {tables}"),
            "alter table … reset (autovacuum_enabled) for each of them",
        ),
        (true, None) => ok(check, "autovacuum is on"),
    }
}

/// The server's time lies between ours before and after asking, if the clocks agree.
fn clock(before: DateTime<Utc>, there: DateTime<Utc>, after: DateTime<Utc>) -> Finding {
    let skew = match there {
        t if t < before => before - t,
        t if t > after => t - after,
        _ => TimeDelta::zero(),
    };
    let text = format!(
        "the server's clock and this machine's differ by {} ms at least",
        skew.num_milliseconds()
    );
    match skew > CLOCK_SKEW_MAX {
        false => ok("clock_skew", text),
        true => bad(
            Severity::Warning,
            "clock_skew",
            text,
            "run a time service on both machines",
        ),
    }
}

pub(super) async fn roles(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
) -> Result<Vec<Finding>, StoreError> {
    let row = desk
        .query(DOCTOR_ROLES)
        .fetch_one(tx)
        .await
        .or_store(CONTEXT)?;
    let names = |at: usize| row.try_get::<Option<String>, _>(at).or_store(CONTEXT);
    let settings = row.try_get::<Option<bool>, _>(3).or_store(CONTEXT)?;
    Ok(vec![
        missing_roles(names(0)?),
        row_security(desk, names(2)?),
        relay_settings(settings.unwrap_or(false)),
        function_rights(names(1)?, names(4)?),
    ])
}

fn missing_roles(missing: Option<String>) -> Finding {
    match missing {
        None => ok("roles", "the roles of outbox are there"),
        Some(missing) => bad(
            Severity::Warning,
            "roles",
            format!(
                "missing roles: {missing}; whoever uses the outbox needs the rights of the \
                     owner of its tables"
            ),
            "create them with `create role … nologin` and grant what docs/operations.md lists",
        ),
    }
}

fn row_security(desk: &Desk<'_>, tables: Option<String>) -> Finding {
    match tables {
        None => ok("row_security", "no table hides rows"),
        Some(tables) => bad(
            Severity::Error,
            "row_security",
            format!(
                "row-level security is enabled for {tables}: a message that a relay is not \
                     shown would be lost, so it refuses to run"
            ),
            format!("alter table {}.… disable row level security", desk.quoted()),
        ),
    }
}

fn relay_settings(right: bool) -> Finding {
    match right {
        true => ok(
            "relay_settings",
            "outbox_relay fails on hidden rows and plans for itself",
        ),
        false => bad(
            Severity::Warning,
            "relay_settings",
            "the role outbox_relay lost row_security = off or plan_cache_mode = force_custom_plan",
            "alter role outbox_relay set row_security = off; alter role outbox_relay set \
             plan_cache_mode = force_custom_plan",
        ),
    }
}

fn function_rights(of_logins: Option<String>, public: Option<String>) -> Finding {
    let check = "function_rights";
    match (public, of_logins) {
        (Some(functions), _) => bad(
            Severity::Error,
            check,
            format!("everybody may execute {functions}"),
            "revoke execute on function … from public for each of them",
        ),
        (None, Some(functions)) => bad(
            Severity::Warning,
            check,
            format!("{functions} run with the rights of a role that can log in"),
            "let a superuser run `alter function … owner to` outbox_owner (enqueue…, accept) or \
             outbox_maintainer (maintain_…, default_rows)",
        ),
        (None, None) => ok(
            check,
            "the functions run with the rights of roles nobody logs in as",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_too_old_is_an_error_and_one_too_new_a_warning() {
        assert_eq!(version(149_999, "14.9").severity, Severity::Error);
        assert_eq!(version(150_000, "15.0").severity, Severity::Ok);
        assert_eq!(version(189_999, "18.9").severity, Severity::Ok);
        assert_eq!(version(190_000, "19.0").severity, Severity::Warning);
    }

    #[test]
    fn clocks_that_differ_by_more_than_two_seconds_are_a_warning_either_way() {
        let before = Utc::now();
        let after = before + TimeDelta::seconds(10);
        let at = |millis| clock(before, before + TimeDelta::milliseconds(millis), after);
        // A slow answer is no skew: the server read its clock at some instant in between.
        for well in [-2_000, 0, 5_000, 10_000, 12_000] {
            assert_eq!(at(well).severity, Severity::Ok, "{well} ms");
        }
        for skewed in [-2_001, 12_001] {
            let found = at(skewed);
            assert_eq!(found.severity, Severity::Warning, "{skewed} ms");
            assert!(found.text.contains("2001 ms"), "{found:?}");
            assert!(found.cure.contains("time service"), "{found:?}");
        }
    }

    #[test]
    fn what_is_not_durable_is_told_apart_by_what_it_costs() {
        for (fsync, full_pages, synchronous, severity) in [
            (true, true, true, Severity::Ok),
            (false, true, true, Severity::Error),
            (true, false, true, Severity::Error),
            (true, true, false, Severity::Warning),
        ] {
            let found = durability(fsync, full_pages, synchronous);
            assert_eq!(found.severity, severity, "{found:?}");
        }
    }
}
