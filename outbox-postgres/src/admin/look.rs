//! Single messages: those with a delivery row, and any by its id.

use chrono::{DateTime, TimeDelta, Utc};
use outbox_core::{
    DeliveryState, ExceptionFilter, ExceptionRow, Headers, MessageDetail, Seq, StoreError,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{Desk, declare::last_seq, request::known};
use crate::error::{OrStoreError, damaged};
use crate::sql::{ADMIN_EXCEPTIONS, ADMIN_MESSAGE, ADMIN_MESSAGE_STATUSES, ADMIN_SEQ_AT};

/// Rows of an answer when the caller names no limit.
const EXCEPTIONS_DEFAULT: usize = 100;

/// Most rows of an answer, whatever the caller says: about 4 MB with the longest error texts.
const EXCEPTIONS_MAX: usize = 2_000;

/// How far the time in a UUIDv7, taken by the enqueuing program's clock, is trusted. Outside of it the
/// whole log is searched.
const ID_TIME_SLACK: TimeDelta = TimeDelta::minutes(10);

/// Delivery rows and markers that match, by seq.
pub(super) async fn exceptions(
    desk: &Desk<'_>,
    filter: &ExceptionFilter,
) -> Result<Vec<ExceptionRow>, StoreError> {
    let context = "list delivery rows";
    let limit = match filter.limit {
        0 => EXCEPTIONS_DEFAULT,
        limit => limit.min(EXCEPTIONS_MAX),
    };
    let mut tx = desk.begin().await?;
    // Nothing found at a mistyped destination would read as if all were well there.
    if let Some(wanted) = &filter.destination {
        known(desk, &mut tx, wanted).await?;
    }
    let rows = desk
        .query(ADMIN_EXCEPTIONS)
        .bind(&filter.destination)
        .bind(filter.state.map(DeliveryState::as_str))
        .bind(filter.after_seq)
        .bind(limit as i64)
        .fetch_all(&mut *tx)
        .await
        .or_store(context)?;
    tx.commit().await.or_store(context)?;
    rows.iter().map(exception).collect()
}

fn exception(row: &PgRow) -> Result<ExceptionRow, StoreError> {
    let context = "read a delivery row";
    let state: String = row.try_get(5).or_store(context)?;
    let state = DeliveryState::from_word(&state)
        .ok_or_else(|| damaged(context, format!("unknown state {state:?}")))?;
    let read = || {
        Ok(ExceptionRow {
            destination: row.try_get(0)?,
            seq: row.try_get(1)?,
            // A message that is gone against all rules is still shown.
            id: row.try_get::<Option<_>, _>(2)?.unwrap_or(Uuid::nil()),
            topic: row.try_get(3)?,
            key: row.try_get(4)?,
            state,
            attempts: row.try_get::<i32, _>(6)?.unsigned_abs(),
            next_attempt: row.try_get(7)?,
            last_error: row.try_get(8)?,
            blocks_key: row.try_get(9)?,
            created_at: row
                .try_get::<Option<_>, _>(10)?
                .unwrap_or(DateTime::UNIX_EPOCH),
        })
    };
    read().or_store(context)
}

/// One message, whole, with its state at every destination.
pub(super) async fn message(
    desk: &Desk<'_>,
    id: Uuid,
) -> Result<Option<MessageDetail>, StoreError> {
    let context = "look for a message";
    let mut tx = desk.begin().await?;
    let likely = stretch(desk, &mut tx, &[id]).await?;
    let mut found = find(desk, &mut tx, id, likely).await?;
    if found.is_none() {
        found = find(desk, &mut tx, id, (0, Seq::MAX)).await?;
    }
    let Some(row) = found else {
        return Ok(None);
    };
    let mut detail = detail(&row).or_store(context)?;
    let rows = desk
        .query(ADMIN_MESSAGE_STATUSES)
        .bind(detail.seq)
        .bind(&detail.topic)
        .bind(&detail.key)
        .fetch_all(&mut *tx)
        .await
        .or_store(context)?;
    for row in &rows {
        let status = (
            row.try_get(0).or_store(context)?,
            row.try_get(1).or_store(context)?,
        );
        detail.statuses.push(status);
    }
    tx.commit().await.or_store(context)?;
    Ok(Some(detail))
}

/// The stretch of the log that holds messages with these ids, judged by the time that a UUIDv7
/// carries; all of it when one carries none.
pub(super) async fn stretch(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<(Seq, Seq), StoreError> {
    let times: Option<Vec<_>> = ids.iter().map(created_about).collect();
    let Some((first, last)) = times.and_then(|t| Some((*t.iter().min()?, *t.iter().max()?))) else {
        return Ok((0, Seq::MAX));
    };
    let from = seq_at(desk, tx, first - ID_TIME_SLACK).await?;
    let to = match last + ID_TIME_SLACK >= Utc::now() {
        true => last_seq(desk, tx).await?,
        false => seq_at(desk, tx, last + ID_TIME_SLACK).await?,
    };
    Ok((from, to))
}

/// The first seq created at `time` or later, give or take some seconds.
pub(super) async fn seq_at(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    time: DateTime<Utc>,
) -> Result<Seq, StoreError> {
    let context = "search the log by time";
    let row = desk
        .query(ADMIN_SEQ_AT)
        .bind(time)
        .fetch_one(tx)
        .await
        .or_store(context)?;
    row.try_get(0).or_store(context)
}

fn created_about(id: &Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    // Beyond any plausible clock the id was made up: no help.
    let time = DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)?;
    (time < Utc::now() + TimeDelta::days(366)).then_some(time)
}

async fn find(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    id: Uuid,
    (from, to): (Seq, Seq),
) -> Result<Option<PgRow>, StoreError> {
    let query = desk.query(ADMIN_MESSAGE).bind(id).bind(from).bind(to);
    query
        .fetch_optional(tx)
        .await
        .or_store("look for a message")
}

fn detail(row: &PgRow) -> Result<MessageDetail, sqlx::Error> {
    let headers: Option<sqlx::types::Json<Headers>> = row.try_get(5)?;
    Ok(MessageDetail {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        topic: row.try_get(2)?,
        key: row.try_get(3)?,
        content_type: row.try_get(4)?,
        headers: headers.map(|h| h.0).unwrap_or_default(),
        payload: row.try_get::<Vec<u8>, _>(6)?.into(),
        created_at: row.try_get(7)?,
        statuses: Vec::new(),
    })
}
