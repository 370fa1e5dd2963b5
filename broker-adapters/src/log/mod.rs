//! The bundled log: records as the CloudEvents binding for Kafka lays them out.

mod broker;
mod headers;
mod partition;
mod source;

pub use broker::{LogBroker, LogBrokerOptions};
pub use source::LogSource;
