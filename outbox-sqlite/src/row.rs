//! Rows to types and back. Times are microseconds since 1970, ids 16 bytes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use outbox_core::{DeliveryState, Exception, Headers, Pending, StoreError};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::error::{corrupt, failed};

/// Content type of a message whose column is null.
pub(crate) const USUAL_CONTENT_TYPE: &str = "application/json";

/// The columns that [`pending`] reads, in its order; `payload` comes first, for it may be an
/// expression.
macro_rules! message_columns {
    () => {
        "m.seq, m.id, m.topic, m.key, m.content_type, m.headers, m.created_at, m.deliver_after, \
         m.expires_at"
    };
}
pub(crate) use message_columns;

/// The columns that [`exception`] reads, behind `offset` others.
macro_rules! delivery_columns {
    () => {
        "d.seq, d.topic, d.key, d.state, d.attempts, d.next_attempt, d.last_error, d.redelivery, \
         d.blocks_key"
    };
}
pub(crate) use delivery_columns;

/// A time as it is stored.
pub(crate) fn to_micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// A time as it was stored.
pub(crate) fn from_micros(micros: i64) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| corrupt("the time", micros))
}

/// Now, as it is stored.
pub(crate) fn now() -> i64 {
    to_micros(Utc::now())
}

/// Column `at`.
pub(crate) fn get<'r, T>(row: &'r SqliteRow, at: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(at).map_err(|e| failed("read a row", e))
}

fn get_time(row: &SqliteRow, at: usize) -> Result<Option<DateTime<Utc>>, StoreError> {
    get::<Option<i64>>(row, at)?.map(from_micros).transpose()
}

/// Strings that come again and again: topics and content types.
#[derive(Debug, Default)]
pub(crate) struct Strings(HashMap<String, Arc<str>>);

/// Strings remembered before they are forgotten all at once.
const STRINGS_MAX: usize = 4_096;

impl Strings {
    /// A shared copy of `text`.
    pub(crate) fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        if self.0.len() >= STRINGS_MAX {
            self.0.clear();
        }
        let shared: Arc<str> = text.into();
        self.0.insert(text.to_owned(), shared.clone());
        shared
    }
}

/// A message from [`message_columns`] at column 0 and its payload behind them.
pub(crate) fn pending(row: &SqliteRow, strings: &mut Strings) -> Result<Pending, StoreError> {
    let content_type = get::<Option<&str>>(row, 4)?.unwrap_or(USUAL_CONTENT_TYPE);
    Ok(Pending {
        seq: get(row, 0)?,
        id: uuid(row, 1)?,
        topic: strings.shared(get(row, 2)?),
        key: get::<Option<&str>>(row, 3)?.map(Arc::from),
        content_type: strings.shared(content_type),
        headers: headers(row, 5)?.map(Arc::new),
        created_at: from_micros(get(row, 6)?)?,
        deliver_after: get_time(row, 7)?,
        expires_at: get_time(row, 8)?,
        payload: Bytes::copy_from_slice(get(row, 9)?),
        late: false,
        attempts: 0,
        redelivery: 0,
    })
}

/// A UUID stored as its 16 bytes.
pub(crate) fn uuid(row: &SqliteRow, at: usize) -> Result<Uuid, StoreError> {
    let bytes: &[u8] = get(row, at)?;
    Uuid::from_slice(bytes).map_err(|e| corrupt("the id", e))
}

/// Headers stored as a JSON object; null is none.
pub(crate) fn headers(row: &SqliteRow, at: usize) -> Result<Option<Headers>, StoreError> {
    let Some(text) = get::<Option<&str>>(row, at)? else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|e| corrupt("the headers", e))
}

/// The state of column `at`.
pub(crate) fn state(row: &SqliteRow, at: usize) -> Result<DeliveryState, StoreError> {
    let word: &str = get(row, at)?;
    DeliveryState::from_word(word).ok_or_else(|| corrupt("the state", word))
}

/// A delivery row from [`delivery_columns`] at column `at`; `None` when they are null.
pub(crate) fn exception(row: &SqliteRow, at: usize) -> Result<Option<Exception>, StoreError> {
    let Some(seq) = get::<Option<i64>>(row, at)? else {
        return Ok(None);
    };
    Ok(Some(Exception {
        seq,
        topic: get::<&str>(row, at + 1)?.into(),
        key: get::<Option<&str>>(row, at + 2)?.map(Arc::from),
        state: state(row, at + 3)?,
        attempts: get(row, at + 4)?,
        next_attempt: get_time(row, at + 5)?,
        last_error: get(row, at + 6)?,
        redelivery: get(row, at + 7)?,
        blocks_key: get(row, at + 8)?,
    }))
}

/// Columns of a message and its payload, before those of the delivery row in the same row.
pub(crate) const DELIVERY: usize = 10;

/// A message with what its delivery row adds.
pub(crate) fn with_row(
    row: &SqliteRow,
    strings: &mut Strings,
) -> Result<(Pending, Exception), StoreError> {
    let mut message = pending(row, strings)?;
    let found = exception(row, DELIVERY)?;
    let found = found.ok_or_else(|| corrupt("the delivery row of seq", message.seq))?;
    message.attempts = found.attempts;
    message.redelivery = found.redelivery;
    Ok((message, found))
}
