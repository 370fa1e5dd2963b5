//! The shop on PostgreSQL, in two schemas of its own that are dropped at the end.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use outbox_consumer::Consumer;
use outbox_core::{Admin, Source};
use outbox_postgres::{Outbox, PostgresInbox, PostgresOptions, PostgresStore};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::plan::{Fate, PlannedOrder, customers};
use super::shop::*;
use super::sql;
use crate::config::value::Secret;
use crate::exit::{Exit, Problem};
use crate::store::OpenStore;

/// No unique constraint on the message: a second effect must be able to happen, to be seen.
const TABLES: &str = "
create table customer (id bigint primary key, orders bigint not null);
create table attempt (id bigint primary key);
create table placed_order (
    id bigint primary key, message_id text not null, customer bigint not null,
    number bigint not null, cents bigint not null);
create table applied (
    position bigint generated always as identity primary key, message_id text not null,
    customer bigint not null, number bigint not null, cents bigint not null);
create table balance (customer bigint primary key, cents bigint not null);
";

/// Connections of the order service, and of the consumer.
const CONNECTIONS: u32 = 8;

/// See the module.
pub struct PostgresShop {
    url: Secret,
    /// Schema of the outbox's tables.
    outbox_schema: String,
    /// Schema of the shop's tables.
    shop_schema: String,
    outbox: Outbox,
    pool: PgPool,
    names: Names,
}

impl PostgresShop {
    /// A shop in the database of `url`. Its schemas have a name of their own in each run, so that
    /// two demos, and a real outbox, may live beside it.
    pub async fn open(url: Secret, names: Names) -> Result<Self, Problem> {
        let run: u32 = rand::random();
        let outbox_schema = format!("outbox_demo_{run:08x}");
        let shop_schema = format!("{outbox_schema}_shop");
        let pool = connect(&url, &shop_schema).await?;
        let outbox = Outbox::with_schema(outbox_schema.as_str());
        Ok(Self {
            url,
            outbox_schema,
            shop_schema,
            outbox,
            pool,
            names,
        })
    }

    async fn postgres_store(&self) -> Result<PostgresStore, Problem> {
        let options = PostgresOptions {
            url: self.url.expose().to_owned(),
            schema: self.outbox_schema.clone(),
            ..PostgresOptions::default()
        };
        Ok(PostgresStore::connect(options).await?)
    }

    /// Everything of one order but its end.
    async fn write(&self, order: &PlannedOrder, tx: &mut PgConnection) -> Result<(), Problem> {
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

async fn connect(url: &Secret, schema: &str) -> Result<PgPool, Problem> {
    let failed = database_problem("connect to the store");
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|e| Problem::new(Exit::Config, format!("read store.url: {e}")))?
        .options([("search_path", schema)]);
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(std::time::Duration::from_secs(10))
        .connect_with(options)
        .await
        .map_err(&failed)
}

#[async_trait]
impl Shop for PostgresShop {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    /// Enough to commit out of turn.
    fn clients(&self) -> usize {
        4
    }

    async fn prepare(&self, orders: &[PlannedOrder]) -> Result<(), Problem> {
        let failed = database_problem("prepare the shop");
        self.postgres_store().await?.migrate().await?;
        let create = format!("create schema {}", self.shop_schema);
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&self.pool)
            .await
            .map_err(&failed)?;
        sqlx::raw_sql(TABLES)
            .execute(&self.pool)
            .await
            .map_err(&failed)?;
        let mut tx = self.pool.begin().await.map_err(&failed)?;
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
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        self.write(order, &mut tx).await?;
        match order.fate {
            Fate::Commit | Fate::CommitWithoutCoupon => tx.commit().await.map_err(&failed),
            Fate::Declined => tx.rollback().await.map_err(&failed),
            Fate::Abandoned => Ok(()),
        }
    }

    async fn store(&self) -> Result<OpenStore, Problem> {
        let store = self.postgres_store().await?;
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
        let pool = connect(&self.url, &self.shop_schema).await?;
        Consumer::new(
            source,
            PostgresInbox::with_schema(pool, self.outbox_schema.as_str()),
        )
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
        let committed = sql::number(&self.pool, sql::COUNT_COMMITTED)
            .await
            .map_err(&failed)?;
        let applied = sql::number(&self.pool, sql::COUNT_APPLIED)
            .await
            .map_err(&failed)?;
        Ok(Counts {
            committed: committed.unsigned_abs(),
            applied: applied.unsigned_abs(),
        })
    }

    async fn books(&self) -> Result<Books, Problem> {
        let failed = database_problem("read the ledger");
        let rolled_back = sql::number(&self.pool, sql::ROLLED_BACK)
            .await
            .map_err(&failed)?;
        Ok(Books {
            committed: sql::entries(&self.pool, sql::COMMITTED)
                .await
                .map_err(&failed)?,
            rolled_back: rolled_back.unsigned_abs(),
            applied: sql::entries(&self.pool, sql::APPLIED)
                .await
                .map_err(&failed)?,
            balance_cents: sql::number(&self.pool, sql::BALANCES)
                .await
                .map_err(&failed)?,
        })
    }

    async fn clean_up(&self) -> Result<(), Problem> {
        let failed = database_problem("drop the demo's schemas");
        for schema in [&self.shop_schema, &self.outbox_schema] {
            let drop = format!("drop schema if exists {schema} cascade");
            sqlx::raw_sql(AssertSqlSafe(drop))
                .execute(&self.pool)
                .await
                .map_err(&failed)?;
        }
        self.pool.close().await;
        Ok(())
    }
}
