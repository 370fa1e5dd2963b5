//! The bundled log, in this process or behind an address: records as the CloudEvents binding for
//! Kafka lays them out.

mod broker;
mod headers;
mod home;
mod partition;
mod records;
mod remote;
mod source;

pub use broker::{LogBroker, LogBrokerOptions};
pub use remote::RemoteLogSource;
pub use source::LogSource;
