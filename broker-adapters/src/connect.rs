//! From a URL to a broker.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use outbox_broker::client::{Client, ClientLogin, ClientOptions, ClientTls, PublishRefusal};
use outbox_core::{Broker, Source};
use outbox_log_broker::{Log, LogOptions, OpenError};
use percent_encoding::percent_decode_str;
use tokio::sync::Mutex;

use crate::{LogBroker, LogBrokerOptions, LogSource, RemoteLogSource};

/// The logs that this process has open, by folder: a folder can be opened once only, and several
/// destinations and consumers may use it.
static OPEN_LOGS: Mutex<Option<HashMap<PathBuf, Weak<Log>>>> = Mutex::const_new(None);

/// Connects to the broker at `url`.
///
/// | URL | broker |
/// |---|---|
/// | `log:./path`, `log:/path` | the bundled log in that folder, opened in this process |
/// | `log://host:port` | the bundled log that `outbox broker` serves there |
/// | `log://user:password@host:port` | … which wants to know who it is; `%40` and the like stand for characters that mean something here |
/// | `…?tls=true`, `…?ca=./ca.pem` | … over TLS, with the authorities of the system or of a file |
/// | `…?partitions=4` | … with so many partitions for each topic it creates |
///
/// An address is not tried before something is published: a broker that is away is an outage.
///
/// # Errors
/// When the URL names no broker we know, or the folder cannot be opened.
pub async fn connect(url: &str) -> Result<Arc<dyn Broker>, ConnectError> {
    let LogUrl { place, options } = LogUrl::parse(url)?;
    Ok(Arc::new(match place {
        Place::Folder(path) => LogBroker::with_options(open(&path).await?, options),
        Place::Broker(client) => LogBroker::remote(client, options),
    }))
}

/// Asks whether the bundled log broker serves the address at `url`, within `patience`; nothing is
/// asked of a folder. Another broker of the same protocol would be found out when something is
/// published, where it counts as an outage.
///
/// # Errors
/// [`ConnectError::NotOurs`]; [`ConnectError::Unknown`] when it cannot be told now; and as
/// [`connect`].
pub async fn check_served(url: &str, patience: Duration) -> Result<(), ConnectError> {
    let Place::Broker(mut client) = LogUrl::parse(url)?.place else {
        return Ok(());
    };
    client.timeout = patience;
    let refusal = match Client::new(client).check_publishes().await {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    Err(match refusal {
        PublishRefusal::NotOurs { .. } => ConnectError::NotOurs(refusal.to_string()),
        refusal => ConnectError::Unknown(refusal.to_string()),
    })
}

/// The log at `url` to consume from, as a member of `group`: the consumer must have the same name.
///
/// Of a folder one process reads all partitions; from an address all members of a group share them.
///
/// # Errors
/// As [`connect`].
pub async fn source(url: &str, group: &str) -> Result<Arc<dyn Source>, ConnectError> {
    Ok(match LogUrl::parse(url)?.place {
        Place::Folder(path) => Arc::new(LogSource::new(open(&path).await?)),
        Place::Broker(client) => Arc::new(RemoteLogSource::new(client, group)),
    })
}

/// How a client reaches the broker that serves the log at `url`; `None` of a folder. For tools that
/// look after it.
///
/// # Errors
/// When the URL names no log.
pub fn served(url: &str) -> Result<Option<ClientOptions>, ConnectError> {
    Ok(match LogUrl::parse(url)?.place {
        Place::Folder(_) => None,
        Place::Broker(client) => Some(client),
    })
}

/// The log in the folder that `url` names, opened if this process does not have it open: for tools
/// that look at it.
///
/// # Errors
/// As [`connect`], and when the URL names no folder.
pub async fn open_log(url: &str) -> Result<Arc<Log>, ConnectError> {
    match LogUrl::parse(url)?.place {
        Place::Folder(path) => open(&path).await,
        Place::Broker(_) => Err(ConnectError::Url {
            url: without_secrets(url),
            problem: "it names no folder: write log:./path".to_owned(),
        }),
    }
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
#[derive(Debug)]
struct LogUrl {
    place: Place,
    options: LogBrokerOptions,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Broker(ClientOptions),
}

impl Place {
    /// What stands behind `log:`. Two slashes name a host; the three of an absolute path are fine.
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix("//") {
            Some(path) if path.starts_with('/') => Ok(Self::Folder(path.into())),
            Some(host) => Self::broker(host.strip_suffix('/').unwrap_or(host)),
            None if text.is_empty() => Err("it names no folder: write log:./path"),
            None => Ok(Self::Folder(text.into())),
        }
    }

    fn broker(text: &str) -> Result<Self, &'static str> {
        let (login, host) = match text.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, text),
        };
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        if name.is_empty() || name.contains('/') || !matches!(port.parse::<u16>(), Ok(1..)) {
            return Err("write log://host:port for a broker, log:./path or log:/path for a folder");
        }
        let mut client = ClientOptions::new(host);
        client.login = login.map(login_of).transpose()?;
        Ok(Self::Broker(client))
    }
}

