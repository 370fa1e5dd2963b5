//! The store: leases, beats, and the connections that everything else goes through.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outbox_core::{
    Beat, Board, Lease, LeaseRow, Maintained, Maintenance, Session, Store, StoreError,
};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use crate::connect::{check_folder, open_pool, options};
use crate::error::failed;
use crate::row::{get, now};
use crate::session::SqliteSession;
use crate::witness::Witness;
use crate::{identity, limits, maintain, migrate};

/// A store in one SQLite file. Cheap to clone; safe from any task.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// One connection: settles and operators' writes wait here, in order, instead of polling for
    /// SQLite's lock.
    writer: SqlitePool,
    readers: SqlitePool,
    witness: Witness,
}

impl SqliteStore {
    /// Opens the file at `path`, creating it if it is missing. The schema is made by
    /// [`migrate`](outbox_core::Admin::migrate).
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the folder does not exist or the file is something else;
    /// [`StoreError::Outage`] when it cannot be opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        check_folder(&path)?;
        let writer = open_pool(options(&path).create_if_missing(true), 1).await?;
        let readers = open_pool(options(&path), limits::READERS_MAX).await?;
        let witness = Witness::open(&path)?;
        let inner = Inner {
            path,
            writer,
            readers,
            witness,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Closes every connection and waits until they are; the last one to close empties the
    /// write-ahead log. Dropping the store closes them too, some time later.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// What was handed out, as written down beside the file.
    pub(crate) fn witness(&self) -> &Witness {
        &self.inner.witness
    }

    /// Connections for short reads.
    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// A read transaction: every statement in it sees the same moment.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let begun = self.readers().begin().await;
        begun.map_err(|e| failed("begin to read", e))
    }

    /// A write transaction on the one connection for writes.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let begun = self.inner.writer.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|e| failed("begin to write", e))
    }
}

/// Commits what [`SqliteStore::write`] began.
pub(crate) async fn commit(tx: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    tx.commit().await.map_err(|e| failed("commit", e))
}

/// Whether `lease` is (still) held.
pub(crate) async fn holds(tx: &mut SqliteConnection, lease: &Lease) -> Result<bool, StoreError> {
    const HELD: &str =
        "SELECT 1 FROM outbox_lease WHERE destination = ? AND owner = ? AND epoch = ?";
    let held = sqlx::query(HELD)
        .bind(lease.destination.clone())
        .bind(lease.owner.clone())
        .bind(lease.epoch)
        .fetch_optional(tx)
        .await;
    held.map(|row| row.is_some())
        .map_err(|e| failed("check the lease", e))
}

/// What whoever lost `lease` is told.
pub(crate) fn lost(lease: &Lease) -> StoreError {
    StoreError::LeaseLost {
        destination: lease.destination.clone(),
        epoch: lease.epoch,
    }
}

/// Last seq taken: that of the last commit, for a rolled-back insert takes its seq back.
pub(crate) async fn last_seq(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    const LAST: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox_message'";
    let row = sqlx::query(LAST).fetch_optional(connection).await;
    let row = row.map_err(|e| failed("read the last seq", e))?;
    row.map_or(Ok(0), |row| get(&row, 0))
}

