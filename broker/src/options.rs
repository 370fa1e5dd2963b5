//! How a broker is started.

use std::net::SocketAddr;
use std::time::Duration;

use outbox_log_broker::{LogOptions, TopicOptions};

use crate::error::StartError;
use crate::group::GroupOptions;
use crate::limits;
use crate::security::options::SecurityOptions;

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Where the log is and how it is kept.
    pub log: LogOptions,
    /// Where clients connect. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// What clients are told to connect to. Default `None`: the address that is listened at, which
    /// must be a definite one then.
    pub advertised: Option<Advertised>,
    /// Who may connect and what for. Default: nobody is asked anything.
    pub security: SecurityOptions,
    /// Anybody who reaches the address may read, write and delete everything. Default `false`: an
    /// address other than a loopback one is refused unless clients must prove who they are.
    pub allow_anonymous_network: bool,
    /// The one broker's id, which clients are told. Default 1.
    pub node_id: i32,
    /// A topic that a client asks for comes into being. Default `true`.
    pub auto_create_topics: bool,
    /// What a topic is like unless the client says otherwise.
    pub topic: TopicOptions,
    /// How consumer groups behave.
    pub groups: GroupOptions,
    /// Largest request, in bytes. Default [`limits::REQUEST_BYTES_MAX`].
    pub request_bytes_max: usize,
    /// Connections at a time; further ones are closed at once. Default
    /// [`limits::CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// A connection without requests is closed after this. Default [`limits::IDLE_TIME`].
    pub idle_time: Duration,
}

/// Host and port as clients see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl BrokerOptions {
    /// The defaults, for a log and an address.
    pub fn new(log: LogOptions, listen: SocketAddr) -> Self {
        Self {
            log,
            listen,
            advertised: None,
            security: SecurityOptions::default(),
            allow_anonymous_network: false,
            node_id: 1,
            auto_create_topics: true,
            topic: TopicOptions::default(),
            groups: GroupOptions::default(),
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            connections_max: limits::CONNECTIONS_MAX,
            idle_time: limits::IDLE_TIME,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let addr = self.listen;
        let open = !self.security.authenticates() && !self.allow_anonymous_network;
        if !addr.ip().is_loopback() && open {
            return Err(StartError::Anonymous { addr });
        }
        if addr.ip().is_unspecified() && self.advertised.is_none() {
            return Err(StartError::NotAdvertised { addr });
        }
        let bound =
            |option, value: usize, min: usize, max: usize| match (min..=max).contains(&value) {
                true => Ok(()),
                false => Err(StartError::Option {
                    option,
                    value,
                    min,
                    max,
                }),
            };
        bound(
            "request_bytes_max",
            self.request_bytes_max,
            limits::REQUEST_BYTES_MIN,
            limits::REQUEST_BYTES_LIMIT,
        )?;
        bound(
            "connections_max",
            self.connections_max,
            1,
            limits::CONNECTIONS_LIMIT,
        )
    }
}

impl std::fmt::Display for Advertised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl std::str::FromStr for Advertised {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is not a host and a port: write broker.example.com:9092");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.len() > 255 {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl From<SocketAddr> for Advertised {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}
