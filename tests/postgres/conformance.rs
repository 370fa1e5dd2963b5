//! The store contract on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use outbox_core::{Admin, Message, Store, StoreError};
use outbox_postgres::{Outbox, PostgresStore};
use outbox_tests::conformance::{Fixture, Open};
use outbox_tests::postgres::TestDb;
use sqlx::{AssertSqlSafe, ConnectOptions, Postgres, Transaction};
use uuid::Uuid;

use crate::stage::connect;

/// A store in a database of its own.
struct PostgresFixture {
    database: TestDb,
    store: PostgresStore,
    outbox: Outbox,
}

async fn fixture() -> PostgresFixture {
    let fixture = PostgresFixture::on(TestDb::new().await).await;
    fixture.store.migrate().await.expect("migrate");
    fixture
}

impl PostgresFixture {
    async fn on(database: TestDb) -> Self {
        Self {
            store: connect(database.url(), "outbox").await,
            database,
            outbox: Outbox::default(),
        }
    }

    async fn begin(&self, messages: Vec<Message>) -> Result<(Vec<Uuid>, Tx), StoreError> {
        let mut tx = self.database.pool().begin().await.expect("begin");
        let ids = self.outbox.enqueue_all(&mut tx, messages).await?;
        Ok((ids, tx))
    }
}

type Tx = Transaction<'static, Postgres>;

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
impl Fixture for PostgresFixture {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(self.store.clone())
    }

    async fn another_process(&self) -> (Arc<dyn Store>, Arc<dyn Admin>) {
        let store = connect(self.database.url(), "outbox").await;
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
        true
    }

    /// `CREATE DATABASE … TEMPLATE`, which wants nobody connected: every connection is cut.
    async fn copied(&self) -> Box<dyn Fixture> {
        let copy = TestDb::new().await;
        copy_database(&self.database, &copy).await;
        Box::new(Self::on(copy).await)
    }
}

/// Fills `to` with a copy of `from`.
pub async fn copy_database(from: &TestDb, to: &TestDb) {
    let options = from
        .pool()
        .connect_options()
        .as_ref()
        .clone()
        .database("postgres");
    let mut admin = options.connect().await.expect("connect");
    let (from, to) = (from.name(), to.name());
    let cut = "select pg_terminate_backend(pid, 10000) from pg_stat_activity \
         where datname = any ($1)";
    // Twice: a pool may connect again in between.
    for attempt in 0.. {
        sqlx::query(cut)
            .bind([from, to])
            .execute(&mut admin)
            .await
            .expect("cut connections");
        let drop = format!("drop database if exists {to} with (force)");
        sqlx::query(AssertSqlSafe(drop))
            .execute(&mut admin)
            .await
            .expect("drop");
        let create = format!("create database {to} template {from}");
        match sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await {
            Ok(_) => return,
            Err(error) => assert!(attempt < 20, "copy {from}: {error}"),
        }
    }
}

outbox_tests::store_conformance!(fixture);
outbox_tests::late_commit_conformance!(fixture);
