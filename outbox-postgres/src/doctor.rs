//! Looks for everything that is known to hurt.
//!
//! Each check has a stable name, answers at least one finding (an `Ok` too, so that one sees what was
//! looked at), and where all is not well a cure that can be pasted. `docs/operations.md` lists
//! them; a test holds that list and the checks together.
//!
//! Some views hide other users' sessions from a login without `pg_read_all_stats`: then a check
//! may see less, never more.

mod data;
mod log;
mod server;

use outbox_core::{Finding, Severity, StoreError};

use crate::admin::{Desk, version};

/// Checks whose error leaves nothing to be said about the data.
const STOPPERS: [&str; 2] = ["schema", "recovery"];

/// Runs every check. Without a usable schema only those of the server run.
pub(crate) async fn doctor(desk: &Desk<'_>) -> Result<Vec<Finding>, StoreError> {
    let mut tx = desk.begin_anywhere().await?;
    let schema = schema(version::check(desk, &mut tx).await)?;
    let mut findings = vec![schema];
    findings.extend(server::server(desk, &mut tx).await?);
    // Without the schema there is nothing to look at, and a standby does not say who it is.
    let stops = |f: &Finding| f.severity == Severity::Error && STOPPERS.contains(&&*f.check);
    if findings.iter().any(stops) {
        return Ok(findings);
    }
    findings.extend(server::roles(desk, &mut tx).await?);
    findings.push(log::sequence(desk, &mut tx).await?);
    findings.extend(log::partitions(desk, &mut tx).await?);
    findings.push(log::default_partition(desk, &mut tx).await?);
    findings.push(data::horizon(desk, &mut tx).await?);
    findings.push(data::dead_tuples(desk, &mut tx).await?);
    findings.push(data::gaps(desk, &mut tx).await?);
    findings.push(data::keys(desk, &mut tx).await?);
    findings.push(data::unrouted(desk, &mut tx).await?);
    findings.push(data::progress(desk, &mut tx).await?);
    Ok(findings)
}

fn schema(checked: Result<(), StoreError>) -> Result<Finding, StoreError> {
    match checked {
        Ok(()) => Ok(ok(
            "schema",
            format!(
                "the schema is at version {}",
                outbox_migrations::POSTGRES_VERSION
            ),
        )),
        Err(StoreError::Schema { problem, cure } | StoreError::Refused { problem, cure }) => {
            Ok(bad(Severity::Error, "schema", problem, cure))
        }
        Err(error) => Err(error),
    }
}

/// All is well.
fn ok(check: &str, text: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Ok,
        check: check.to_owned(),
        text: text.into(),
        cure: String::new(),
    }
}

/// Something is not.
fn bad(
    severity: Severity,
    check: &str,
    text: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        check: check.to_owned(),
        text: text.into(),
        cure: cure.into(),
    }
}

/// A length of time for a sentence.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}
