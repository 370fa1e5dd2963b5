//! A real PostgreSQL, a real log and a real relay, for one benchmark.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use outbox_broker_adapters::LogBroker;
use outbox_core::{Admin, Batch, Broker, Capabilities, Message, Outcome, PublishError, Start};
use outbox_log_broker::{Log, LogOptions};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use outbox_relay::{Relay, RelayOptions};
use outbox_tests::destination;
use outbox_tests::postgres::{Server, ServerOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server of its own, with fsync and synchronous_commit on.
pub struct Rig {
    /// The server.
    pub server: Server,
    /// The database's URL, as superuser.
    pub url: String,
    /// Connections for the load and for questions.
    pub pool: PgPool,
    /// Where logs go: the same disk as the server's.
    pub dir: tempfile::TempDir,
}

impl Rig {
    /// Starts a server with a migrated outbox.
    pub async fn start() -> anyhow::Result<Self> {
        let settings = [
            "shared_buffers=1GB",
            "max_wal_size=8GB",
            "checkpoint_timeout=30min",
            "jit=off",
        ];
        let options = ServerOptions {
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        };
        let server = Server::start(options).await.context("start PostgreSQL")?;
        let url = server.url(&server.create_database().await?);
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .connect(&url)
            .await?;
        let rig = Self {
            server,
            url,
            pool,
            dir: tempfile::tempdir()?,
        };
        rig.store().await?.migrate().await?;
        Ok(rig)
    }

    /// A store on connections of its own.
    pub async fn store(&self) -> anyhow::Result<PostgresStore> {
        let options = PostgresOptions {
            url: self.url.clone(),
            ..PostgresOptions::default()
        };
        Ok(PostgresStore::connect(options).await?)
    }

    /// Creates a destination for every topic.
    pub async fn declare(&self, name: &str, start: Start) -> anyhow::Result<()> {
        self.store()
            .await?
            .declare(&[destination(name, start)])
            .await?;
        Ok(())
    }

    /// Starts a relay for `destination` into a fresh log; it takes the lease by itself.
    pub async fn relay(&self, destination: &str) -> anyhow::Result<Running> {
        let dir = self
            .dir
            .path()
            .join(format!("log-{}", uuid::Uuid::now_v7()));
        let log = Log::open(LogOptions::new(dir)).context("open the log")?;
        let broker = Metered::new(Arc::new(LogBroker::new(log)));
        self.relay_into(destination, broker).await
    }

    /// Starts a relay for `destination` into `broker`.
    pub async fn relay_into(
        &self,
        destination: &str,
        broker: Arc<Metered>,
    ) -> anyhow::Result<Running> {
        let store = Arc::new(self.store().await?);
        let mut brokers: BTreeMap<String, Arc<dyn Broker>> = BTreeMap::new();
        brokers.insert(destination.to_owned(), broker.clone());
        let shutdown = CancellationToken::new();
        let relay = Relay::new(store, brokers, RelayOptions::default());
        let task = tokio::spawn(relay.run(shutdown.clone()));
        Ok(Running {
            broker,
            shutdown,
            task,
        })
    }

    /// Enqueues `count` messages of `size` bytes with Zipf keys, 5,000 a transaction.
    pub async fn fill(&self, count: u64, size: usize, seed: u64) -> anyhow::Result<()> {
        let mut zipf = crate::load::Zipf::new(crate::load::KEYS, seed);
        let outbox = Outbox::default();
        let mut left = count;
        while left > 0 {
            let n = left.min(5_000);
            let messages: Vec<Message> = (0..n)
                .map(|_| crate::load::message(&mut zipf, size))
                .collect();
            let mut tx = self.pool.begin().await?;
            outbox.enqueue_all(&mut tx, messages).await?;
            tx.commit().await?;
            left -= n;
        }
        Ok(())
    }

    /// Runs a statement that answers one number.
    pub async fn number(&self, sql: &'static str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// Removes the logs of relays that were stopped: of a long run they would fill the disk.
    pub fn forget_logs(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// VACUUM and CHECKPOINT, so that no run pays for the one before.
    pub async fn settle_down(&self) -> anyhow::Result<()> {
        for sql in ["vacuum (analyze) outbox.message", "checkpoint"] {
            sqlx::query(sql).execute(&self.pool).await?;
        }
        Ok(())
    }
}

/// A relay that runs.
pub struct Running {
    /// Counts what is durably in the log.
    pub broker: Arc<Metered>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), outbox_relay::RelayError>>,
}

impl Running {
    /// Stops it gracefully.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.task.await??;
        Ok(())
    }
}

/// Called with each acknowledged batch, at the moment of the acknowledgement.
pub type OnSent = Box<dyn Fn(&Batch, Instant) + Send + Sync>;

/// A broker that counts what the real one behind it acknowledged.
pub struct Metered {
    inner: Arc<dyn Broker>,
    sent: AtomicU64,
    seen: watch::Sender<u64>,
    on_sent: Option<OnSent>,
}

impl Metered {
    /// Counts only.
    pub fn new(inner: Arc<dyn Broker>) -> Arc<Self> {
        Self::with(inner, None)
    }

    /// Counts, and calls `on_sent`.
    pub fn with(inner: Arc<dyn Broker>, on_sent: Option<OnSent>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            sent: AtomicU64::new(0),
            seen: watch::Sender::new(0),
            on_sent,
        })
    }

    /// Waits until `count` messages were acknowledged.
    pub async fn wait_for(&self, count: u64) -> anyhow::Result<()> {
        self.seen
            .subscribe()
            .wait_for(|sent| *sent >= count)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Broker for Metered {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, batch: &Batch) -> Result<Vec<Outcome>, PublishError> {
        let outcomes = self.inner.publish(batch).await?;
        let now = Instant::now();
        let sent = outcomes
            .iter()
            .filter(|o| matches!(o, Outcome::Sent(_)))
            .count() as u64;
        let total = self.sent.fetch_add(sent, Ordering::AcqRel) + sent;
        self.seen.send_replace(total);
        if let Some(on_sent) = &self.on_sent {
            on_sent(batch, now);
        }
        Ok(outcomes)
    }
}