#[async_trait]
impl Store for SqliteStore {
    async fn check(&self) -> Result<(), StoreError> {
        let mut tx = self.read().await?;
        migrate::check_version(&mut tx).await?;
        let row = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *tx).await;
        let mode: String = row
            .and_then(|r| r.try_get(0))
            .map_err(|e| failed("read the journal mode", e))?;
        if mode != "wal" {
            return Err(StoreError::Refused {
                problem: format!(
                    "journal_mode is {mode}: readers and writers would stop each other"
                ),
                cure: "PRAGMA journal_mode = WAL, on a local file system".to_owned(),
            });
        }
        Ok(())
    }

    async fn beat(&self, instance: &str) -> Result<Board, StoreError> {
        const BEAT: &str = "INSERT INTO outbox_relay (instance, beat, beat_at) VALUES (?, 1, ?) \
             ON CONFLICT (instance) DO UPDATE SET beat = beat + 1, beat_at = excluded.beat_at";
        let mut tx = self.write().await?;
        let beat = sqlx::query(BEAT).bind(instance.to_owned()).bind(now());
        beat.execute(&mut *tx)
            .await
            .map_err(|e| failed("beat", e))?;
        let board = board(&mut tx).await?;
        commit(tx).await?;
        Ok(board)
    }

    async fn claim(&self, seen: &LeaseRow, instance: &str) -> Result<Option<Lease>, StoreError> {
        const CLAIM: &str = "UPDATE outbox_lease SET owner = ?, epoch = epoch + 1 \
             WHERE destination = ? AND epoch = ? AND owner IS ? AND NOT (SELECT d.paused \
             FROM outbox_destination d WHERE d.name = destination) RETURNING epoch";
        let mut tx = self.write().await?;
        let claimed = sqlx::query(CLAIM)
            .bind(instance.to_owned())
            .bind(seen.destination.clone())
            .bind(seen.epoch)
            .bind(seen.owner.clone())
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| failed("claim the lease", e))?;
        let Some(row) = claimed else {
            return Ok(None);
        };
        let epoch = get(&row, 0)?;
        commit(tx).await?;
        Ok(Some(Lease {
            destination: seen.destination.clone(),
            owner: instance.to_owned(),
            epoch,
        }))
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        const RELEASE: &str = "UPDATE outbox_lease SET owner = NULL \
             WHERE destination = ? AND owner = ? AND epoch = ?";
        let mut tx = self.write().await?;
        let release = sqlx::query(RELEASE)
            .bind(lease.destination.clone())
            .bind(lease.owner.clone())
            .bind(lease.epoch);
        release
            .execute(&mut *tx)
            .await
            .map_err(|e| failed("release the lease", e))?;
        commit(tx).await
    }

    async fn open(&self, lease: &Lease) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(SqliteSession::open(self.clone(), lease).await?))
    }

    async fn maintain(&self, policy: &Maintenance) -> Result<Maintained, StoreError> {
        maintain::round(self, policy).await
    }
}

/// Everybody's beats and leases.
async fn board(tx: &mut SqliteConnection) -> Result<Board, StoreError> {
    const BEATS: &str = "SELECT instance, beat FROM outbox_relay ORDER BY instance";
    const LEASES: &str = "SELECT l.destination, l.owner, l.epoch, d.paused, d.control_version \
         FROM outbox_lease l JOIN outbox_destination d ON d.name = l.destination \
         ORDER BY l.destination";
    let beats = sqlx::query(BEATS).fetch_all(&mut *tx).await;
    let leases = sqlx::query(LEASES).fetch_all(tx).await;
    let beats = beats.map_err(|e| failed("read the beats", e))?;
    let leases = leases.map_err(|e| failed("read the leases", e))?;
    let beat = |row: &SqliteRow| {
        Ok(Beat {
            instance: get(row, 0)?,
            beat: get(row, 1)?,
        })
    };
    let lease = |row: &SqliteRow| {
        Ok(LeaseRow {
            destination: get(row, 0)?,
            owner: get(row, 1)?,
            epoch: get(row, 2)?,
            paused: get(row, 3)?,
            control_version: get(row, 4)?,
        })
    };
    Ok(Board {
        instances: beats.iter().map(beat).collect::<Result<_, StoreError>>()?,
        leases: leases
            .iter()
            .map(lease)
            .collect::<Result<_, StoreError>>()?,
    })
}

/// The store's identity, and the file it is at home in.
#[derive(Debug, PartialEq)]
pub(crate) struct Home {
    pub(crate) store_id: String,
    /// Identity of the file as stored.
    pub(crate) stored: String,
    /// Identity of the file as found.
    pub(crate) found: String,
}

impl Home {
    /// Reads it.
    pub(crate) async fn read(
        store: &SqliteStore,
        tx: &mut SqliteConnection,
    ) -> Result<Self, StoreError> {
        let row = sqlx::query("SELECT store_id, file FROM outbox_store")
            .fetch_one(tx)
            .await;
        let row = row.map_err(|e| failed("read the store's identity", e))?;
        Ok(Self {
            store_id: get(&row, 0)?,
            stored: get(&row, 1)?,
            found: identity::of_file(store.path())?,
        })
    }

    /// Whether it is where it was.
    pub(crate) fn is_home(&self) -> bool {
        self.stored == self.found
    }

    /// The error of a copy that would publish.
    pub(crate) fn foreign(&self, destination: &str) -> StoreError {
        StoreError::Foreign {
            destination: destination.to_owned(),
            stored: format!("{} in file {}", self.store_id, self.stored),
            found: format!("file {}", self.found),
        }
    }
}
