//! A migrated store in a database of its own, and ways to look behind it.

use outbox_core::{Admin, Message, Seq, Session};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use outbox_tests::conformance::stage::{destination, lead};
use outbox_tests::postgres::TestDb;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};

/// A store with its database.
pub struct Stage {
    pub store: PostgresStore,
    pub database: TestDb,
}

impl Stage {
    /// A new store, migrated.
    pub async fn new() -> Self {
        let database = TestDb::new().await;
        let store = connect(database.url(), "outbox").await;
        store.migrate().await.expect("migrate");
        Self { store, database }
    }

    /// Declares a destination for everything and leads it.
    pub async fn lead_all(&self, name: &str) -> Box<dyn Session> {
        let declared = [destination(name, &["*"])];
        self.store.declare(&declared).await.expect("declare");
        lead(&self.store, name, "first").await
    }

    /// A superuser's connections.
    pub fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// Enqueues `messages` in one transaction.
    pub async fn enqueue(&self, messages: Vec<Message>) {
        let tx = self.enqueue_open(messages).await;
        tx.commit().await.expect("commit");
    }

    /// Enqueues `messages` in a transaction that stays open.
    pub async fn enqueue_open(&self, messages: Vec<Message>) -> Transaction<'static, Postgres> {
        let mut tx = self.pool().begin().await.expect("begin");
        Outbox::default()
            .enqueue_all(&mut tx, messages)
            .await
            .expect("enqueue");
        tx
    }

    /// Runs one statement as a superuser.
    pub async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql)
            .execute(self.pool())
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// One number.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let number = sqlx::query_scalar(sql).fetch_one(self.pool()).await;
        number.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Lets the next message get the seq after `seq`, as if so many had been enqueued.
    pub async fn skip_to(&self, seq: Seq) {
        sqlx::query("select setval('outbox.message_seq', $1)")
            .bind(seq)
            .execute(self.pool())
            .await
            .expect("setval");
    }
}

/// A store as somebody else holds it.
pub async fn connect(url: &str, schema: &str) -> PostgresStore {
    let options = PostgresOptions {
        url: url.to_owned(),
        schema: schema.to_owned(),
        ..PostgresOptions::default()
    };
    PostgresStore::connect(options).await.expect("connect")
}
