//! The store: options, connections, and the calls that are not one destination's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outbox_core::{
    Board, Lease, LeaseRow, Maintained, Maintenance, Session, Store, StoreError, limits,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Row};
use tokio::sync::Mutex;

use crate::admin::version;
use crate::error::OrStoreError;
use crate::inbox::PostgresInbox;
use crate::session::PostgresSession;
use crate::sql::{CHECK, Statement, Statements};
use crate::{lease, maintain};

/// Most connections for operators' calls and house-keeping; sessions and heart beats have their own.
const POOL_CONNECTIONS_MAX: u32 = 4;

/// How long a call waits for a connection before the store counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of every connection that may have them. Behind a transaction-mode pooler they would
/// land on somebody else's, so there each statement does without: the page checks row-level
/// security itself.
const SESSION_SETTINGS: &str = "set row_security = off; \
     set default_transaction_isolation = 'read committed'; \
     set plan_cache_mode = force_custom_plan; \
     set jit = off; set enable_seqscan = off; set enable_bitmapscan = off; \
     set max_parallel_workers_per_gather = 0; \
     set statement_timeout = 0; set idle_in_transaction_session_timeout = 0";

/// Of a session's connection, which runs the same few statements thousands of times: their plans are
/// made once. Each goes by primary keys, or names the stretch of the log it reads by constants, so that
/// no plan depends on an argument.
const KEEP_PLANS: &str = "set plan_cache_mode = force_generic_plan";

/// How to reach the store.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: String,
    /// The schema that holds the outbox; default `outbox`. At most 63 bytes.
    pub schema: String,
    /// The url leads to a pooler in transaction mode (PgBouncer): no named prepared statements, no
    /// session settings. Default `false`. `true` works without one too, a little slower.
    pub pooled: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            schema: "outbox".to_owned(),
            pooled: false,
        }
    }
}

impl std::fmt::Debug for PostgresOptions {
    /// Without the url, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("pooled", &self.pooled)
            .finish_non_exhaustive()
    }
}

/// An outbox in a PostgreSQL database. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connect: PgConnectOptions,
    schema: String,
    pooled: bool,
    statements: Arc<Statements>,
    pool: PgPool,
    /// Beats, claims and releases: never behind a slow page or a long status query.
    heart: Mutex<Option<PgConnection>>,
}

