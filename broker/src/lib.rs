//! The Kafka-protocol server over the bundled log: any Kafka client works against it, and an
//! acknowledgement means that the records are on disk.
//!
//! A tour, in reading order:
//!
//! - [`Broker`]: the handle of a running server. [`BrokerOptions`]: how it is started.
//! - `server`: the listener, and how many connections it takes.
//! - `connection`: one client. Produce requests overlap, all others run one at a time, and every
//!   answer goes out in the order of its request.
//! - `api`: one file for each request, and the one table that says which versions are served.
//! - `group`: consumer groups, as a pure state machine with a clock beside it.
//! - `codec`: the only module that knows how requests are laid out. Every length and count is
//!   bounded there before anything is allocated.
//! - [`client`]: the other side, for the project's own tools.
//! - `topic_config`: a topic's options under the names that Kafka gives them.
//! - [`client`]: what the rest of the project asks of a broker over the network.
//! - `security`: who a client is, and what it may do.
//! - [`limits`]: every bound.
//!
//! It knows nothing of an outbox.

pub mod client;
pub mod limits;

#[cfg(fuzzing)]
pub mod fuzzing;

mod api;
mod broker;
mod codec;
mod connection;
mod error;
mod group;
mod options;
mod pipeline;
mod security;
mod server;
mod session;
mod shared;
mod telemetry;
mod topic_config;
mod wire;

pub use broker::Broker;
pub use error::StartError;
pub use group::GroupOptions;
pub use options::{Advertised, BrokerOptions};
pub use security::options::{
    Operation, Pattern, Rule, SecurityError, SecurityOptions, TlsOptions, User, UserSecret,
};
pub use telemetry::{METRICS, Metric};
