//! One server, wherever it runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::OnceCell;

use super::Binaries;
use super::docker::{Container, Life, OWNER};
use super::process::{Process, Stop};

/// URL of a superuser on a server that is there already. `with_postgres` sets it.
pub const URL_VARIABLE: &str = "OUTBOX_TEST_POSTGRES_URL";

/// Longest wait for a server to accept connections: crash recovery on a slow disk included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often a server that starts is asked.
const READY_POLL: Duration = Duration::from_millis(20);

/// Settings of every server of ours. Everything that a crash test relies on stays at its durable
/// default.
const SETTINGS: [&str; 7] = [
    "fsync=on",
    "unix_socket_directories=",
    "max_connections=300",
    "max_prepared_transactions=20",
    // A standby catches up from here after it was copied.
    "wal_keep_size=256MB",
    "max_locks_per_transaction=128",
    "log_statement=none",
];

static SHARED: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// What a private server is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// `name=value` of `postgresql.conf`, on top of ours. Default none.
    pub settings: Vec<String>,
}

/// A PostgreSQL server that a test may fill, and when it is a private one also kill.
///
/// It stops, and its files go, when this is dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct Server {
    /// Superuser URL of the database `postgres`.
    url: String,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    /// Somebody else's: it is used, never stopped.
    External,
    Process(Arc<Mutex<Process>>),
    Container(Box<Container>),
    /// One that ends when its owner's session does.
    OwnedContainer {
        container: Box<Container>,
        _owner: Mutex<PgConnection>,
    },
}

impl Server {
    /// The server that all tests of this process share, started by the first one that asks.
    ///
    /// # Errors
    /// One sentence that says what to install, when there is no way to have a server.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(Self::provision).await
    }

    /// The server [`Server::shared`] would give, as the caller's own.
    pub async fn provision() -> Result<Self> {
        if let Ok(url) = std::env::var(URL_VARIABLE) {
            PgConnection::connect(&url)
                .await
                .with_context(|| format!("failed to connect to {URL_VARIABLE}"))?;
            return Ok(Self {
                url,
                backend: Backend::External,
            });
        }
        let options = ServerOptions::default();
        if let Some(binaries) = Binaries::from_variable()? {
            return Self::start_process(binaries, &options).await;
        }
        if Container::daemon_answers().await {
            return Self::start_owned_container(&options).await;
        }
        match Binaries::on_this_machine() {
            Some(binaries) => Self::start_process(binaries, &options).await,
            None => Self::start_process(install().await?, &options).await,
        }
    }

    /// A server of the caller's own.
    pub async fn start(options: ServerOptions) -> Result<Self> {
        let binaries = match Binaries::from_variable()? {
            Some(binaries) => Some(binaries),
            None => Binaries::on_this_machine(),
        };
        match binaries {
            Some(binaries) => Self::start_from(&binaries, options).await,
            None if Container::daemon_answers().await => Self::start_container(&options).await,
            None => Self::start_process(install().await?, &options).await,
        }
    }

    /// A server of the caller's own, from these binaries.
    pub async fn start_from(binaries: &Binaries, options: ServerOptions) -> Result<Self> {
        Self::start_process(binaries.clone(), &options).await
    }

    async fn start_process(binaries: Binaries, options: &ServerOptions) -> Result<Self> {
        let mut settings = settings(options);
        settings.push("listen_addresses=127.0.0.1".to_owned());
        let process = blocking(move || {
            let mut process = Process::initialise(binaries, settings)?;
            process.spawn()?;
            Ok(process)
        });
        Self::from_process(process.await?).await
    }

    async fn from_process(process: Process) -> Result<Self> {
        let process = Arc::new(Mutex::new(process));
        let port = ready(&process, true).await?;
        Ok(Self {
            url: local_url(port),
            backend: Backend::Process(process),
        })
    }

    async fn start_container(options: &ServerOptions) -> Result<Self> {
        let container = Container::start(&settings(options), Life::Restartable).await?;
        let url = local_url(container.port());
        wait_for(&url).await?;
        Ok(Self {
            url,
            backend: Backend::Container(Box::new(container)),
        })
    }

    /// The session outlives the runtime that opened it, for nobody uses it: its socket is open
    /// until this is dropped or the process ends.
    async fn start_owned_container(options: &ServerOptions) -> Result<Self> {
        let container = Container::start(&settings(options), Life::Owned).await?;
        let url = local_url(container.port());
        wait_for(&url).await?;
        let owner = PgConnection::connect(&format!("{url}&application_name={OWNER}")).await?;
        Ok(Self {
            url,
            backend: Backend::OwnedContainer {
                container: Box::new(container),
                _owner: Mutex::new(owner),
            },
        })
    }

    /// Superuser URL of `database`.
    pub fn url(&self, database: &str) -> String {
        self.url_as("", database)
    }

    /// URL of `database` for `role`, which needs no password on a server of ours. An empty role
    /// is the superuser.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        with_role_and_database(&self.url, role, database)
    }

    /// Creates an empty database with a name nobody has, and answers the name.
    pub async fn create_database(&self) -> Result<String> {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "test_{}_{number}_{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let mut connection = self.connect("postgres").await?;
        sqlx::query(AssertSqlSafe(format!(
            "create database {name} template template0"
        )))
        .execute(&mut connection)
        .await?;
        connection.close().await?;
        Ok(name)
    }

    /// A superuser's connection to `database`.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url(database)).await?)
    }

    /// `kill -9`: the server is gone at once, its sessions with it, without a checkpoint.
    pub async fn kill9(&self) -> Result<()> {
        self.halt(Stop::Kill).await
    }

    /// Stops the server as an operator would, with a checkpoint.
    pub async fn stop(&self) -> Result<()> {
        self.halt(Stop::Fast).await
    }

    async fn halt(&self, how: Stop) -> Result<()> {
        match &self.backend {
            Backend::External => bail!("{URL_VARIABLE} names a server that is not ours to stop"),
            Backend::OwnedContainer { .. } => bail!("everybody's server is not to be stopped"),
            Backend::Container(container) => container.halt(how).await,
            Backend::Process(process) => {
                let process = process.clone();
                blocking(move || lock(&process).stop(how)).await
            }
        }
    }

    /// Starts the server again (killing it first when it runs) on the same port and files, and
    /// waits until it accepts connections.
    pub async fn restart(&self) -> Result<()> {
        self.halt(Stop::Kill).await?;
        match &self.backend {
            Backend::External | Backend::OwnedContainer { .. } => Ok(()),
            Backend::Container(container) => {
                container.start_again().await?;
                wait_for(&self.url).await
            }
            Backend::Process(process) => {
                lock(process).spawn()?;
                ready(process, false).await.map(drop)
            }
        }
    }

    /// A standby of this server, streaming from it.
    pub async fn standby(&self) -> Result<Self> {
        let standby = match &self.backend {
            Backend::External => bail!("{URL_VARIABLE} names a server that is not ours to copy"),
            Backend::Container(container) | Backend::OwnedContainer { container, .. } => {
                let container = container.standby().await?;
                let url = local_url(container.port());
                wait_for(&url).await?;
                return Ok(Self {
                    url,
                    backend: Backend::Container(Box::new(container)),
                });
            }
            Backend::Process(process) => self.copy_as_standby(process.clone()).await?,
        };
        Self::from_process(standby).await
    }

    async fn copy_as_standby(&self, process: Arc<Mutex<Process>>) -> Result<Process> {
        let mut connection = self.connect("postgres").await?;
        sqlx::query("select pg_backup_start('standby', true)")
            .execute(&mut connection)
            .await?;
        let mut standby = blocking(move || lock(&process).standby()).await?;
        let label: (String,) = sqlx::query_as("select labelfile from pg_backup_stop(false)")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        standby.write("backup_label", &label.0)?;
        standby.write("standby.signal", "")?;
        standby.spawn()?;
        Ok(standby)
    }

    /// Makes a standby a primary, on a new timeline.
    pub async fn promote(&self) -> Result<()> {
        let mut connection = self.connect("postgres").await?;
        let promoted: (bool,) = sqlx::query_as("select pg_promote(true, 60)")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        if !promoted.0 {
            bail!("the standby was not promoted within 60 s");
        }
        Ok(())
    }
}

