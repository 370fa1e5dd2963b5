//! What operators look at: status, delivery rows, one message.

use outbox_core::{
    Destination, DestinationStatus, ExceptionFilter, ExceptionRow, MessageDetail, Pending, Seq,
    Status, StoreError, UnroutedStatus,
};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::coverage::Routes;
use crate::error::failed;
use crate::limits::{EXCEPTIONS_DEFAULT, RATE_IDLE};
use crate::opening::config;
use crate::request::check_name;
use crate::row::{Strings, from_micros, get, message_columns, now, pending, state, uuid};
use crate::store::last_seq;

const CONTEXT: &str = "read the status";

/// Everything about each destination but the counts.
const DESTINATIONS: &str = "SELECT d.config, d.paused, l.owner, l.epoch, p.cursor, \
     CASE WHEN ?1 - p.settled_at < ?2 THEN p.rate ELSE 0.0 END, \
     (SELECT m.created_at FROM outbox_message m WHERE m.seq > p.cursor ORDER BY m.seq LIMIT 1), \
     (SELECT count(*) FROM outbox_parked_key k WHERE k.destination = d.name) \
     FROM outbox_destination d JOIN outbox_lease l ON l.destination = d.name \
     JOIN outbox_progress p ON p.destination = d.name ORDER BY d.name";

const COUNTS: &str = "SELECT sum(state = 'retrying'), sum(state = 'parked'), \
     sum(state = 'scheduled'), sum(state = 'dead'), sum(state = 'expired') \
     FROM outbox_delivery WHERE destination = ?";

const UNROUTED: &str = "SELECT topic, count, first, last FROM outbox_unrouted ORDER BY topic";

const EXCEPTIONS: &str = "SELECT d.destination, d.seq, m.id, d.topic, d.key, d.state, d.attempts, \
     d.next_attempt, d.last_error, d.blocks_key, m.created_at \
     FROM outbox_delivery d JOIN outbox_message m ON m.seq = d.seq \
     WHERE (?1 IS NULL OR d.destination = ?1) AND (?2 IS NULL OR d.state = ?2) AND d.seq > ?3 \
     ORDER BY d.seq, d.destination LIMIT ?4";

/// There is no index by id: this reads the log once. It is an operator's question, not a service's.
const MESSAGE: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", m.payload FROM outbox_message m WHERE m.id = ? LIMIT 1"
);

/// Each destination's cursor, the row of a seq if any, and whether a marker stands for it.
const STATUSES: &str = "SELECT d.name, p.cursor, v.state, EXISTS (SELECT 1 FROM outbox_parked_key k \
     WHERE k.destination = d.name AND k.topic = ?2 AND k.key = ?3 AND k.from_seq <= ?1) \
     FROM outbox_destination d JOIN outbox_progress p ON p.destination = d.name \
     LEFT JOIN outbox_delivery v ON v.destination = d.name AND v.seq = ?1 ORDER BY d.name";

/// The store at a glance.
pub(crate) async fn status(tx: &mut SqliteConnection) -> Result<Status, StoreError> {
    let now = now();
    let last_seq = last_seq(tx).await?;
    let rows = sqlx::query(DESTINATIONS)
        .bind(now)
        .bind(RATE_IDLE.as_micros() as i64)
        .fetch_all(&mut *tx)
        .await;
    let mut destinations = Vec::new();
    for row in rows.map_err(|e| failed(CONTEXT, e))? {
        destinations.push(destination(tx, &row, last_seq, now).await?);
    }
    let unrouted = sqlx::query(UNROUTED)
        .fetch_all(tx)
        .await
        .map_err(|e| failed(CONTEXT, e))?;
    let unrouted = unrouted.iter().map(|row| {
        Ok(UnroutedStatus {
            topic: get(row, 0)?,
            count: get(row, 1)?,
            first: get(row, 2)?,
            last: get(row, 3)?,
        })
    });
    Ok(Status {
        last_seq,
        destinations,
        unrouted: unrouted.collect::<Result<_, StoreError>>()?,
    })
}

