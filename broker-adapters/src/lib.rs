//! Brokers behind the outbox's `Broker` port.
//!
//! - [`connect`]: from the URL in a configuration to a broker.
//! - [`LogBroker`] and [`LogSource`]: the bundled log, to publish to and to consume from.

mod connect;
mod log;

pub use connect::{ConnectError, connect, open_log};
pub use log::{LogBroker, LogBrokerOptions, LogSource};
