//! Why a relay could not run.

use outbox_core::StoreError;

/// Why [`crate::Relay::run`] ended without having been asked to. Completes "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The store refuses to be relayed from; the text says the cure.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Health and metrics cannot be served.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An option makes no sense.
    #[error("start the relay: {field} is {value}, {rule}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

/// Why health and metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address is reachable from outside, and nobody said it may be.
    #[error(
        "listen on {addr}: /metrics and /readyz have no authentication, and this address is not \
         a loopback one. Use 127.0.0.1, or allow it explicitly"
    )]
    NotLoopback {
        /// The address.
        addr: std::net::SocketAddr,
    },
    /// The address could not be bound.
    #[error("listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}
