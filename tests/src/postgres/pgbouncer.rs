//! PgBouncer in transaction mode, in front of a server.

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::process::{free_port, server_user};

/// Where distributions put it, besides `PATH`.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/opt/homebrew/bin"];

/// Longest wait for it to accept connections.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running PgBouncer: every transaction may get another of its few server connections.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// Where the program is; `None` when this machine has none.
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(FOLDERS.iter().map(PathBuf::from))
            .map(|folder| folder.join("pgbouncer"))
            .find(|program| program.is_file())
    }

    /// Starts one that passes `database` of the server at `url` on, through `connections` server
    /// connections. The URL's user is used for everybody.
    pub async fn start(program: &Path, url: &str, connections: u32) -> Result<Self> {
        let server = Endpoint::of(url)?;
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let ini = folder.path().join("pgbouncer.ini");
        std::fs::write(&ini, server.ini(port, connections))?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        command
            .arg(&ini)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(user) = server_user()? {
            for path in [folder.path(), &ini] {
                chown(path, Some(user.uid), Some(user.gid))?;
            }
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn().context("failed to start pgbouncer")?;
        let pooler = Self {
            child,
            port,
            _folder: folder,
        };
        pooler.wait_until_ready(&server).await?;
        Ok(pooler)
    }

    /// URL of `database` through the pooler.
    pub fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    async fn wait_until_ready(&self, server: &Endpoint) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match PgConnection::connect(&self.url(&server.database)).await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self._folder.path().join("log"));
                    bail!(
                        "pgbouncer did not start: {error}: {}",
                        log.unwrap_or_default()
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server behind.
struct Endpoint {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
}

impl Endpoint {
    fn of(url: &str) -> Result<Self> {
        let rest = url.split_once("://").context("a URL has ://")?.1;
        let rest = rest.split('?').next().unwrap_or_default();
        let (authority, database) = rest.split_once('/').context("a URL names a database")?;
        let (login, address) = authority
            .rsplit_once('@')
            .unwrap_or(("postgres", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().context("a URL's port is a number")?,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
        })
    }

    /// Clients may send start-up parameters that a pooler cannot keep: it is told to ignore them,
    /// as every guide to PgBouncer says.
    fn ini(&self, port: u16, connections: u32) -> String {
        let Self {
            host,
            port: server_port,
            user,
            password,
            database,
        } = self;
        let password = match password.as_str() {
            "" => String::new(),
            password => format!(" password='{password}'"),
        };
        format!(
            "[databases]\n\
             {database} = host={host} port={server_port} dbname={database} user={user}{password}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             server_round_robin = 1\n\
             default_pool_size = {connections}\n\
             max_client_conn = 200\n\
             ignore_startup_parameters = extra_float_digits,options\n"
        )
    }
}
