//! Relay, log and consumer in one process: reads the orders' outbox and keeps accounts.
//!
//! ```console
//! $ DATABASE_URL=postgres://localhost/shop cargo run -p outbox-examples --example order-consumer
//! ```
//!
//! The bundled log belongs to one process at a time, so everything that touches it lives here: the
//! relay that fills it and the consumer that reads it. (With `outbox broker`, or with Kafka, each
//! would be a process of its own.) `LOG_DIR` (./outbox-data/log) says where the log is;
//! `BILLING_DATABASE_URL` (`DATABASE_URL`) where the accounts are: any other database will do, for
//! the inbox needs no outbox beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use outbox_broker_adapters::{LogBroker, LogSource};
use outbox_consumer::Consumer;
use outbox_core::{Admin, Broker, Destination, OnDead, Order as Ordering, RetryPolicy, Start};
use outbox_examples::{log_to_stderr, or_default, required, shutdown};
use outbox_log_broker::{Log, LogOptions};
use outbox_postgres::{PostgresInbox, PostgresOptions, PostgresStore};
use outbox_relay::{Relay, RelayOptions};
use serde::Deserialize;
use sqlx::postgres::PgPool;

/// Adding to a total is the kind of effect that must not happen twice.
const TABLES: &str = "create table if not exists account (
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
    let dir = or_default("LOG_DIR", "./outbox-data/log");

    let log = Log::open(LogOptions::new(&dir)).with_context(|| format!("open the log in {dir}"))?;
    let store = store(url, &dir).await?;
    let brokers: BTreeMap<String, Arc<dyn Broker>> = BTreeMap::from([(
        "orders".to_owned(),
        Arc::new(LogBroker::new(log.clone())) as _,
    )]);
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
        Arc::new(LogSource::new(log)),
        stop.clone(),
    ));
    // Whichever ends, asked to or not, takes the other along.
    let (relayed, consumed) = tokio::join!(ending(relaying, &stop), ending(consuming, &stop));
    relayed?.context("relay")?;
    consumed?.context("consume")
}

/// The outbox, with the one place its messages go.
async fn store(url: String, dir: &str) -> anyhow::Result<PostgresStore> {
    let options = PostgresOptions {
        url,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(options).await?;
    store.migrate().await?;
    let orders = Destination {
        name: "orders".to_owned(),
        patterns: vec!["orders.*".parse()?],
        broker: format!("log:{dir}"),
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
    source: Arc<LogSource>,
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
