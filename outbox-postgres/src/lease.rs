//! Heart beats and leases.
//!
//! The store's clock is never compared: observers watch whether a beat changes, on their own clocks.

use outbox_core::{Beat, Board, Lease, LeaseRow, StoreError, limits};
use sqlx::{PgConnection, Row};

use crate::error::OrStoreError;
use crate::sql::{BEAT, CLAIM, LEASES, LEAVE, RELAYS, RELEASE, Statements};

/// Beats for `instance` and reads everybody's beats and leases.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    statements: &Statements,
    instance: &str,
) -> Result<Board, StoreError> {
    check_instance(instance)?;
    let doing = "beat the relay's heart";
    statements
        .query(BEAT)
        .bind(instance)
        .execute(&mut *connection)
        .await
        .or_store(doing)?;
    let relays = statements
        .query(RELAYS)
        .fetch_all(&mut *connection)
        .await
        .or_store(doing)?;
    let leases = statements
        .query(LEASES)
        .fetch_all(&mut *connection)
        .await
        .or_store(doing)?;
    let instances = relays.iter().map(|row| Beat {
        instance: row.get(0),
        beat: row.get(1),
    });
    let leases = leases.iter().map(|row| LeaseRow {
        destination: row.get(0),
        owner: row.get(1),
        epoch: row.get(2),
        paused: row.get(3),
        control_version: row.get(4),
    });
    Ok(Board {
        instances: instances.collect(),
        leases: leases.collect(),
    })
}

/// Takes a lease that is still as it was seen.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    statements: &Statements,
    seen: &LeaseRow,
    instance: &str,
) -> Result<Option<Lease>, StoreError> {
    check_instance(instance)?;
    let row = statements
        .query(CLAIM)
        .bind(&seen.destination)
        .bind(instance)
        .bind(&seen.owner)
        .bind(seen.epoch)
        .fetch_optional(connection)
        .await
        .or_store("claim the lease")?;
    Ok(row.map(|row| Lease {
        destination: seen.destination.clone(),
        owner: instance.to_owned(),
        epoch: row.get(0),
    }))
}

/// Gives a lease back, unless it was lost.
pub(crate) async fn release(
    connection: &mut PgConnection,
    statements: &Statements,
    lease: &Lease,
) -> Result<(), StoreError> {
    statements
        .query(RELEASE)
        .bind(&lease.destination)
        .bind(&lease.owner)
        .bind(lease.epoch)
        .execute(connection)
        .await
        .or_store("release the lease")?;
    Ok(())
}

/// Takes a relay off the board.
pub(crate) async fn leave(
    connection: &mut PgConnection,
    statements: &Statements,
    instance: &str,
) -> Result<(), StoreError> {
    statements
        .query(LEAVE)
        .bind(instance)
        .execute(connection)
        .await
        .or_store("leave")?;
    Ok(())
}

fn check_instance(instance: &str) -> Result<(), StoreError> {
    let (bytes, limit) = (instance.len(), limits::NAME_BYTES_MAX);
    if bytes == 0 || bytes > limit {
        return Err(StoreError::Refused {
            problem: format!(
                "the relay's instance is {bytes} bytes long, the limits are 1 and {limit}"
            ),
            cure: "choose another name".to_owned(),
        });
    }
    Ok(())
}