impl PostgresStore {
    /// Connects once, to fail early when the url is wrong. The schema may be missing still:
    /// `migrate` makes it.
    ///
    /// # Errors
    /// [`StoreError::Outage`] when the server does not answer, [`StoreError::Refused`] when it
    /// knows no such database or user, or when an option is out of bounds.
    pub async fn connect(options: PostgresOptions) -> Result<Self, StoreError> {
        check_schema_name(&options.schema)?;
        let connect = connect_options(&options)?;
        let settings = (!options.pooled).then_some(SESSION_SETTINGS);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| Box::pin(set_up(connection, settings)))
            .connect_lazy_with(connect.clone());
        let mut statements = Statements::new(&options.schema);
        if options.pooled {
            statements = statements.unprepared();
        }
        let store = Self {
            inner: Arc::new(Inner {
                statements: Arc::new(statements),
                connect,
                schema: options.schema,
                pooled: options.pooled,
                pool,
                heart: Mutex::new(None),
            }),
        };
        let probe = store.open_connection().await?;
        probe.close().await.or_store("close the first connection")?;
        Ok(store)
    }

    /// Name of the schema that holds the outbox, unquoted.
    pub fn schema(&self) -> &str {
        &self.inner.schema
    }

    /// The inbox in this database and schema, over this store's connections: for tools that look into
    /// it. A consumer makes one over a pool of its own.
    pub fn inbox(&self) -> PostgresInbox {
        let inbox = PostgresInbox::with_schema(self.inner.pool.clone(), &self.inner.schema);
        match self.inner.pooled {
            true => inbox.pooled(),
            false => inbox,
        }
    }

    /// Connections for operators' calls and house-keeping.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// Every statement with the schema put in.
    pub(crate) fn statements(&self) -> &Arc<Statements> {
        &self.inner.statements
    }

    /// One statement, ready for its arguments.
    pub(crate) fn query(
        &self,
        statement: Statement,
    ) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
        self.inner.statements.query(statement)
    }

    /// A fresh connection of the caller's own.
    pub(crate) async fn open_connection(&self) -> Result<PgConnection, StoreError> {
        let connecting = self.inner.connect.connect();
        let mut connection = tokio::time::timeout(ACQUIRE_TIMEOUT, connecting)
            .await
            .map_err(|_| self.unreached(format!("no answer within {ACQUIRE_TIMEOUT:?}").into()))?
            .or_store("connect")
            .map_err(|error| match error {
                StoreError::Outage(why) => self.unreached(why),
                error => error,
            })?;
        let settings = (!self.inner.pooled).then_some(SESSION_SETTINGS);
        set_up(&mut connection, settings)
            .await
            .or_store("connect")?;
        Ok(connection)
    }

    /// A fresh connection for a session.
    pub(crate) async fn open_session_connection(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.open_connection().await?;
        let settings = (!self.inner.pooled).then_some(KEEP_PLANS);
        set_up(&mut connection, settings)
            .await
            .or_store("connect")?;
        Ok(connection)
    }

    /// Nothing may be kept on a server connection, no prepared statement either.
    pub(crate) fn pooled(&self) -> bool {
        self.inner.pooled
    }

    /// An outage that says where: whoever reads it may not have written the url.
    fn unreached(&self, why: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
        let connect = &self.inner.connect;
        let place = match connect.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", connect.get_host(), connect.get_port()),
        };
        StoreError::Outage(format!("{place}: {why}").into())
    }

    /// Before a call on a connection: behind a pooler a transaction pins the server connection, for a
    /// statement is prepared and run in two steps that must not meet different ones.
    pub(crate) async fn enter(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.when_pooled(connection, "begin isolation level read committed")
            .await
    }

    /// After a call: what it wrote is committed only now.
    pub(crate) async fn leave(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.when_pooled(connection, "commit").await
    }

    async fn when_pooled(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
    ) -> Result<(), StoreError> {
        if self.inner.pooled {
            sqlx::raw_sql(sql).execute(connection).await.or_store(sql)?;
        }
        Ok(())
    }
}

async fn set_up(connection: &mut PgConnection, settings: Option<&'static str>) -> sqlx::Result<()> {
    if let Some(settings) = settings {
        sqlx::raw_sql(settings).execute(connection).await?;
    }
    Ok(())
}

fn connect_options(options: &PostgresOptions) -> Result<PgConnectOptions, StoreError> {
    let connect: PgConnectOptions = options.url.parse().map_err(|error: sqlx::Error| {
        StoreError::Refused {
            // Not the url itself: it may hold a password.
            problem: format!("the store's url is not one of PostgreSQL: {error}"),
            cure: "write it as postgres://user:password@host:5432/database".to_owned(),
        }
    })?;
    let connect = connect
        .application_name("outbox")
        .disable_statement_logging();
    Ok(if options.pooled {
        // Named statements belong to a server connection that the next statement may not get.
        connect.statement_cache_capacity(0)
    } else {
        connect
    })
}

fn check_schema_name(schema: &str) -> Result<(), StoreError> {
    let bytes = schema.len();
    if (1..=limits::NAME_BYTES_MAX).contains(&bytes) && !schema.contains('\0') {
        return Ok(());
    }
    Err(StoreError::Refused {
        problem: format!(
            "schema is {bytes} bytes long, the limits are 1 and {}",
            limits::NAME_BYTES_MAX
        ),
        cure: "choose another name".to_owned(),
    })
}

