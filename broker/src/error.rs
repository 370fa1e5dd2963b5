//! Why a broker does not start, and why a connection ends. Texts complete "failed to …".

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use outbox_log_broker::OpenError;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address can be reached from outside, and nobody is asked who they are.
    #[error(
        "start the broker: {addr} can be reached from other machines, and clients are not \
         authenticated: anybody could read, write and delete every topic. Cure: listen at \
         127.0.0.1, or name users who must log in, or a client_ca whose certificates clients must \
         have, or set allow_anonymous_network = true if the network itself is closed"
    )]
    Anonymous {
        /// The address.
        addr: SocketAddr,
    },
    /// Users, rules or certificates are of no use.
    #[error("start the broker: {0}")]
    Security(#[from] crate::security::options::SecurityError),
    /// Clients cannot be told where to connect.
    #[error(
        "start the broker: {addr} stands for every address of this machine, and clients must be \
         told one. Cure: set advertise to the host and port that clients reach"
    )]
    NotAdvertised {
        /// The address.
        addr: SocketAddr,
    },
    /// An option is out of bounds.
    #[error("start the broker: {option} is {value}, it must be {min} to {max}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The log could not be opened.
    #[error("start the broker: {0}")]
    Log(#[from] OpenError),
    /// The address could not be listened at.
    #[error("start the broker: listen at {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a connection was closed by this side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The bytes are no request.
    #[error(transparent)]
    Codec(#[from] crate::codec::CodecError),
    /// The request is not served.
    #[error("the request has API key {key}, which is not served")]
    UnknownApi { key: i16 },
    /// The request is served in other versions.
    #[error("{api} is served in versions {min} to {max}, the request has version {version}")]
    UnknownVersion {
        api: &'static str,
        version: i16,
        min: i16,
        max: i16,
    },
    /// The client must say who it is first.
    #[error(
        "the client asked for {api} before it logged in. Cure, in the client: security.protocol = \
         SASL_SSL (or SASL_PLAINTEXT) with a mechanism, user and password"
    )]
    NotLoggedIn { api: &'static str },
    /// A request without an answer failed: this is the only way to say so.
    #[error("a Produce request with acks=0 failed: {0}")]
    Unanswered(String),
    /// The client speaks no TLS, or another one, or has not the certificate that it needs.
    #[error("no encrypted connection: {0}")]
    Tls(#[source] io::Error),
    /// The client has not said who it is in time.
    #[error("the client had not logged in after {0:?}")]
    LoginStalled(Duration),
    /// The request did not arrive in time.
    #[error("a request was not whole after {0:?}")]
    ReceiveStalled(Duration),
    /// The answer was not taken.
    #[error("nothing of an answer was taken for {0:?}")]
    SendStalled(Duration),
    /// The network said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ConnectionError {
    /// Whether this happens to honest clients: it is not worth a warning.
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}
