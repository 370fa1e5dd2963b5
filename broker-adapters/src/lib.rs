//! Brokers behind the outbox's `Broker` and `Source` ports.
//!
//! - [`connect`] and [`source`]: from the URL in a configuration to a broker, and to what consumers
//!   read.
//! - [`LogBroker`], [`LogSource`] and [`RemoteLogSource`]: the bundled log, in this process or behind
//!   an address.

mod connect;
mod log;

pub use connect::{ConnectError, check_served, connect, open_log, served, source};
pub use log::{LogBroker, LogBrokerOptions, LogSource, RemoteLogSource};
