//! Messages with a delivery row or behind a marker, and what operators asked for.
//!
//! Rows are read first and their messages fetched by constant seqs, so that only the partitions
//! they lie in are opened.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use outbox_core::{
    DeliveryState, Due, Exception, KeyRef, PageLimit, Parked, Pending, Request, RequestAction,
    Requested, Seq, StoreError, Waiting, limits,
};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::error::{OrStoreError, damaged};
use crate::page_rows::copy_rows;
use crate::page_statement::{copy_seqs, heads_of_seqs, lengths_of_key, lengths_of_seqs};
use crate::session::PostgresSession;
use crate::sql::{DUE, PARKED, REQUESTED, REQUESTS};

/// Most seqs of the log that one look behind a marker scans: they are filtered by key, not
/// found by an index.
const MARKER_SCAN_SEQS: Seq = 250_000;

/// Most messages of all requests handed out at once.
const REQUESTED_MAX: usize = 1_000;

/// Messages that are due at `now`, earliest first.
pub(crate) async fn due(
    session: &mut PostgresSession,
    now: DateTime<Utc>,
    limit: PageLimit,
) -> Result<Due, StoreError> {
    let doing = "read what is due";
    let rows = session
        .store
        .query(DUE)
        .bind(&session.lease.destination)
        .bind(i64::try_from(limit.rows.max(1)).unwrap_or(i64::MAX - 1) + 1)
        .fetch_all(&mut session.connection)
        .await
        .or_store(doing)?;
    let rows: Vec<WaitingRow> = rows
        .iter()
        .map(WaitingRow::read)
        .collect::<Result<_, _>>()?;
    let due = rows
        .iter()
        .take_while(|row| row.next_attempt <= now)
        .take(limit.rows.max(1));
    let seqs: Vec<Seq> = due.map(|row| row.seq).collect();
    let (mut messages, taken) = fetch(session, &seqs, limit.bytes).await?;
    let next = rows.get(taken).map(|row| row.next_attempt);
    let messages = rows[..taken].iter().filter_map(|row| {
        let mut message = messages.remove(&row.seq)?;
        message.attempts = row.attempts;
        message.redelivery = row.redelivery;
        Some(Waiting {
            message,
            state: row.state,
            blocks_key: row.blocks_key,
        })
    });
    Ok(Due {
        messages: messages.collect(),
        next,
    })
}

struct WaitingRow {
    seq: Seq,
    state: DeliveryState,
    attempts: u32,
    redelivery: u32,
    blocks_key: bool,
    next_attempt: DateTime<Utc>,
}

impl WaitingRow {
    fn read(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.get(0),
            state: state(row.get(1))?,
            attempts: row.get::<i32, _>(2).unsigned_abs(),
            redelivery: row.get::<i32, _>(3).unsigned_abs(),
            blocks_key: row.get(4),
            next_attempt: row.get(5),
        })
    }
}

fn state(word: &str) -> Result<DeliveryState, StoreError> {
    DeliveryState::from_word(word)
        .ok_or_else(|| damaged("read a delivery", format!("{word:?} is no state")))
}

