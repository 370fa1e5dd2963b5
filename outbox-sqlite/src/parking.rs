//! Parked messages: those with a row each, and the followers behind a marker.

use futures_util::TryStreamExt;
use outbox_core::{KeyRef, PageLimit, Parked, Seq, StoreError};
use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::error::failed;
use crate::filling::Filling;
use crate::limits::MARKER_SCAN_SEQS;
use crate::row::{Strings, delivery_columns, get, message_columns, pending, with_row};

/// The followers of a key from a seq on that have no row of their own.
fn followers_sql(covered: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT {}, m.payload FROM outbox_message m \
         WHERE m.seq >= ?2 AND m.seq <= ?3 AND m.topic = ?4 AND m.key = ?5 AND {covered} \
         AND NOT EXISTS (SELECT 1 FROM outbox_delivery d WHERE d.destination = ?1 AND d.seq = m.seq) \
         ORDER BY m.seq LIMIT ?6",
        message_columns!()
    ))
}

/// Parked rows of a key.
const PARKED: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", m.payload, ",
    delivery_columns!(),
    " FROM outbox_delivery d JOIN outbox_message m ON m.seq = d.seq \
     WHERE d.destination = ?1 AND d.topic = ?2 AND d.key = ?3 AND d.state = 'parked' \
     ORDER BY d.seq LIMIT ?4"
);

const MARKER: &str =
    "SELECT from_seq FROM outbox_parked_key WHERE destination = ? AND topic = ? AND key = ?";

/// The first parked rows of `key`.
pub(crate) async fn parked_rows(
    tx: &mut SqliteConnection,
    destination: &str,
    key: &KeyRef,
    limit: PageLimit,
    strings: &mut Strings,
) -> Result<Parked, StoreError> {
    let (mut parked, mut filling) = (Parked::default(), Filling::new(limit));
    let mut rows = sqlx::query(PARKED)
        .bind(destination.to_owned())
        .bind(key.topic.to_string())
        .bind(key.key.to_string())
        .bind(filling.ask())
        .fetch(tx);
    while let Some(row) = rows
        .try_next()
        .await
        .map_err(|e| failed("read parked messages", e))?
    {
        let (message, _) = with_row(&row, strings)?;
        if !filling.takes(message.size()) {
            parked.more = true;
            break;
        }
        parked.messages.push(message);
    }
    Ok(parked)
}

/// From which seq on the messages of `key` are parked without a row.
pub(crate) async fn marker(
    tx: &mut SqliteConnection,
    destination: &str,
    key: &KeyRef,
) -> Result<Option<Seq>, StoreError> {
    let row = sqlx::query(MARKER)
        .bind(destination.to_owned())
        .bind(key.topic.to_string())
        .bind(key.key.to_string())
        .fetch_optional(tx)
        .await;
    let row = row.map_err(|e| failed("read the marker", e))?;
    row.map(|row| get(&row, 0)).transpose()
}

/// What is behind a marker.
pub(crate) struct Behind<'a> {
    pub(crate) destination: &'a str,
    pub(crate) key: &'a KeyRef,
    pub(crate) covered: &'a str,
    pub(crate) from: Seq,
    /// The session's read position.
    pub(crate) to: Seq,
}

/// The followers behind a marker, re-read from a bounded stretch of the log.
pub(crate) async fn followers(
    tx: &mut SqliteConnection,
    behind: Behind<'_>,
    limit: PageLimit,
    strings: &mut Strings,
) -> Result<Parked, StoreError> {
    let end = behind
        .to
        .min(behind.from.saturating_add(MARKER_SCAN_SEQS - 1));
    let mut parked = Parked {
        through: Some(end.max(behind.from - 1)),
        more: end < behind.to,
        ..Parked::default()
    };
    let mut filling = Filling::new(limit);
    let mut rows = sqlx::query(followers_sql(behind.covered))
        .bind(behind.destination.to_owned())
        .bind(behind.from)
        .bind(end)
        .bind(behind.key.topic.to_string())
        .bind(behind.key.key.to_string())
        .bind(filling.ask())
        .fetch(tx);
    while let Some(row) = rows
        .try_next()
        .await
        .map_err(|e| failed("read followers", e))?
    {
        let message = pending(&row, strings)?;
        if !filling.takes(message.size()) {
            // Whatever lies between the last that fits and this one is not a follower.
            parked.through = Some(message.seq - 1);
            parked.more = true;
            break;
        }
        parked.messages.push(message);
    }
    Ok(parked)
}