async fn destination(
    tx: &mut SqliteConnection,
    row: &SqliteRow,
    last_seq: Seq,
    now: i64,
) -> Result<DestinationStatus, StoreError> {
    let Destination {
        name,
        patterns,
        broker,
        ..
    } = config(get(row, 0)?)?;
    let counts = sqlx::query(COUNTS).bind(name.clone()).fetch_one(tx).await;
    let counts = counts.map_err(|e| failed(CONTEXT, e))?;
    let count = |at| Ok::<u64, StoreError>(get::<Option<u64>>(&counts, at)?.unwrap_or(0));
    let cursor: Seq = get(row, 4)?;
    let oldest: Option<i64> = get(row, 6)?;
    Ok(DestinationStatus {
        name,
        patterns: patterns.into_iter().map(String::from).collect(),
        broker,
        paused: get(row, 1)?,
        owner: get(row, 2)?,
        epoch: get(row, 3)?,
        cursor,
        pending: u64::try_from(last_seq - cursor).unwrap_or(0),
        oldest_pending_seconds: oldest.map(|at| (now - at).max(0) as f64 / 1_000_000.0),
        seqs_per_second: get(row, 5)?,
        gaps: 0,
        retrying: count(0)?,
        parked: count(1)?,
        parked_keys: get(row, 7)?,
        scheduled: count(2)?,
        dead: count(3)?,
        expired: count(4)?,
    })
}

/// Delivery rows that match, by seq.
pub(crate) async fn exceptions(
    tx: &mut SqliteConnection,
    filter: &ExceptionFilter,
) -> Result<Vec<ExceptionRow>, StoreError> {
    // Nothing found at a mistyped destination would read as if all were well there.
    if let Some(wanted) = &filter.destination {
        check_name(tx, wanted).await?;
    }
    let limit = if filter.limit == 0 {
        EXCEPTIONS_DEFAULT
    } else {
        filter.limit
    };
    let rows = sqlx::query(EXCEPTIONS)
        .bind(filter.destination.clone())
        .bind(filter.state.map(|s| s.as_str()))
        .bind(filter.after_seq.unwrap_or(0))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(tx)
        .await;
    rows.map_err(|e| failed("read the exceptions", e))?
        .iter()
        .map(exception_row)
        .collect()
}

fn exception_row(row: &SqliteRow) -> Result<ExceptionRow, StoreError> {
    Ok(ExceptionRow {
        destination: get(row, 0)?,
        seq: get(row, 1)?,
        id: uuid(row, 2)?,
        topic: get(row, 3)?,
        key: get(row, 4)?,
        state: state(row, 5)?,
        attempts: get(row, 6)?,
        next_attempt: get::<Option<i64>>(row, 7)?.map(from_micros).transpose()?,
        last_error: get(row, 8)?,
        blocks_key: get(row, 9)?,
        created_at: from_micros(get(row, 10)?)?,
    })
}

/// One message with its state at every destination.
pub(crate) async fn message(
    tx: &mut SqliteConnection,
    id: Uuid,
) -> Result<Option<MessageDetail>, StoreError> {
    let row = sqlx::query(MESSAGE)
        .bind(id.as_bytes().to_vec())
        .fetch_optional(&mut *tx)
        .await;
    let Some(row) = row.map_err(|e| failed("read a message", e))? else {
        return Ok(None);
    };
    let found = pending(&row, &mut Strings::default())?;
    let statuses = statuses(tx, &found).await?;
    Ok(Some(MessageDetail {
        seq: found.seq,
        id: found.id,
        topic: found.topic.to_string(),
        key: found.key.map(|k| k.to_string()),
        content_type: found.content_type.to_string(),
        headers: found.headers.map(|h| (*h).clone()).unwrap_or_default(),
        payload: found.payload,
        created_at: found.created_at,
        statuses,
    }))
}

async fn statuses(
    tx: &mut SqliteConnection,
    message: &Pending,
) -> Result<Vec<(String, String)>, StoreError> {
    let routes = Routes::read(tx, 0).await?;
    let rows = sqlx::query(STATUSES)
        .bind(message.seq)
        .bind(message.topic.to_string())
        .bind(message.key.as_deref().map(str::to_owned))
        .fetch_all(tx)
        .await;
    let mut statuses = Vec::new();
    for row in rows.map_err(|e| failed("read a message", e))? {
        let (name, cursor): (String, Seq) = (get(&row, 0)?, get(&row, 1)?);
        let (state, marked): (Option<&str>, bool) = (get(&row, 2)?, get(&row, 3)?);
        let covered = routes.cover_for(&name, &message.topic, message.seq);
        let status = match state {
            Some(state) => state,
            None if !covered => "unrouted",
            None if message.seq > cursor => "pending",
            None if marked => "parked",
            None => "sent",
        };
        let status = status.to_owned();
        statuses.push((name, status));
    }
    Ok(statuses)
}
