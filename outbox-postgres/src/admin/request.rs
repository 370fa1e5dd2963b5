//! Requests: an operator asks, the leader of the destination does it.

use chrono::TimeDelta;
use outbox_core::{RequestAction, Selection, Seq, StoreError};
use sqlx::{PgConnection, Row};

use super::{Desk, look};
use crate::error::OrStoreError;
use crate::sql::{
    ADMIN_DESTINATIONS, ADMIN_REQUEST_DEAD, ADMIN_REQUEST_IDS, ADMIN_REQUEST_INSERT,
    ADMIN_REQUEST_WINDOW,
};

const CONTEXT: &str = "leave a request";

/// Most messages of one request row: what a leader applies in one settlement.
const SEQS_MAX: usize = 1_000;

/// How far outside of its window a search by time looks, for `created_at` and `seq` can differ in
/// order by that much.
const WINDOW_SLACK: TimeDelta = TimeDelta::seconds(10);

/// Names the selected messages to the leader of `destination`; answers how many.
pub(super) async fn request(
    desk: &Desk<'_>,
    destination: &str,
    action: RequestAction,
    selection: &Selection,
) -> Result<u64, StoreError> {
    let mut tx = desk.begin().await?;
    known(desk, &mut tx, destination).await?;
    let mut seqs = select(desk, &mut tx, destination, selection).await?;
    seqs.sort_unstable();
    seqs.dedup();
    for part in seqs.chunks(SEQS_MAX) {
        desk.query(ADMIN_REQUEST_INSERT)
            .bind(destination)
            .bind(action.as_str())
            .bind(part)
            .execute(&mut *tx)
            .await
            .or_store(CONTEXT)?;
    }
    tx.commit().await.or_store(CONTEXT)?;
    Ok(seqs.len() as u64)
}

/// A name that is not there is answered with those that are.
pub(super) async fn known(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    wanted: &str,
) -> Result<(), StoreError> {
    let rows = desk
        .query(ADMIN_DESTINATIONS)
        .fetch_all(tx)
        .await
        .or_store(CONTEXT)?;
    let names: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .or_store(CONTEXT)?;
    if names.iter().any(|name| name == wanted) {
        return Ok(());
    }
    let hint = match names.as_slice() {
        [] => "; no destination was declared yet".to_owned(),
        names => format!("; there are {}", names.join(", ")),
    };
    Err(StoreError::NotFound {
        what: "destination",
        name: wanted.to_owned(),
        hint,
    })
}

async fn select(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    destination: &str,
    selection: &Selection,
) -> Result<Vec<Seq>, StoreError> {
    let query = match selection {
        Selection::Ids(ids) => {
            let (from, to) = look::stretch(desk, tx, ids).await?;
            let found = by_ids(desk, tx, ids, from, to).await?;
            if found.len() == ids.len() || (from, to) == (0, Seq::MAX) {
                return Ok(found);
            }
            // An id whose time is not when it was enqueued.
            return by_ids(desk, tx, ids, 0, Seq::MAX).await;
        }
        Selection::Dead {
            since,
            until,
            expired,
        } => desk
            .query(ADMIN_REQUEST_DEAD)
            .bind(destination)
            .bind(*since)
            .bind(*until)
            .bind(*expired),
        Selection::Window { since, until } => {
            let from = look::seq_at(desk, tx, *since - WINDOW_SLACK).await?;
            let to = look::seq_at(desk, tx, *until + WINDOW_SLACK).await?;
            let query = desk.query(ADMIN_REQUEST_WINDOW).bind(destination);
            query.bind(*since).bind(*until).bind(from).bind(to)
        }
    };
    seqs(query.fetch_all(tx).await)
}

async fn by_ids(
    desk: &Desk<'_>,
    tx: &mut PgConnection,
    ids: &[uuid::Uuid],
    from: Seq,
    to: Seq,
) -> Result<Vec<Seq>, StoreError> {
    let query = desk
        .query(ADMIN_REQUEST_IDS)
        .bind(ids.to_vec())
        .bind(from)
        .bind(to);
    seqs(query.fetch_all(tx).await)
}

fn seqs(rows: Result<Vec<sqlx::postgres::PgRow>, sqlx::Error>) -> Result<Vec<Seq>, StoreError> {
    rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .or_store(CONTEXT)
}
