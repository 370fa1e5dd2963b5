//! Opens the configured store, whichever it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outbox_core::{Admin, Store};
use outbox_postgres::{PostgresOptions, PostgresStore};
use outbox_sqlite::SqliteStore;
use sqlx::postgres::PgConnectOptions;

use crate::config::StoreSettings;
use crate::exit::{Exit, Problem};

/// A store's address, told apart by its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `postgres://…` or `postgresql://…`
    Postgres(String),
    /// `sqlite:path` or `sqlite://path`
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// Names the scheme that was found and those that are known.
    pub fn parse(url: &str) -> Result<Self, String> {
        let known = "known are postgres://user@host/database and sqlite:path";
        match url.split_once(':') {
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                match url.parse::<PgConnectOptions>() {
                    Ok(_) => Ok(Self::Postgres(url.to_owned())),
                    Err(error) => Err(format!("store.url: it is no address: {error}: {known}")),
                }
            }
            Some(("sqlite", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" | ":memory:" => Err("store.url: sqlite: needs the path of a file, such as \
                         sqlite:./outbox-data/outbox.db"
                    .to_owned()),
                path => Ok(Self::Sqlite(PathBuf::from(path))),
            },
            Some((scheme, _)) => Err(format!("store.url: no store is called {scheme:?}: {known}")),
            None => Err(format!("store.url: {url:?} has no scheme: {known}")),
        }
    }
}

/// An open store, as both the relay and the operator see it.
#[derive(Clone)]
pub struct OpenStore {
    /// For the relay.
    pub store: Arc<dyn Store>,
    /// For everybody else.
    pub admin: Arc<dyn Admin>,
}

/// What to do about an embedded store that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// Make it: nobody else would, for it belongs to this machine's processes alone.
    Create,
    /// Say so: an operator's question must not leave an empty store behind.
    Fail,
}

/// Opens the store. An embedded one is also brought to this program's schema when it may be
/// created; a Postgres one is migrated by `outbox migrate` only.
///
/// # Errors
/// [`Exit::Unreachable`] and what the store said, without the password.
pub async fn open(settings: &StoreSettings, missing: IfMissing) -> Result<OpenStore, Problem> {
    match StoreUrl::parse(settings.url.expose()).map_err(|e| Problem::new(Exit::Config, e))? {
        StoreUrl::Postgres(url) => {
            let (schema, pooled) = (settings.schema.clone(), settings.pooled);
            let store_options = PostgresOptions {
                url,
                schema,
                pooled,
            };
            let store = PostgresStore::connect(store_options).await?;
            Ok(OpenStore {
                store: Arc::new(store.clone()),
                admin: Arc::new(store),
            })
        }
        StoreUrl::Sqlite(path) => {
            prepare_folder(&path, missing)?;
            let store = SqliteStore::open(&path).await?;
            match missing {
                IfMissing::Create => drop(store.migrate().await?),
                IfMissing::Fail => store.check().await?,
            }
            Ok(OpenStore {
                store: Arc::new(store.clone()),
                admin: Arc::new(store),
            })
        }
    }
}

fn prepare_folder(path: &Path, missing: IfMissing) -> Result<(), Problem> {
    if path.exists() {
        return Ok(());
    }
    if missing == IfMissing::Fail {
        let text = format!(
            "open the store: {} does not exist. Cure: start `outbox relay` here, run `outbox \
             migrate`, or name the store with --store",
            path.display()
        );
        return Err(Problem::new(Exit::Schema, text));
    }
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(|e| {
            let text = format!("create the store's folder {}: {e}", folder.display());
            Problem::new(Exit::Unreachable, text)
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_by_its_scheme() {
        assert_eq!(
            StoreUrl::parse("sqlite:./a.db"),
            Ok(StoreUrl::Sqlite("./a.db".into()))
        );
        assert_eq!(
            StoreUrl::parse("sqlite:///a.db"),
            Ok(StoreUrl::Sqlite("/a.db".into()))
        );
        let url = "postgresql://a@b/c";
        assert_eq!(StoreUrl::parse(url), Ok(StoreUrl::Postgres(url.to_owned())));
    }

    #[test]
    fn an_address_that_cannot_be_read_is_refused_with_the_reason() {
        for wrong in [
            "postgres://foo@",
            "postgres://foo@:5432/x",
            "postgres://h:port/x",
        ] {
            let error = StoreUrl::parse(wrong).expect_err(wrong);
            assert!(error.contains("is no address: "), "{error}");
        }
    }

    #[test]
    fn an_unknown_store_is_refused_with_the_known_ones() {
        for wrong in [
            "mysql://a@b/c",
            "outbox.db",
            "sqlite:",
            "sqlite::memory:",
            "postgres:x",
        ] {
            let error = StoreUrl::parse(wrong).expect_err(wrong);
            assert!(error.contains("sqlite:"), "{error}");
        }
    }
}
