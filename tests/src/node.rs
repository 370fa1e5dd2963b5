//! One process that a test may kill: relay, log and consumer over one store.
//!
//! The log has one owner process, so a node that only relays and one that only consumes take
//! turns on the same folder; a node with both roles does both at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use outbox_broker_adapters::{LogBroker, LogSource};
use outbox_consumer::{Consumer, HandlerError};
use outbox_core::{Broker, Record, Store};
use outbox_log_broker::{Log, LogOptions};
use outbox_postgres::{PostgresInbox, PostgresOptions, PostgresStore};
use outbox_relay::{Relay, RelayOptions};
use outbox_sqlite::{SqliteInbox, SqliteStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The destination that nodes lead.
pub const DESTINATION: &str = "log";

/// Lease TTL of a node: short, because a killed node's lease must run out before the next leads.
pub const LEASE_TTL: Duration = Duration::from_millis(600);

/// The table that the consumer's handler writes, on PostgreSQL.
pub const APPLIED_POSTGRES: &str = "create table if not exists applied (\
     position bigint generated always as identity primary key, \
     id text not null, topic text not null, key text, payload text not null)";

/// The same on SQLite.
pub const APPLIED_SQLITE: &str = "create table if not exists applied (\
     position integer primary key autoincrement, \
     id text not null, topic text not null, key text, payload text not null)";

/// What a node does, as given on its command line.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// `postgres://…`, or the path of a SQLite file.
    pub store: String,
    /// The log's folder.
    pub log: PathBuf,
    /// Sends what is pending.
    pub relay: bool,
    /// Applies what arrives.
    pub consumer: bool,
    /// [`LEASE_TTL`], unless told otherwise.
    pub lease_ttl: Duration,
}

impl NodeOptions {
    /// Reads `--store S --log DIR --roles relay,consumer [--lease-ttl-ms N]`.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut found = BTreeMap::new();
        while let Some(name) = args.next() {
            let value = args
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            found.insert(name, value);
        }
        let lease_ttl = match found.remove("--lease-ttl-ms") {
            Some(ms) => Duration::from_millis(ms.parse()?),
            None => LEASE_TTL,
        };
        let mut take = |name: &str| {
            found
                .remove(name)
                .with_context(|| format!("{name} is missing"))
        };
        let (store, log, roles) = (take("--store")?, take("--log")?, take("--roles")?);
        let has = |role: &str| roles.split(',').any(|r| r == role);
        if let Some(unknown) = found.keys().next() {
            bail!("unknown argument {unknown}");
        }
        Ok(Self {
            store,
            log: log.into(),
            relay: has("relay"),
            consumer: has("consumer"),
            lease_ttl,
        })
    }
}

/// Runs until `shutdown`, then stops gracefully.
pub async fn run(options: NodeOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    let log = Log::open(LogOptions::new(&options.log)).context("open the log")?;
    let mut parts = JoinSet::new();
    if options.relay {
        let store = open_store(&options.store).await?;
        let broker: Arc<dyn Broker> = Arc::new(LogBroker::new(log.clone()));
        let brokers = BTreeMap::from([(DESTINATION.to_owned(), broker)]);
        let relay = Relay::new(store, brokers, relay_options(options.lease_ttl));
        let token = shutdown.clone();
        parts.spawn(async move { relay.run(token).await.context("run the relay") });
    }
    if options.consumer {
        let source = Arc::new(LogSource::new(log.clone()));
        parts.spawn(consume(options.store.clone(), source, shutdown.clone()));
    }
    while let Some(part) = parts.join_next().await {
        part??;
    }
    Ok(())
}

fn relay_options(lease_ttl: Duration) -> RelayOptions {
    RelayOptions {
        lease_ttl,
        http: None,
        ..RelayOptions::default()
    }
}

fn is_postgres(store: &str) -> bool {
    store.starts_with("postgres")
}

async fn open_store(store: &str) -> anyhow::Result<Arc<dyn Store>> {
    if !is_postgres(store) {
        return Ok(Arc::new(
            SqliteStore::open(store).await.context("open the store")?,
        ));
    }
    let options = PostgresOptions {
        url: store.to_owned(),
        ..PostgresOptions::default()
    };
    // A killed server comes back: until then a node waits, as a sidecar's supervisor would.
    loop {
        match PostgresStore::connect(options.clone()).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) if error.class() == outbox_core::Class::Outage => {
                tracing::info!(%error, "waiting for the store");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn consume(
    store: String,
    source: Arc<LogSource>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if is_postgres(&store) {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy(&store)?;
        let insert = "insert into applied (id, topic, key, payload) values ($1, $2, $3, $4)";
        Consumer::new(source, PostgresInbox::new(pool))
            .name("node")
            .on("*", move |record, mut tx| async move {
                let row = Row::of(&record)?;
                sqlx::query(insert)
                    .bind(row.id)
                    .bind(row.topic)
                    .bind(row.key)
                    .bind(row.payload)
                    .execute(&mut **tx)
                    .await?;
                Ok(())
            })
            .run(shutdown)
            .await?;
        return Ok(());
    }
    let pool = outbox_sqlite::pool(&store).await?;
    let insert = "insert into applied (id, topic, key, payload) values (?, ?, ?, ?)";
    Consumer::new(source, SqliteInbox::new(pool))
        .name("node")
        .on("*", move |record, mut tx| async move {
            let row = Row::of(&record)?;
            sqlx::query(insert)
                .bind(row.id)
                .bind(row.topic)
                .bind(row.key)
                .bind(row.payload)
                .execute(&mut **tx)
                .await?;
            Ok(())
        })
        .run(shutdown)
        .await?;
    Ok(())
}

/// What the handler writes of a record.
struct Row {
    id: String,
    topic: String,
    key: Option<String>,
    payload: String,
}

impl Row {
    fn of(record: &Record) -> Result<Self, HandlerError> {
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(HandlerError::permanent);
        Ok(Self {
            id: record.id.map(|id| id.to_string()).unwrap_or_default(),
            topic: record.partition.topic.to_string(),
            key: record.key.as_deref().map(text).transpose()?,
            payload: text(&record.payload)?,
        })
    }
}
