//! A database of a test's own.

use anyhow::Result;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::Mutex;

use super::Server;

/// Most connections of a test's pool: enough for 20 writers and a reader.
const POOL_CONNECTIONS_MAX: u32 = 32;

/// A fresh, empty database on the shared server (or on a private one), dropped when this is.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    url: String,
    admin_url: String,
    roles_url: String,
    pool: PgPool,
    /// Login roles made for this database; they belong to the cluster.
    logins: Mutex<Vec<String>>,
}

impl TestDb {
    /// A database on the shared server.
    ///
    /// # Panics
    /// With one sentence that says what to install, when there is no server to be had.
    pub async fn new() -> Self {
        let server = match Server::shared().await {
            Ok(server) => server,
            Err(error) => panic!("no PostgreSQL for this test: {error:#}"),
        };
        match Self::on(server).await {
            Ok(database) => database,
            Err(error) => panic!("no database for this test: {error:#}"),
        }
    }

    /// A database on `server`. Drop it before the server.
    pub async fn on(server: &Server) -> Result<Self> {
        let name = server.create_database().await?;
        let url = server.url(&name);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .connect(&url)
            .await?;
        let admin_url = server.url("postgres");
        let roles_url = server.url_as("{role}", &name);
        Ok(Self {
            name,
            url,
            admin_url,
            roles_url,
            pool,
            logins: Mutex::new(Vec::new()),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, for a superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its URL for `role`, which must be able to log in; a server of ours asks for no password.
    pub fn url_as(&self, role: &str) -> String {
        self.roles_url.replace("{role}", role)
    }

    /// Creates a login role, a member of `groups` (comma-separated, or empty), and answers its URL
    /// of this database. It is dropped with the database.
    pub async fn login(&self, groups: &str) -> Result<String> {
        let mut logins = self.logins.lock().await;
        let name = format!("{}_login_{}", self.name, logins.len());
        let member = if groups.is_empty() {
            String::new()
        } else {
            format!("in role {groups}")
        };
        sqlx::query(AssertSqlSafe(format!("create role {name} login {member}")))
            .execute(&self.pool)
            .await?;
        let url = self.url_as(&name);
        logins.push(name);
        Ok(url)
    }

    /// A superuser's pool, made with the database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for TestDb {
    /// Drops the database on a thread of its own, for a test's runtime may be ending. A failure
    /// leaves an empty-handed database behind on a server that goes anyway.
    fn drop(&mut self) {
        let (url, name) = (self.admin_url.clone(), self.name.clone());
        let logins = std::mem::take(self.logins.get_mut());
        let dropped = std::thread::spawn(move || drop_database(&url, &name, &logins));
        if let Ok(Err(error)) = dropped.join() {
            tracing::warn!(%error, database = self.name, "a test's database stays");
        }
    }
}

fn drop_database(url: &str, name: &str, logins: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        // A statement for each, for DROP DATABASE refuses to share a transaction.
        sqlx::query(AssertSqlSafe(format!(
            "drop database if exists {name} with (force)"
        )))
        .execute(&mut connection)
        .await?;
        for login in logins {
            sqlx::query(AssertSqlSafe(format!("drop role if exists {login}")))
                .execute(&mut connection)
                .await?;
        }
        Ok(connection.close().await?)
    })
}
