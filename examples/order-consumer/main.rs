//! Relay and consumer in one process: reads the orders' outbox and keeps accounts.
//!
//! ```console
//! $ DATABASE_URL=postgres://localhost/shop cargo run -p outbox-examples --example order-consumer
//! ```
//!
//! `BROKER` (log:./outbox-data/log) says where the log is. A folder belongs to one process at a time,
//! so the relay that fills it and the consumer that reads it both live here. With `outbox broker`,
//! say `BROKER=log://127.0.0.1:9092` and run as many of this as you like: they share the work.
//! `BILLING_DATABASE_URL` (`DATABASE_URL`) is where the accounts are: any other database will do, for
//! the inbox needs no outbox beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use outbox_broker_adapters::{connect, source};
use outbox_consumer::Consumer;
use outbox_core::{Admin, Destination, OnDead, Order as Ordering, RetryPolicy, Source, Start};
use outbox_examples::{log_to_stderr, or_default, required, shutdown};
use outbox_postgres::{PostgresInbox, PostgresOptions, PostgresStore};
use outbox_relay::{Relay, RelayOptions};
use serde::Deserialize;
use sqlx::postgres::PgPool;

/// Adding to a total is the kind of effect that must not happen twice.
///
/// The lock: two that start at the same time would both create the table, and one of them fail.
const TABLES: &str = "select pg_advisory_xact_lock(hashtext('tables of order-consumer'));
    create table if not exists account (
        customer text primary key, orders bigint not null, total_cents bigint not null)";

const BOOK: &str = "insert into account (customer, orders, total_cents) values ($1, 1, $2)
    on conflict (customer) do update
    set orders = account.orders + 1, total_cents = account.total_cents + excluded.total_cents";

/// What this consumer needs to know of an order.
#[derive(Deserialize)]
struct Order {
    customer: String,
    amount_cents: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    log_to_stderr();
    let url = required("DATABASE_URL", "postgres://localhost/shop")?;
    let billing_url = or_default("BILLING_DATABASE_URL", &url);
    let broker = or_default("BROKER", "log:./outbox-data/log");

    let store = store(url, &broker).await?;
    let brokers = BTreeMap::from([("orders".to_owned(), connect(&broker).await?)]);
    let options = RelayOptions {
        http: None,
        ..RelayOptions::default()
    };
    let relay = Relay::new(Arc::new(store), brokers, options);

    let stop = shutdown()?;
    let _stop_the_other = stop.clone().drop_guard();
    let relaying = tokio::spawn(relay.run(stop.clone()));
    let consuming = tokio::spawn(consume(
        billing_url,
        source(&broker, "accounts").await?,
        stop.clone(),
    ));
    // Whichever ends, asked to or not, takes the other along.
    let (relayed, consumed) = tokio::join!(ending(relaying, &stop), ending(consuming, &stop));
    relayed?.context("relay")?;
    consumed?.context("consume")
}

/// The outbox, with the one place its messages go.
async fn store(url: String, broker: &str) -> anyhow::Result<PostgresStore> {
    let options = PostgresOptions {
        url,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(options).await?;
    store.migrate().await?;
    let orders = Destination {
        name: "orders".to_owned(),
        patterns: vec!["orders.*".parse()?],
        broker: broker.to_owned(),
        order: Ordering::Key,
        on_dead: OnDead::BlockKey,
        retry: RetryPolicy::default(),
        start: Start::Beginning,
        paused: false,
    };
    store.declare(&[orders]).await?;
    Ok(store)
}

/// Keeps the accounts: an order and its inbox row commit together.
async fn consume(
    url: String,
    source: Arc<dyn Source>,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    let pool = PgPool::connect(&url)
        .await
        .context("connect to the accounts")?;
    sqlx::raw_sql(TABLES)
        .execute(&pool)
        .await
        .context("create the table")?;
    let inbox = PostgresInbox::new(pool);
    inbox.migrate().await?;
    Consumer::new(source, inbox)
        .name("accounts")
        .on("orders.placed", |record, mut tx| async move {
            let order: Order = record.json()?;
            sqlx::query(BOOK)
                .bind(order.customer)
                .bind(order.amount_cents)
                .execute(&mut **tx)
                .await?;
            Ok(())
        })
        .run(stop)
        .await?;
    Ok(())
}

async fn ending<T>(
    task: tokio::task::JoinHandle<T>,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<T, tokio::task::JoinError> {
    let ended = task.await;
    stop.cancel();
    ended
}
