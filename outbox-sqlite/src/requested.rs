//! Requests as the leader reads them: whole ones, up to a bound.

use outbox_core::{Request, RequestAction, Requested, StoreError};
use sqlx::SqliteConnection;

use crate::error::{corrupt, failed};
use crate::limits::REQUEST_MESSAGES_MAX;
use crate::row::{delivery_columns, exception, get};

const REQUESTS: &str = "SELECT id, action, seqs, json_array_length(seqs) FROM outbox_request \
     WHERE destination = ? ORDER BY id LIMIT ?";

/// The messages of a request, with their rows.
const REQUESTED: &str = concat!(
    "SELECT m.seq, m.topic, m.key, ",
    delivery_columns!(),
    " FROM json_each(?1) j JOIN outbox_message m ON m.seq = j.value \
     LEFT JOIN outbox_delivery d ON d.destination = ?2 AND d.seq = m.seq ORDER BY m.seq"
);

/// Whole requests, oldest first, up to the bound.
pub(crate) async fn requests(
    tx: &mut SqliteConnection,
    destination: &str,
) -> Result<Vec<Request>, StoreError> {
    let rows = sqlx::query(REQUESTS)
        .bind(destination.to_owned())
        .bind(REQUEST_MESSAGES_MAX as i64)
        .fetch_all(&mut *tx)
        .await;
    let (mut found, mut named) = (Vec::new(), 0_usize);
    for row in rows.map_err(|e| failed("read requests", e))? {
        named += usize::try_from(get::<i64>(&row, 3)?).unwrap_or_default();
        if named > REQUEST_MESSAGES_MAX && !found.is_empty() {
            break;
        }
        let word: &str = get(&row, 1)?;
        let action = RequestAction::from_word(word).ok_or_else(|| corrupt("the action", word))?;
        let messages = requested(tx, destination, get(&row, 2)?).await?;
        found.push(Request {
            id: get(&row, 0)?,
            action,
            messages,
        });
    }
    Ok(found)
}

async fn requested(
    tx: &mut SqliteConnection,
    destination: &str,
    seqs: String,
) -> Result<Vec<Requested>, StoreError> {
    let rows = sqlx::query(REQUESTED)
        .bind(seqs)
        .bind(destination.to_owned())
        .fetch_all(tx)
        .await;
    let mut messages = Vec::new();
    for row in rows.map_err(|e| failed("read requests", e))? {
        messages.push(Requested {
            seq: get(&row, 0)?,
            topic: get::<&str>(&row, 1)?.into(),
            key: get::<Option<&str>>(&row, 2)?.map(Into::into),
            exception: exception(&row, 3)?,
        });
    }
    Ok(messages)
}
