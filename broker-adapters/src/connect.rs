//! From a URL to a broker.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use outbox_core::Broker;
use outbox_log_broker::{Log, LogOptions, OpenError};
use tokio::sync::Mutex;

use crate::{LogBroker, LogBrokerOptions};

/// The logs that this process has open, by folder: a folder can be opened once only, and several
/// destinations and consumers may use it.
static OPEN_LOGS: Mutex<Option<HashMap<PathBuf, Weak<Log>>>> = Mutex::const_new(None);

/// Connects to the broker at `url`.
///
/// | URL | broker |
/// |---|---|
/// | `log:./path`, `log:/path` | the bundled log in that folder, opened in this process |
/// | `log:./path?partitions=4` | … with so many partitions for each topic it creates |
///
/// # Errors
/// When the URL names no broker we know, or the broker cannot be opened.
pub async fn connect(url: &str) -> Result<Arc<dyn Broker>, ConnectError> {
    let target = LogUrl::parse(url)?;
    let log = open(&target.path).await?;
    Ok(Arc::new(LogBroker::with_options(log, target.options)))
}

/// The log that `url` names, opened if this process does not have it open: for consumers, and for
/// tools that look at it.
///
/// # Errors
/// As [`connect`].
pub async fn open_log(url: &str) -> Result<Arc<Log>, ConnectError> {
    open(&LogUrl::parse(url)?.path).await
}

async fn open(path: &Path) -> Result<Arc<Log>, ConnectError> {
    let key = absolute(path)?;
    let mut open_logs = OPEN_LOGS.lock().await;
    let open_logs = open_logs.get_or_insert_default();
    if let Some(log) = open_logs.get(&key).and_then(Weak::upgrade) {
        return Ok(log);
    }
    let options = LogOptions::new(&key);
    let opened = tokio::task::spawn_blocking(move || Log::open(options)).await;
    let log = opened.map_err(|e| ConnectError::Interrupted(e.to_string()))??;
    open_logs.retain(|_, log| log.strong_count() > 0);
    open_logs.insert(key, Arc::downgrade(&log));
    Ok(log)
}

/// The same folder under every name: through links as far as it exists.
fn absolute(path: &Path) -> Result<PathBuf, ConnectError> {
    let bad = |source| ConnectError::Path {
        path: path.to_owned(),
        source,
    };
    let path = std::path::absolute(path).map_err(bad)?;
    let mut existing = path.as_path();
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return Ok(rest.iter().rev().fold(real, |at, name| at.join(name)));
        }
        match (existing.file_name(), existing.parent()) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                existing = parent;
            }
            _ => return Ok(path),
        }
    }
}

/// A parsed `log:` URL.
#[derive(Debug, PartialEq)]
struct LogUrl {
    path: PathBuf,
    options: LogBrokerOptions,
}

impl LogUrl {
    fn parse(url: &str) -> Result<Self, ConnectError> {
        let bad = |problem: String| ConnectError::Url {
            url: without_secrets(url),
            problem,
        };
        let Some(rest) = url.strip_prefix("log:") else {
            return Err(bad(
                "no broker of this kind is known: use log:./path for the bundled log".to_owned(),
            ));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // `log://…` would name a host; the three slashes of an absolute path are fine.
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => {
                return Err(bad(
                    "write log:./path or log:/path, without a host".to_owned()
                ));
            }
            None => path,
        };
        if path.is_empty() {
            return Err(bad("it names no folder: write log:./path".to_owned()));
        }
        let mut options = LogBrokerOptions::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name != "partitions" {
                return Err(bad(format!(
                    "option {name:?} is unknown; there is: partitions"
                )));
            }
            options.partitions = value
                .parse()
                .ok()
                .filter(|n| (1..=outbox_log_broker::limits::PARTITIONS_MAX).contains(n))
                .ok_or_else(|| {
                    let max = outbox_log_broker::limits::PARTITIONS_MAX;
                    bad(format!("partitions is {value:?}, it must be 1 to {max}"))
                })?;
        }
        Ok(Self {
            path: path.into(),
            options,
        })
    }
}

/// The URL, but for what stands between `//` and `@`.
fn without_secrets(url: &str) -> String {
    match (url.split_once("//"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}//…@{host}"),
        _ => url.to_owned(),
    }
}

/// Why a broker could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("connect to the broker {url:?}: {problem}")]
    Url {
        /// The URL, without secrets.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The path cannot be resolved.
    #[error("connect to the log in {path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime went down meanwhile.
    #[error("connect to the broker: {0}")]
    Interrupted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_url_is_a_path_and_options() {
        let url = LogUrl::parse("log:./outbox-data/log?partitions=4").expect("valid");
        assert_eq!(url.path, Path::new("./outbox-data/log"));
        assert_eq!(url.options.partitions, 4);
        assert_eq!(
            LogUrl::parse("log:///var/log").expect("valid").path,
            Path::new("/var/log")
        );
    }

    #[test]
    fn a_bad_url_says_what_is_wrong_and_hides_secrets() {
        for (url, part) in [
            ("log:", "names no folder"),
            ("log://host/path", "without a host"),
            ("log:x?partition=1", "\"partition\" is unknown"),
            ("log:x?partitions=0", "must be 1 to"),
            ("kafka://user:secret@host:9092", "no broker of this kind"),
        ] {
            let error = LogUrl::parse(url).expect_err(url).to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn two_urls_of_one_folder_share_one_log_and_a_closed_one_opens_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let plain = format!("log:{}/a/log", dir.path().display());
        let winding = format!("log:{}/a/../a/log", dir.path().display());
        let first = open_log(&plain).await.expect("opens");
        let second = open_log(&winding).await.expect("opens");
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        open_log(&plain).await.expect("opens again");
    }
}