fn settings(options: &ServerOptions) -> Vec<String> {
    let ours = SETTINGS.iter().map(|setting| (*setting).to_owned());
    ours.chain(options.settings.iter().cloned()).collect()
}

fn local_url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
}

/// `url` with another role (unless it is empty) and database. Plain text work, so that the result
/// keeps to what every language's client understands.
fn with_role_and_database(url: &str, role: &str, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = if role.is_empty() { user } else { role };
    let at = if user.is_empty() { "" } else { "@" };
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{user}{at}{host}/{database}{mark}{query}")
}

/// Installing packages takes a minute; it must not hold up a test's runtime.
async fn install() -> Result<Binaries> {
    blocking(Binaries::install).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn lock(process: &Mutex<Process>) -> std::sync::MutexGuard<'_, Process> {
    process
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits until a child accepts connections, and starts it again when it ended by itself: after
/// `kill -9` the old sessions hold the shared memory for a moment, and with `new_port` the port
/// may have been taken in between. Answers the port.
async fn ready(process: &Mutex<Process>, new_port: bool) -> Result<u16> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let port = lock(process).port;
        if PgConnection::connect(&local_url(port)).await.is_ok() && !lock(process).has_exited()? {
            return Ok(port);
        }
        if Instant::now() > deadline {
            bail!(
                "the test server did not start: {}",
                lock(process).log_tail()
            );
        }
        tokio::time::sleep(READY_POLL).await;
        start_again_if_exited(&mut lock(process), new_port)?;
    }
}

fn start_again_if_exited(process: &mut Process, new_port: bool) -> Result<()> {
    if !process.has_exited()? {
        return Ok(());
    }
    let log = process.log_tail();
    let port_taken = log.contains("Address already in use") || log.contains("could not bind");
    let memory_held = log.contains("pre-existing shared memory block")
        || log.contains("lock file \"postmaster.pid\" already exists");
    if !(memory_held || port_taken) {
        bail!("the test server ended by itself: {log}");
    }
    if port_taken && new_port {
        process.change_port()?;
    }
    process.spawn()
}

async fn wait_for(url: &str) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return Ok(connection.close().await?),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("the test server did not start");
            }
            Err(_) => tokio::time::sleep(READY_POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_everything_but_role_and_database() {
        let url = "postgres://me:pass@host:5433/postgres?sslmode=disable";
        assert_eq!(
            with_role_and_database(url, "", "other"),
            "postgres://me:pass@host:5433/other?sslmode=disable"
        );
        assert_eq!(
            with_role_and_database(url, "reader", "other"),
            "postgres://reader@host:5433/other?sslmode=disable"
        );
        assert_eq!(
            with_role_and_database("postgres://host", "", "other"),
            "postgres://host/other"
        );
    }
}
