//! Destinations and their routes, as declared.

use std::collections::BTreeSet;

use outbox_core::{Destination, Seq, Start, StoreError, limits};
use sqlx::SqliteConnection;

use crate::error::{failed, other};
use crate::opening::config;
use crate::row::{get, now, to_micros};
use crate::store::{SqliteStore, commit, last_seq};

const CONTEXT: &str = "declare the destinations";

const FIND: &str = "SELECT config FROM outbox_destination WHERE name = ?";

const CREATE: &str = "INSERT INTO outbox_destination (name, config, paused) VALUES (?, ?, ?)";

const CREATE_LEASE: &str = "INSERT INTO outbox_lease (destination) VALUES (?)";

const CREATE_PROGRESS: &str = "INSERT INTO outbox_progress \
     (destination, cursor, settled_at, window_cursor, window_at) VALUES (?1, ?2, ?3, ?2, ?3)";

/// The first destination counts what no route covers from its own start on.
const START_COUNTING: &str = "UPDATE outbox_store SET unrouted_through = max(unrouted_through, ?) \
     WHERE (SELECT count(*) FROM outbox_destination) = 1";

const CHANGE: &str = "UPDATE outbox_destination SET config = ?2, paused = ?3, \
     control_version = control_version + 1 WHERE name = ?1";

const OPEN_ROUTE: &str =
    "INSERT INTO outbox_route (destination, pattern, from_seq) VALUES (?, ?, ?)";

/// A route that was never in force goes.
const DROP_ROUTE: &str = "DELETE FROM outbox_route \
     WHERE destination = ?1 AND pattern = ?2 AND to_seq IS NULL AND from_seq > ?3";

const CLOSE_ROUTE: &str = "UPDATE outbox_route SET to_seq = ?3 \
     WHERE destination = ?1 AND pattern = ?2 AND to_seq IS NULL";

/// Before the oldest message that is retained.
const BEGINNING: &str = "SELECT seq - 1 FROM outbox_message ORDER BY seq LIMIT 1";

/// Before the first message created at or after a time.
const AT: &str = "SELECT seq - 1 FROM outbox_message WHERE created_at >= ? ORDER BY seq LIMIT 1";

/// Makes the store's destinations be these, in one transaction.
pub(crate) async fn declare(
    store: &SqliteStore,
    destinations: &[Destination],
) -> Result<(), StoreError> {
    for destination in destinations {
        check(destination)?;
    }
    // A time is looked for before the lock is taken: it may take a walk through the log. Messages
    // that arrive meanwhile are later than what is found.
    let mut starts = Vec::with_capacity(destinations.len());
    let mut read = store.read().await?;
    for destination in destinations {
        starts.push(start(&mut read, destination).await?);
    }
    drop(read);
    let mut tx = store.write().await?;
    for (destination, start) in destinations.iter().zip(starts) {
        match find(&mut tx, &destination.name).await? {
            None => create(&mut tx, destination, start).await?,
            Some(known) => change(&mut tx, &known, destination).await?,
        }
    }
    commit(tx).await
}

/// Names and numbers of patterns within bounds.
fn check(destination: &Destination) -> Result<(), StoreError> {
    let name = &destination.name;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let limit = limits::NAME_BYTES_MAX;
    if name.is_empty() || name.len() > limit || !name.bytes().all(allowed) {
        return Err(StoreError::Refused {
            problem: format!(
                "the destination name {name:?} ({} bytes) is not a name",
                name.len()
            ),
            cure: format!("give 1 to {limit} bytes of a-z 0-9 _ -"),
        });
    }
    let (count, limit) = (destination.patterns.len(), limits::PATTERNS_MAX);
    if count > limit {
        return Err(StoreError::Refused {
            problem: format!(
                "destination {name:?} has {count} topic patterns, the limit is {limit}"
            ),
            cure: "use fewer, wider patterns".to_owned(),
        });
    }
    Ok(())
}

async fn find(tx: &mut SqliteConnection, name: &str) -> Result<Option<Destination>, StoreError> {
    let row = sqlx::query(FIND)
        .bind(name.to_owned())
        .fetch_optional(tx)
        .await;
    let row = row.map_err(|e| failed(CONTEXT, e))?;
    row.map(|row| config(get(&row, 0)?)).transpose()
}

/// The cursor that a new destination would begin with.
async fn start(tx: &mut SqliteConnection, destination: &Destination) -> Result<Seq, StoreError> {
    let query = match destination.start {
        Start::End => return last_seq(tx).await,
        Start::Beginning => sqlx::query(BEGINNING),
        Start::At(time) => sqlx::query(AT).bind(to_micros(time)),
    };
    let found = query
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| failed(CONTEXT, e))?;
    match found {
        Some(row) => get(&row, 0),
        None => last_seq(tx).await,
    }
}

async fn create(
    tx: &mut SqliteConnection,
    destination: &Destination,
    start: Seq,
) -> Result<(), StoreError> {
    // `End` means the last seq now, under the lock.
    let cursor = match destination.start {
        Start::End => last_seq(tx).await?,
        _ => start,
    };
    let name = destination.name.clone();
    let statements = [
        sqlx::query(CREATE)
            .bind(name.clone())
            .bind(json(destination)?)
            .bind(destination.paused),
        sqlx::query(CREATE_LEASE).bind(name.clone()),
        sqlx::query(CREATE_PROGRESS)
            .bind(name.clone())
            .bind(cursor)
            .bind(now()),
        sqlx::query(START_COUNTING).bind(cursor),
    ];
    for statement in statements {
        statement
            .execute(&mut *tx)
            .await
            .map_err(|e| failed(CONTEXT, e))?;
    }
    for pattern in patterns(destination) {
        open_route(tx, &name, pattern, cursor + 1).await?;
    }
    Ok(())
}

async fn change(
    tx: &mut SqliteConnection,
    known: &Destination,
    declared: &Destination,
) -> Result<(), StoreError> {
    let declared = Destination {
        start: known.start,
        ..declared.clone()
    };
    if *known == declared {
        return Ok(());
    }
    let change = sqlx::query(CHANGE)
        .bind(declared.name.clone())
        .bind(json(&declared)?)
        .bind(declared.paused);
    change
        .execute(&mut *tx)
        .await
        .map_err(|e| failed(CONTEXT, e))?;
    let last = last_seq(tx).await?;
    let (old, new) = (patterns(known), patterns(&declared));
    for pattern in old.difference(&new) {
        for sql in [DROP_ROUTE, CLOSE_ROUTE] {
            let close = sqlx::query(sql)
                .bind(declared.name.clone())
                .bind((*pattern).to_owned())
                .bind(last);
            close
                .execute(&mut *tx)
                .await
                .map_err(|e| failed(CONTEXT, e))?;
        }
    }
    for pattern in new.difference(&old) {
        open_route(tx, &declared.name, pattern, last + 1).await?;
    }
    Ok(())
}

fn patterns(destination: &Destination) -> BTreeSet<&str> {
    destination.patterns.iter().map(|p| p.as_str()).collect()
}

async fn open_route(
    tx: &mut SqliteConnection,
    name: &str,
    pattern: &str,
    from: Seq,
) -> Result<(), StoreError> {
    let open = sqlx::query(OPEN_ROUTE)
        .bind(name.to_owned())
        .bind(pattern.to_owned())
        .bind(from);
    open.execute(tx)
        .await
        .map(drop)
        .map_err(|e| failed(CONTEXT, e))
}

fn json(destination: &Destination) -> Result<String, StoreError> {
    serde_json::to_string(destination).map_err(|e| other(CONTEXT, e))
}