/// The first parked messages of a key: its rows, else its followers behind the marker.
pub(crate) async fn parked(
    session: &mut PostgresSession,
    key: &KeyRef,
    limit: PageLimit,
) -> Result<Parked, StoreError> {
    let rows_max = limit.rows.max(1);
    let rows = session
        .store
        .query(PARKED)
        .bind(&session.lease.destination)
        .bind(&*key.topic)
        .bind(&*key.key)
        .bind(i64::try_from(rows_max).unwrap_or(i64::MAX - 1) + 1)
        .fetch_all(&mut session.connection)
        .await
        .or_store("read a key's parked messages")?;
    let marker: Option<Seq> = rows.iter().find_map(|row| row.get(3));
    let rows: Vec<(Seq, i32, i32)> = rows
        .iter()
        .filter_map(|row| Some((row.get::<Option<Seq>, _>(0)?, row.get(1), row.get(2))))
        .collect();
    if rows.is_empty() {
        return match marker {
            Some(from) => behind_marker(session, key, from, limit).await,
            None => Ok(Parked::default()),
        };
    }
    let seqs: Vec<Seq> = rows.iter().take(rows_max).map(|row| row.0).collect();
    let (mut messages, taken) = fetch(session, &seqs, limit.bytes).await?;
    let parked = rows[..taken]
        .iter()
        .filter_map(|&(seq, attempts, redelivery)| {
            let mut message = messages.remove(&seq)?;
            message.attempts = attempts.unsigned_abs();
            message.redelivery = redelivery.unsigned_abs();
            Some(message)
        });
    Ok(Parked {
        messages: parked.collect(),
        through: None,
        more: taken < rows.len() || marker.is_some(),
    })
}

/// Re-reads a key's followers from the log, one stretch at a time.
async fn behind_marker(
    session: &mut PostgresSession,
    key: &KeyRef,
    from: Seq,
    limit: PageLimit,
) -> Result<Parked, StoreError> {
    let rows_max = limit.rows.max(1);
    let end = session
        .position
        .min(from.saturating_add(MARKER_SCAN_SEQS - 1));
    let sql = lengths_of_key(
        session.store.schema(),
        &session.lease.destination,
        key,
        (from, end),
        rows_max,
    );
    let found = lengths(&mut session.connection, sql).await?;
    let ours: Vec<(Seq, usize)> = found
        .iter()
        .copied()
        .filter(|&(seq, _)| session.routes.ours(seq, &key.topic))
        .collect();
    let taken = within(&ours, limit.bytes);
    let seqs: Vec<Seq> = ours[..taken].iter().map(|&(seq, _)| seq).collect();
    let messages = fetch_all(session, &seqs).await?;
    let through = if taken < ours.len() {
        ours[taken - 1].0
    } else if found.len() >= rows_max {
        found.last().map_or(end, |&(seq, _)| seq)
    } else {
        end.max(from - 1)
    };
    Ok(Parked {
        messages: messages.into_values().collect(),
        through: Some(through),
        more: through < session.position,
    })
}

/// What operators asked for, with the delivery rows of the messages.
pub(crate) async fn requests(session: &mut PostgresSession) -> Result<Vec<Request>, StoreError> {
    let doing = "read what operators asked for";
    let rows = session
        .store
        .query(REQUESTS)
        .bind(&session.lease.destination)
        .fetch_all(&mut session.connection)
        .await
        .or_store(doing)?;
    let mut requests = Vec::new();
    let mut messages = 0;
    for row in &rows {
        let (id, word, seqs): (i64, &str, Vec<Seq>) = (row.get(0), row.get(1), row.get(2));
        messages += seqs.len();
        if messages > REQUESTED_MAX && !requests.is_empty() {
            break;
        }
        let action = RequestAction::from_word(word)
            .ok_or_else(|| damaged(doing, format!("{word:?} is no action")))?;
        let messages = requested(session, &seqs).await?;
        requests.push(Request {
            id,
            action,
            messages,
        });
    }
    Ok(requests)
}

/// The messages of one request; those that are not retained are left out.
async fn requested(
    session: &mut PostgresSession,
    seqs: &[Seq],
) -> Result<Vec<Requested>, StoreError> {
    let doing = "read what operators asked for";
    let sql = heads_of_seqs(session.store.schema(), seqs);
    let heads = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(&mut session.connection)
        .await
        .or_store(doing)?;
    let column = |at: usize| -> Vec<Option<&str>> { heads.iter().map(|row| row.get(at)).collect() };
    let seqs: Vec<Seq> = heads.iter().map(|row| row.get(0)).collect();
    let rows = session
        .store
        .query(REQUESTED)
        .bind(&session.lease.destination)
        .bind(seqs)
        .bind(column(1))
        .bind(column(2))
        .fetch_all(&mut session.connection)
        .await
        .or_store(doing)?;
    rows.iter().map(read_requested).collect()
}

