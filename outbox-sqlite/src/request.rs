//! What operators ask for. Only the leader applies it.

use outbox_core::{RequestAction, Selection, Seq, StoreError};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::coverage::Routes;
use crate::error::{failed, other};
use crate::limits::REQUEST_MESSAGES_MAX;
use crate::row::{get, now, to_micros};
use crate::store::{SqliteStore, commit};

const CONTEXT: &str = "leave a request";

const DEAD: &str = "SELECT d.seq FROM outbox_delivery d JOIN outbox_message m ON m.seq = d.seq \
     WHERE d.destination = ?1 AND (d.state = 'dead' OR (?2 AND d.state = 'expired')) \
     AND (?3 IS NULL OR m.created_at >= ?3) AND (?4 IS NULL OR m.created_at < ?4) ORDER BY d.seq";

const LEAVE: &str =
    "INSERT INTO outbox_request (destination, action, seqs, created_at) VALUES (?, ?, ?, ?)";

const BUMP: &str =
    "UPDATE outbox_destination SET control_version = control_version + 1 WHERE name = ?";

/// Leaves one row for each 1,000 messages, all in one transaction; answers how many they are.
pub(crate) async fn leave(
    store: &SqliteStore,
    destination: &str,
    action: RequestAction,
    selection: &Selection,
) -> Result<u64, StoreError> {
    // The log is read without the lock: what comes after it is not asked for.
    let mut read = store.read().await?;
    check_name(&mut read, destination).await?;
    let seqs = select(&mut read, destination, selection).await?;
    drop(read);
    if seqs.is_empty() {
        return Ok(0);
    }
    let mut tx = store.write().await?;
    for part in seqs.chunks(REQUEST_MESSAGES_MAX) {
        let json = serde_json::to_string(part).map_err(|e| other(CONTEXT, e))?;
        let leave = sqlx::query(LEAVE)
            .bind(destination.to_owned())
            .bind(action.as_str())
            .bind(json)
            .bind(now());
        leave
            .execute(&mut *tx)
            .await
            .map_err(|e| failed(CONTEXT, e))?;
    }
    let bump = sqlx::query(BUMP)
        .bind(destination.to_owned())
        .execute(&mut *tx)
        .await;
    bump.map_err(|e| failed(CONTEXT, e))?;
    commit(tx).await?;
    Ok(seqs.len() as u64)
}

/// A name that is not there is answered with those that are.
pub(crate) async fn check_name(tx: &mut SqliteConnection, name: &str) -> Result<(), StoreError> {
    const NAMES: &str = "SELECT name FROM outbox_destination ORDER BY name";
    let rows = sqlx::query(NAMES)
        .fetch_all(tx)
        .await
        .map_err(|e| failed(CONTEXT, e))?;
    let names = rows
        .iter()
        .map(|row| get(row, 0))
        .collect::<Result<Vec<String>, _>>()?;
    if names.iter().any(|n| n == name) {
        return Ok(());
    }
    let hint = match names.is_empty() {
        true => "; no destination was declared yet".to_owned(),
        false => format!("; there are {}", names.join(", ")),
    };
    Err(StoreError::NotFound {
        what: "destination",
        name: name.to_owned(),
        hint,
    })
}

async fn select(
    tx: &mut SqliteConnection,
    destination: &str,
    selection: &Selection,
) -> Result<Vec<Seq>, StoreError> {
    let routes = Routes::read(tx, 0).await?;
    let covered = routes.condition(destination);
    let rows = match selection {
        Selection::Ids(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
            let json = serde_json::to_string(&ids).map_err(|e| other(CONTEXT, e))?;
            // One walk through the log for any number of ids.
            let sql = format!(
                "SELECT m.seq FROM outbox_message m \
                 WHERE m.id IN (SELECT unhex(value) FROM json_each(?1)) AND ({covered} OR EXISTS \
                 (SELECT 1 FROM outbox_delivery d WHERE d.destination = ?2 AND d.seq = m.seq)) \
                 ORDER BY m.seq"
            );
            let query = sqlx::query(AssertSqlSafe(sql))
                .bind(json)
                .bind(destination.to_owned());
            query.fetch_all(tx).await
        }
        Selection::Dead {
            since,
            until,
            expired,
        } => {
            let query = sqlx::query(DEAD)
                .bind(destination.to_owned())
                .bind(*expired)
                .bind(since.map(to_micros))
                .bind(until.map(to_micros));
            query.fetch_all(tx).await
        }
        Selection::Window { since, until } => {
            let sql = format!(
                "SELECT m.seq FROM outbox_message m \
                 WHERE m.created_at >= ?1 AND m.created_at < ?2 AND {covered} ORDER BY m.seq"
            );
            let (since, until) = (to_micros(*since), to_micros(*until));
            sqlx::query(AssertSqlSafe(sql))
                .bind(since)
                .bind(until)
                .fetch_all(tx)
                .await
        }
    };
    let seq = |row: &SqliteRow| get(row, 0);
    rows.map_err(|e| failed(CONTEXT, e))?
        .iter()
        .map(seq)
        .collect()
}
