//! The shop on SQLite: one file for the service and its outbox, one for the consumer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outbox_consumer::Consumer;
use outbox_core::Source;
use outbox_sqlite::{Outbox, SqliteInbox, SqliteStore};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio_util::sync::CancellationToken;

use super::plan::{Fate, PlannedOrder, customers};
use super::shop::*;
use super::sql;
use crate::exit::Problem;
use crate::store::OpenStore;

const SERVICE_TABLES: &str = "
create table customer (id integer primary key, orders integer not null);
create table attempt (id integer primary key);
create table placed_order (
    id integer primary key, message_id text not null, customer integer not null,
    number integer not null, cents integer not null);
";

/// No unique constraint on the message: a second effect must be able to happen, to be seen.
const CONSUMER_TABLES: &str = "
create table applied (
    position integer primary key autoincrement, message_id text not null,
    customer integer not null, number integer not null, cents integer not null);
create table balance (customer integer primary key, cents integer not null);
";

/// See the module.
pub struct SqliteShop {
    service_file: PathBuf,
    consumer_file: PathBuf,
    service: SqlitePool,
    consumer: SqlitePool,
    outbox: Outbox,
    names: Names,
}

impl SqliteShop {
    /// A shop whose files are in `folder`.
    pub async fn open(folder: &Path, names: Names) -> Result<Self, Problem> {
        let (service_file, consumer_file) = (folder.join("shop.db"), folder.join("billing.db"));
        Ok(Self {
            service: outbox_sqlite::pool(&service_file).await?,
            consumer: outbox_sqlite::pool(&consumer_file).await?,
            service_file,
            consumer_file,
            outbox: Outbox::default(),
            names,
        })
    }

    /// Everything of one order but its end.
    async fn write(&self, order: &PlannedOrder, tx: &mut SqliteConnection) -> Result<(), Problem> {
        let failed = database_problem("place an order");
        let number: i64 = sqlx::query_scalar(sql::NEXT_NUMBER)
            .bind(order.customer)
            .fetch_one(&mut *tx)
            .await
            .map_err(&failed)?;
        let body = OrderPlaced::new(order, number);
        sqlx::query(sql::INSERT_ORDER)
            .bind(order.id)
            .bind(&body.message_id)
            .bind(order.customer)
            .bind(number)
            .bind(order.cents)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        self.outbox
            .enqueue(
                tx,
                body.message(&self.names.topic, order)
                    .map_err(message_problem)?,
            )
            .await?;
        if order.fate == Fate::CommitWithoutCoupon {
            let mut savepoint = tx.begin().await.map_err(&failed)?;
            let coupon = body.coupon(&self.names.topic).map_err(message_problem)?;
            self.outbox.enqueue(&mut savepoint, coupon).await?;
            savepoint.rollback().await.map_err(&failed)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Shop for SqliteShop {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    /// Writers take turns in one file.
    fn clients(&self) -> usize {
        2
    }

    async fn prepare(&self, orders: &[PlannedOrder]) -> Result<(), Problem> {
        let failed = database_problem("prepare the shop");
        self.store().await?.admin.migrate().await?;
        sqlx::raw_sql(SERVICE_TABLES)
            .execute(&self.service)
            .await
            .map_err(&failed)?;
        sqlx::raw_sql(CONSUMER_TABLES)
            .execute(&self.consumer)
            .await
            .map_err(&failed)?;
        SqliteInbox::new(self.consumer.clone())
            .migrate()
            .await
            .map_err(inbox_problem)?;
        let mut tx = self.service.begin().await.map_err(&failed)?;
        for customer in customers() {
            let insert = sqlx::query(sql::INSERT_CUSTOMER).bind(customer);
            insert.execute(&mut *tx).await.map_err(&failed)?;
        }
        for order in orders {
            let insert = sqlx::query(sql::INSERT_ATTEMPT).bind(order.id);
            insert.execute(&mut *tx).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }

    async fn place(&self, order: &PlannedOrder) -> Result<(), Problem> {
        let failed = database_problem("place an order");
        let mut tx = self
            .service
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(&failed)?;
        self.write(order, &mut tx).await?;
        match order.fate {
            Fate::Commit | Fate::CommitWithoutCoupon => tx.commit().await.map_err(&failed),
            Fate::Declined => tx.rollback().await.map_err(&failed),
            Fate::Abandoned => Ok(()),
        }
    }

    async fn store(&self) -> Result<OpenStore, Problem> {
        let store = SqliteStore::open(&self.service_file).await?;
        Ok(OpenStore {
            store: Arc::new(store.clone()),
            admin: Arc::new(store),
        })
    }

    async fn bill(
        &self,
        source: Arc<dyn Source>,
        shutdown: CancellationToken,
    ) -> Result<(), Problem> {
        let pool = outbox_sqlite::pool(&self.consumer_file).await?;
        Consumer::new(source, SqliteInbox::new(pool))
            .name(&self.names.consumer)
            .on(&self.names.topic, |record, mut tx| async move {
                let order = read_order(&record)?;
                sqlx::query(sql::INSERT_APPLIED)
                    .bind(&order.message_id)
                    .bind(order.customer)
                    .bind(order.number)
                    .bind(order.cents)
                    .execute(&mut **tx)
                    .await?;
                let add = sqlx::query(sql::ADD_TO_BALANCE)
                    .bind(order.customer)
                    .bind(order.cents);
                add.execute(&mut **tx).await?;
                Ok(())
            })
            .run(shutdown)
            .await
            .map_err(consumer_problem)
    }

    async fn counts(&self) -> Result<Counts, Problem> {
        let failed = database_problem("count orders and effects");
        let committed = sql::number(&self.service, sql::COUNT_COMMITTED)
            .await
            .map_err(&failed)?;
        let applied = sql::number(&self.consumer, sql::COUNT_APPLIED)
            .await
            .map_err(&failed)?;
        Ok(Counts {
            committed: committed.unsigned_abs(),
            applied: applied.unsigned_abs(),
        })
    }

    async fn books(&self) -> Result<Books, Problem> {
        let failed = database_problem("read the ledger");
        let rolled_back = sql::number(&self.service, sql::ROLLED_BACK)
            .await
            .map_err(&failed)?;
        Ok(Books {
            committed: sql::entries(&self.service, sql::COMMITTED)
                .await
                .map_err(&failed)?,
            rolled_back: rolled_back.unsigned_abs(),
            applied: sql::entries(&self.consumer, sql::APPLIED)
                .await
                .map_err(&failed)?,
            balance_cents: sql::number(&self.consumer, sql::BALANCES)
                .await
                .map_err(&failed)?,
        })
    }

    async fn clean_up(&self) -> Result<(), Problem> {
        self.service.close().await;
        self.consumer.close().await;
        Ok(())
    }
}
