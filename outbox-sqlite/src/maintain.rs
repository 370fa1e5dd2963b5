//! House-keeping: retention in small transactions, and the write-ahead log kept short.
//!
//! It has a connection of its own that waits for a lock 50 ms at most, and puts off what it does
//! not get; so it may run in several processes at once.

use outbox_core::{Maintained, Maintenance, Seq, StoreError};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::connect::options;
use crate::error::{failed, is_busy};
use crate::limits::{
    HOUSEKEEPING_TIMEOUT, RELAY_ROW_AGE, RETENTION_CHUNK_MESSAGES, RETENTION_CHUNKS_MAX,
    WAL_BYTES_MAX,
};
use crate::row::{get, now};
use crate::store::SqliteStore;

/// The oldest message, and the seq that every destination has passed. Without a destination nothing
/// has been passed: one may still be declared.
const BOUNDS: &str = "SELECT coalesce((SELECT min(seq) FROM outbox_message), 0), \
     coalesce((SELECT min(cursor) FROM outbox_progress), 0)";

/// Deletes what is old in a stretch of the log and that no row, marker or request still needs.
const DELETE: &str = "DELETE FROM outbox_message AS m \
     WHERE m.seq >= ?1 AND m.seq <= ?2 AND m.created_at < ?3 \
     AND NOT EXISTS (SELECT 1 FROM outbox_delivery d WHERE d.seq = m.seq) \
     AND NOT EXISTS (SELECT 1 FROM outbox_parked_key k \
         WHERE k.topic = m.topic AND k.key = m.key AND k.from_seq <= m.seq) \
     AND m.seq NOT IN (SELECT j.value FROM outbox_request r, json_each(r.seqs) j)";

/// The end of a stretch of so many messages, and its oldest time. Read without the lock, so that a
/// stretch of young messages costs no writer anything.
const STRETCH: &str = "SELECT max(seq), min(created_at) FROM (SELECT seq, created_at \
     FROM outbox_message WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?)";

const GONE_RELAYS: &str = "DELETE FROM outbox_relay WHERE beat_at < ? \
     AND instance NOT IN (SELECT owner FROM outbox_lease WHERE owner IS NOT NULL)";

/// One round.
pub(crate) async fn round(
    store: &SqliteStore,
    policy: &Maintenance,
) -> Result<Maintained, StoreError> {
    let connected = options(store.path())
        .busy_timeout(HOUSEKEEPING_TIMEOUT)
        .connect()
        .await;
    let mut connection = connected.map_err(|e| failed("open the file", e))?;
    let mut done = Maintained::default();
    retain(&mut connection, policy, &mut done).await?;
    forget_relays(&mut connection, &mut done).await?;
    shorten_wal(store, &mut connection, &mut done).await?;
    connection
        .close()
        .await
        .map_err(|e| failed("close the file", e))?;
    Ok(done)
}

/// Deletes chunk after chunk below every cursor, from the oldest message on.
async fn retain(
    connection: &mut SqliteConnection,
    policy: &Maintenance,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    let row = sqlx::query(BOUNDS).fetch_one(&mut *connection).await;
    let row = row.map_err(|e| failed("look for old messages", e))?;
    let (mut from, passed): (Seq, Seq) = (get(&row, 0)?, get(&row, 1)?);
    let age = i64::try_from(policy.retention.as_micros()).unwrap_or(i64::MAX);
    let before = now().saturating_sub(age);
    while done.partitions_emptied < RETENTION_CHUNKS_MAX {
        let Some(to) = stretch(connection, from, passed, before).await? else {
            break;
        };
        match delete(connection, from, to, before).await {
            Ok(0) => {}
            Ok(_) => done.partitions_emptied += 1,
            Err(e) if is_busy(&e) => {
                done.put_off += 1;
                break;
            }
            Err(e) => return Err(failed("delete old messages", e)),
        }
        from = to + 1;
    }
    Ok(())
}

/// Where the next stretch ends; `None` when there is none, or all of it is young: times grow with
/// the seq, and after a clock was set back what is behind goes a round later.
async fn stretch(
    connection: &mut SqliteConnection,
    from: Seq,
    passed: Seq,
    before: i64,
) -> Result<Option<Seq>, StoreError> {
    let row = sqlx::query(STRETCH)
        .bind(from)
        .bind(passed)
        .bind(RETENTION_CHUNK_MESSAGES)
        .fetch_one(connection)
        .await;
    let row = row.map_err(|e| failed("look for old messages", e))?;
    let (end, oldest): (Option<Seq>, Option<i64>) = (get(&row, 0)?, get(&row, 1)?);
    Ok(end.filter(|_| oldest.is_some_and(|at| at < before)))
}

/// One chunk in one transaction. What it reads beside the log it reads under the lock, so a row or
/// request that is written meanwhile is seen or comes after.
async fn delete(
    connection: &mut SqliteConnection,
    from: Seq,
    to: Seq,
    before: i64,
) -> Result<u64, sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let deleted = sqlx::query(DELETE)
        .bind(from)
        .bind(to)
        .bind(before)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(deleted.rows_affected())
}

async fn forget_relays(
    connection: &mut SqliteConnection,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    let before = now() - RELAY_ROW_AGE.as_micros() as i64;
    match sqlx::query(GONE_RELAYS)
        .bind(before)
        .execute(connection)
        .await
    {
        Ok(_) => Ok(()),
        Err(e) if is_busy(&e) => {
            done.put_off += 1;
            Ok(())
        }
        Err(e) => Err(failed("forget relays that are gone", e)),
    }
}

/// The checkpoint that SQLite makes by itself cannot start the log again while some reader is in
/// it, and there is always one when there are many. This one waits for a moment without.
async fn shorten_wal(
    store: &SqliteStore,
    connection: &mut SqliteConnection,
    done: &mut Maintained,
) -> Result<(), StoreError> {
    if wal_bytes(store) <= WAL_BYTES_MAX {
        return Ok(());
    }
    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(connection)
        .await;
    match row {
        Ok(row) => done.put_off += u32::from(get::<i64>(&row, 0)? != 0),
        Err(e) if is_busy(&e) => done.put_off += 1,
        Err(e) => return Err(failed("empty the write-ahead log", e)),
    }
    Ok(())
}

/// Size of the write-ahead log; 0 when there is none.
pub(crate) fn wal_bytes(store: &SqliteStore) -> u64 {
    let mut name = store.path().as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |m| m.len())
}
