//! SQLite: the conformance suite, and what only this store can get wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outbox_core::{Admin, Message, Store, StoreError};
use outbox_sqlite::{Outbox, SqliteStore};
use outbox_tests::conformance::{Fixture, Open};
use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, Transaction};
use tempfile::TempDir;
use uuid::Uuid;

mod copies;
mod files;
mod log_size;
mod processes;
mod transactions;

/// A store in a folder of its own.
pub struct SqliteFixture {
    folder: TempDir,
    store: SqliteStore,
    pool: SqlitePool,
    outbox: Outbox,
}

/// A new, empty, migrated store.
pub async fn fixture() -> SqliteFixture {
    let folder = tempfile::tempdir().expect("folder");
    let fixture = SqliteFixture::open(folder).await;
    fixture.store.migrate().await.expect("migrate");
    fixture
}

impl SqliteFixture {
    async fn open(folder: TempDir) -> Self {
        let path = folder.path().join("outbox.db");
        let store = SqliteStore::open(&path).await.expect("open");
        let pool = outbox_sqlite::pool(&path).await.expect("pool");
        Self {
            folder,
            store,
            pool,
            outbox: Outbox::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("outbox.db")
    }

    async fn begin(&self, messages: Vec<Message>) -> Result<(Vec<Uuid>, Tx), StoreError> {
        let mut tx = self
            .pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .expect("begin");
        let ids = self.outbox.enqueue_all(&mut tx, messages).await?;
        Ok((ids, tx))
    }
}

type Tx = Transaction<'static, Sqlite>;

/// An open transaction.
struct OpenTransaction(Tx);

#[async_trait]
impl Open for OpenTransaction {
    async fn commit(self: Box<Self>) {
        self.0.commit().await.expect("commit");
    }

    async fn roll_back(self: Box<Self>) {
        self.0.rollback().await.expect("roll back");
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(self.store.clone())
    }

    async fn another_process(&self) -> (Arc<dyn Store>, Arc<dyn Admin>) {
        let store = SqliteStore::open(self.path()).await.expect("open");
        (Arc::new(store.clone()), Arc::new(store))
    }

    async fn enqueue(&self, messages: Vec<Message>) -> Result<Vec<Uuid>, StoreError> {
        let (ids, tx) = self.begin(messages).await?;
        tx.commit().await.expect("commit");
        Ok(ids)
    }

    async fn enqueue_rolled_back(&self, messages: Vec<Message>) -> Result<(), StoreError> {
        let (_, tx) = self.begin(messages).await?;
        tx.rollback().await.expect("roll back");
        Ok(())
    }

    async fn enqueue_open(&self, messages: Vec<Message>) -> Result<Box<dyn Open>, StoreError> {
        let (_, tx) = self.begin(messages).await?;
        Ok(Box::new(OpenTransaction(tx)))
    }

    fn commits_late(&self) -> bool {
        false
    }

    async fn copied(&self) -> Box<dyn Fixture> {
        let folder = tempfile::tempdir().expect("folder");
        copy_file(&self.path(), &folder.path().join("outbox.db")).await;
        Box::new(Self::open(folder).await)
    }
}

/// A consistent copy of the file at `from`, as a backup makes it.
async fn copy_file(from: &Path, to: &Path) {
    let pool = outbox_sqlite::pool(from).await.expect("pool");
    let vacuum = sqlx::query("VACUUM INTO ?").bind(to.to_str().expect("UTF-8").to_owned());
    vacuum.execute(&pool).await.expect("copy");
    pool.close().await;
}

outbox_tests::store_conformance!(fixture);