fn read_requested(row: &PgRow) -> Result<Requested, StoreError> {
    let seq: Seq = row.get(0);
    let topic: std::sync::Arc<str> = row.get::<&str, _>(1).into();
    let key: Option<std::sync::Arc<str>> = row.get::<Option<&str>, _>(2).map(Into::into);
    let exception = match row.get::<Option<&str>, _>(3) {
        None => None,
        Some(word) => Some(Exception {
            seq,
            topic: topic.clone(),
            key: key.clone(),
            state: state(word)?,
            attempts: row.get::<i32, _>(4).unsigned_abs(),
            next_attempt: row.get(5),
            last_error: row.get(6),
            redelivery: row.get::<i32, _>(7).unsigned_abs(),
            blocks_key: row.get(8),
        }),
    };
    Ok(Requested {
        seq,
        topic,
        key,
        exception,
    })
}

/// The messages of the first of `seqs` that fit into `bytes` (one always does), and how many
/// of `seqs` those are. A message that is not retained any more is left out, and reported.
async fn fetch(
    session: &mut PostgresSession,
    seqs: &[Seq],
    bytes: usize,
) -> Result<(BTreeMap<Seq, Pending>, usize), StoreError> {
    let mut taken = seqs.len();
    if seqs.len().saturating_mul(limits::PAYLOAD_BYTES_MAX) > bytes {
        let sql = lengths_of_seqs(session.store.schema(), seqs);
        let known: BTreeMap<Seq, usize> = lengths(&mut session.connection, sql)
            .await?
            .into_iter()
            .collect();
        let in_order: Vec<(Seq, usize)> = seqs
            .iter()
            .map(|seq| (*seq, known.get(seq).copied().unwrap_or(0)))
            .collect();
        taken = within(&in_order, bytes);
    }
    let messages = fetch_all(session, &seqs[..taken]).await?;
    if let Some(seq) = seqs[..taken].iter().find(|seq| !messages.contains_key(seq)) {
        tracing::error!(
            destination = session.lease.destination,
            seq,
            "a message with a delivery row is not retained any more: discard it"
        );
    }
    Ok((messages, taken))
}

/// How many of the first fit into `bytes`: at least one.
fn within(lengths: &[(Seq, usize)], bytes: usize) -> usize {
    let mut total = 0usize;
    let fit = lengths.iter().take_while(|(_, length)| {
        total = total.saturating_add(*length);
        total <= bytes
    });
    fit.count().max(1).min(lengths.len())
}

async fn lengths(
    connection: &mut PgConnection,
    sql: String,
) -> Result<Vec<(Seq, usize)>, StoreError> {
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(connection)
        .await
        .or_store("measure messages")?;
    Ok(rows
        .iter()
        .map(|row| {
            (
                row.get(0),
                usize::try_from(row.get::<i32, _>(1)).unwrap_or(0),
            )
        })
        .collect())
}

async fn fetch_all(
    session: &mut PostgresSession,
    seqs: &[Seq],
) -> Result<BTreeMap<Seq, Pending>, StoreError> {
    let mut messages = BTreeMap::new();
    if seqs.is_empty() {
        return Ok(messages);
    }
    let copy = copy_seqs(session.store.schema(), seqs);
    copy_rows(
        &mut session.connection,
        &copy,
        &mut session.interner,
        |row| {
            let seq = row.seq;
            if let Some(message) = row.into_pending(false) {
                messages.insert(seq, message);
            }
        },
    )
    .await?;
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_message_is_taken_however_large() {
        assert_eq!(within(&[(1, 100), (2, 1)], 10), 1);
        assert_eq!(within(&[(1, 4), (2, 6), (3, 1)], 10), 2);
        assert_eq!(within(&[], 10), 0);
    }
}
