//! Connections with the pragmas that the promises rest on.

use std::path::Path;
use std::time::Duration;

use outbox_core::StoreError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::{failed, is_busy};
use crate::limits;

/// A pool on the file at `path`, created if missing, for a service's own transactions.
///
/// What matters: `journal_mode = WAL` (readers and the writer do not wait for each other),
/// `synchronous = FULL` (a commit that returned survives power loss), foreign keys, and a
/// busy timeout. Begin with `pool.begin_with("BEGIN IMMEDIATE")`.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = outbox_sqlite::pool("./orders.db").await?;
/// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
/// let message = outbox_core::Message::json("orders.placed", "…")?;
/// outbox_sqlite::Outbox::default().enqueue(&mut tx, message).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`StoreError::Refused`] when the folder does not exist; [`StoreError::Outage`] when the file
/// cannot be opened.
pub async fn pool(path: impl AsRef<Path>) -> Result<SqlitePool, StoreError> {
    let path = path.as_ref();
    check_folder(path)?;
    open_pool(options(path).create_if_missing(true), limits::POOL_MAX).await
}

/// The options of every connection of this store.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(limits::BUSY_TIMEOUT)
        .pragma("journal_size_limit", limits::WAL_BYTES_MAX.to_string())
        .row_buffer_size(limits::ROW_BUFFER)
}

/// A file is locked for a moment while it becomes a WAL file and while the last connection of
/// another process closes it; SQLite does not wait for either, whatever its timeout.
const OPEN_ATTEMPTS: u32 = 100;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// A pool of at most `max` connections that live as long as it does.
pub(crate) async fn open_pool(
    options: SqliteConnectOptions,
    max: u32,
) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(max)
        .idle_timeout(None)
        .max_lifetime(None)
        // A local file does not go away between two statements.
        .test_before_acquire(false)
        .acquire_timeout(limits::BUSY_TIMEOUT + Duration::from_secs(5));
    for _ in 1..OPEN_ATTEMPTS {
        match pool.clone().connect_with(options.clone()).await {
            Err(e) if is_busy(&e) => tokio::time::sleep(OPEN_PAUSE).await,
            opened => return opened.map_err(|e| failed("open the file", e)),
        }
    }
    let opened = pool.connect_with(options).await;
    opened.map_err(|e| failed("open the file", e))
}

/// A missing folder gets a cure instead of SQLite's "unable to open database file".
pub(crate) fn check_folder(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => return Ok(()),
    };
    if folder.is_dir() {
        return Ok(());
    }
    Err(StoreError::Refused {
        problem: format!(
            "the folder {} of {} does not exist",
            folder.display(),
            path.display()
        ),
        cure: format!("mkdir -p {}", folder.display()),
    })
}