/// User and password, in which `%40` and the like stand for what would mean something else.
fn login_of(text: &str) -> Result<ClientLogin, &'static str> {
    let decode = |text| percent_decode_str(text).decode_utf8();
    let (user, password) = text.split_once(':').unwrap_or_default();
    match (decode(user), decode(password)) {
        (Ok(user), Ok(password)) if !user.is_empty() && !password.is_empty() => Ok(ClientLogin {
            user: user.into_owned(),
            password: password.into_owned(),
        }),
        _ => Err("write log://user:password@host:port, or no user at all"),
    }
}

impl LogUrl {
    fn parse(url: &str) -> Result<Self, ConnectError> {
        let bad = |problem: String| ConnectError::Url {
            url: without_secrets(url),
            problem,
        };
        let Some(rest) = url.strip_prefix("log:") else {
            return Err(bad(
                "no broker of this kind is known: use log:./path for the bundled log, or \
                 log://host:port for one that is served"
                    .to_owned(),
            ));
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut place = Place::parse(place).map_err(|problem| bad(problem.to_owned()))?;
        let mut options = LogBrokerOptions::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, &mut place) {
                ("partitions", _) => options.partitions = partitions(value).map_err(bad)?,
                ("tls", Place::Broker(client)) => match value {
                    "true" => client.tls = client.tls.take().or_else(|| Some(ClientTls::default())),
                    "false" => client.tls = None,
                    _ => return Err(bad(format!("tls is {value:?}, it must be true or false"))),
                },
                ("ca", Place::Broker(client)) if !value.is_empty() => {
                    let ca = Some(value.into());
                    client.tls = Some(ClientTls { ca });
                }
                _ => {
                    let known = match place {
                        Place::Folder(_) => "partitions",
                        Place::Broker(_) => "partitions, tls, ca",
                    };
                    let text = format!("option {name:?} is unknown or empty; there is: {known}");
                    return Err(bad(text));
                }
            }
        }
        Ok(Self { place, options })
    }
}

fn partitions(value: &str) -> Result<u32, String> {
    let max = outbox_log_broker::limits::PARTITIONS_MAX;
    let parsed = value.parse().ok().filter(|n| (1..=max).contains(n));
    parsed.ok_or_else(|| format!("partitions is {value:?}, it must be 1 to {max}"))
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
    /// Some other broker answers there.
    #[error("{0}")]
    NotOurs(String),
    /// Nobody answered, so that it is not known which broker it is.
    #[error("{0}")]
    Unknown(String),
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
        assert_eq!(folder(&url), Some(Path::new("./outbox-data/log")));
        assert_eq!(url.options.partitions, 4);
        let absolute = LogUrl::parse("log:///var/log").expect("valid");
        assert_eq!(folder(&absolute), Some(Path::new("/var/log")));
    }

    fn folder(url: &LogUrl) -> Option<&Path> {
        match &url.place {
            Place::Folder(path) => Some(path),
            Place::Broker(_) => None,
        }
    }

    fn client(url: &str) -> ClientOptions {
        match LogUrl::parse(url).expect(url).place {
            Place::Broker(client) => client,
            Place::Folder(path) => panic!("{url} is the folder {}", path.display()),
        }
    }

    #[test]
    fn two_slashes_name_a_broker() {
        for (url, address) in [
            ("log://127.0.0.1:9092", "127.0.0.1:9092"),
            (
                "log://broker.example:9092/?partitions=4",
                "broker.example:9092",
            ),
            ("log://[::1]:9092", "[::1]:9092"),
        ] {
            assert_eq!(client(url).address, address);
        }
    }

    #[test]
    fn a_broker_that_wants_to_know_who_it_is_is_told_and_not_in_the_clear() {
        let client = client("log://shop:s%40cret@broker:9093?ca=./ca.pem");
        let login = client.login.expect("a login");
        assert_eq!((&*login.user, &*login.password), ("shop", "s@cret"));
        assert_eq!(client.tls.expect("TLS").ca, Some("./ca.pem".into()));
        assert_eq!(client.address, "broker:9093");
        assert!(!format!("{login:?}").contains("s@cret"));
    }

    #[test]
    fn a_bad_url_says_what_is_wrong_and_hides_secrets() {
        for (url, part) in [
            ("log:", "names no folder"),
            ("log://host/path", "write log://host:port"),
            ("log://host:0", "write log://host:port"),
            (
                "log://:secret@host:9092",
                "write log://user:password@host:port",
            ),
            (
                "log://user:secret@host:9092?tls=maybe",
                "it must be true or false",
            ),
            ("log:x?tls=true", "\"tls\" is unknown"),
            ("log:x?partition=1", "\"partition\" is unknown or empty"),
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
