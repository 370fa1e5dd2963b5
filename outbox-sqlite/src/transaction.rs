//! Whether the caller of enqueue holds the write lock.
//!
//! SQLite knows (`sqlite3_txn_state`) but sqlx does not say, and asking SQLite itself would take
//! `unsafe`. So we ask from outside: a second connection to the same file tries to begin a write
//! transaction without waiting. If it can, the caller is not the writer. If it cannot, somebody
//! is; and when that is not the caller, its insert either waits for the lock or fails as busy, which
//! enqueue turns into the same error. In a service that begins as it should the attempt never
//! succeeds, so it never takes the lock from anybody.

use std::collections::HashMap;
use std::time::Duration;

use outbox_core::StoreError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::Mutex;

use crate::error::{failed, is_busy};

/// `PRAGMA synchronous` from which on a commit that returned survives power loss.
const SYNCHRONOUS_FULL: i64 = 2;

/// Files of one process that are remembered: one connection each.
const PROBES_MAX: usize = 16;

/// The probes, by file.
#[derive(Debug, Default)]
pub(crate) struct TransactionCheck {
    probes: Mutex<HashMap<String, SqliteConnection>>,
}

impl TransactionCheck {
    /// Refuses a connection that is not in a write transaction, or whose commits are not durable.
    pub(crate) async fn check(&self, tx: &mut SqliteConnection) -> Result<(), StoreError> {
        if !tx.is_in_transaction() && !in_plain_transaction(tx).await? {
            return Err(not_in_a_transaction());
        }
        let (file, synchronous) = settings(tx).await?;
        if synchronous < SYNCHRONOUS_FULL {
            return Err(not_durable(synchronous));
        }
        // A temporary or in-memory database has no file, and no second connection.
        if !file.is_empty() && self.lock_is_free(file).await? {
            return Err(not_a_writer());
        }
        Ok(())
    }

    async fn lock_is_free(&self, file: String) -> Result<bool, StoreError> {
        let mut probes = self.probes.lock().await;
        if probes.len() >= PROBES_MAX && !probes.contains_key(&file) {
            probes.clear();
        }
        if !probes.contains_key(&file) {
            let probe = connect(&file)
                .await
                .map_err(|e| failed("open the file", e))?;
            probes.insert(file.clone(), probe);
        }
        let Some(probe) = probes.get_mut(&file) else {
            return Ok(false);
        };
        let free = try_lock(probe).await;
        if free.is_err() {
            probes.remove(&file);
        }
        free.map_err(|e| failed("check the transaction", e))
    }
}

/// Whether the write lock could be had at once; it is given back. Dropping this future at any
/// point gives it back too.
async fn try_lock(probe: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    match probe.begin_with("BEGIN IMMEDIATE").await {
        Ok(held) => held.rollback().await.map(|()| true),
        Err(e) if is_busy(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

async fn connect(file: &str) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::ZERO);
    options.connect().await
}

/// Whether `BEGIN` was sent as a plain statement, which sqlx does not count: then a second one
/// fails.
async fn in_plain_transaction(tx: &mut SqliteConnection) -> Result<bool, StoreError> {
    if sqlx::query("BEGIN").execute(&mut *tx).await.is_err() {
        return Ok(true);
    }
    let end = sqlx::query("ROLLBACK").execute(tx).await;
    end.map(|_| false)
        .map_err(|e| failed("check the transaction", e))
}

/// File and `synchronous` of the connection.
async fn settings(tx: &mut SqliteConnection) -> Result<(String, i64), StoreError> {
    const SETTINGS: &str = "SELECT (SELECT file FROM pragma_database_list WHERE name = 'main'), \
                            (SELECT synchronous FROM pragma_synchronous)";
    let row = sqlx::query(SETTINGS).fetch_one(tx).await;
    let row = row.map_err(|e| failed("check the transaction", e))?;
    let file: Option<String> = row
        .try_get(0)
        .map_err(|e| failed("check the transaction", e))?;
    let synchronous = row
        .try_get(1)
        .map_err(|e| failed("check the transaction", e))?;
    Ok((file.unwrap_or_default(), synchronous))
}

/// The cure of every misuse here.
const BEGIN: &str = "begin with pool.begin_with(\"BEGIN IMMEDIATE\") and enqueue inside it";

fn not_in_a_transaction() -> StoreError {
    StoreError::Refused {
        problem: "enqueue was called outside of a transaction: the message would be sent whatever \
                  becomes of the business rows"
            .to_owned(),
        cure: BEGIN.to_owned(),
    }
}

/// What a deferred transaction gets.
pub(crate) fn not_a_writer() -> StoreError {
    StoreError::Refused {
        problem:
            "enqueue was called in a deferred transaction (a plain BEGIN): it would fail with \
                  SQLITE_BUSY_SNAPSHOT when another writer commits after its first read"
                .to_owned(),
        cure: BEGIN.to_owned(),
    }
}

fn not_durable(synchronous: i64) -> StoreError {
    StoreError::Refused {
        problem: format!(
            "enqueue was called on a connection with synchronous = {synchronous}: a message could \
             be sent, and its transaction be taken back by a power loss"
        ),
        cure: "connect through outbox_sqlite::pool, or set PRAGMA synchronous = FULL".to_owned(),
    }
}