#[async_trait]
impl Store for PostgresStore {
    async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.open_connection().await?;
        self.enter(&mut connection).await?;
        version::check(&self.desk(), &mut connection).await?;
        let row = self
            .query(CHECK)
            .fetch_one(&mut connection)
            .await
            .or_store("check the store")?;
        let facts = Facts {
            in_recovery: row.get(0),
            row_security: row.get(1),
            half_detached: row.get(2),
            increment: row.get(3),
            cache: row.get(4),
            cycles: row.get(5),
            server_version: row.get(6),
        };
        self.leave(&mut connection).await?;
        connection.close().await.or_store("check the store")?;
        facts.judge(self.schema())
    }

    async fn beat(&self, instance: &str) -> Result<Board, StoreError> {
        let mut heart = Heart::take(self).await?;
        let board = lease::beat(heart.connection(), self.statements(), instance).await?;
        heart.put_back().await?;
        Ok(board)
    }

    async fn claim(&self, seen: &LeaseRow, instance: &str) -> Result<Option<Lease>, StoreError> {
        let mut heart = Heart::take(self).await?;
        let lease = lease::claim(heart.connection(), self.statements(), seen, instance).await?;
        heart.put_back().await?;
        Ok(lease)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut heart = Heart::take(self).await?;
        lease::release(heart.connection(), self.statements(), lease).await?;
        heart.put_back().await
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let mut heart = Heart::take(self).await?;
        lease::leave(heart.connection(), self.statements(), instance).await?;
        heart.put_back().await
    }

    async fn open(&self, lease: &Lease) -> Result<Box<dyn Session>, StoreError> {
        Ok(Box::new(PostgresSession::open(self, lease).await?))
    }

    async fn maintain(&self, policy: &Maintenance) -> Result<Maintained, StoreError> {
        maintain::maintain(self, policy).await
    }
}

/// The heart's connection while it is in use: put back after success, dropped (and made anew) after
/// an error or when the call was dropped half-way.
struct Heart<'a> {
    store: &'a PostgresStore,
    slot: tokio::sync::MutexGuard<'a, Option<PgConnection>>,
    connection: PgConnection,
}

impl<'a> Heart<'a> {
    async fn take(store: &'a PostgresStore) -> Result<Self, StoreError> {
        let mut slot = store.inner.heart.lock().await;
        let mut idle = slot.take();
        if let Some(connection) = &mut idle
            && connection.ping().await.is_err()
        {
            // One that broke while it lay idle is no outage yet.
            idle = None;
        }
        let mut connection = match idle {
            Some(connection) => connection,
            None => store.open_connection().await?,
        };
        store.enter(&mut connection).await?;
        Ok(Self {
            store,
            slot,
            connection,
        })
    }

    fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn put_back(mut self) -> Result<(), StoreError> {
        self.store.leave(&mut self.connection).await?;
        *self.slot = Some(self.connection);
        Ok(())
    }
}

/// What the store says about itself.
struct Facts {
    in_recovery: bool,
    row_security: bool,
    half_detached: Option<String>,
    increment: i64,
    cache: i64,
    cycles: bool,
    server_version: i32,
}

impl Facts {
    fn judge(self, schema: &str) -> Result<(), StoreError> {
        let refuse = |problem: String, cure: String| Err(StoreError::Refused { problem, cure });
        if self.server_version < 150_000 {
            return refuse(
                format!(
                    "the server is version {}, too old",
                    self.server_version / 10_000
                ),
                "use PostgreSQL 15 or later".to_owned(),
            );
        }
        if self.in_recovery {
            return refuse(
                "the server is in recovery (a standby)".to_owned(),
                "connect to the primary, or promote this server".to_owned(),
            );
        }
        if self.row_security {
            return refuse(
                "row-level security hides rows from this login, and hidden means lost".to_owned(),
                "alter role … bypassrls, or take the policies off the outbox's tables".to_owned(),
            );
        }
        if let Some(partition) = self.half_detached {
            return refuse(
                format!("partition {partition} is half detached: its rows are invisible"),
                format!("alter table {schema}.message detach partition {partition} finalize"),
            );
        }
        if self.increment != 1 || self.cache != 1 || self.cycles {
            return refuse(
                format!(
                    "sequence {schema}.message_seq has increment {}, cache {}, cycle {}",
                    self.increment, self.cache, self.cycles
                ),
                format!("alter sequence {schema}.message_seq increment by 1 cache 1 no cycle"),
            );
        }
        Ok(())
    }
}
