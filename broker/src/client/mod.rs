//! A small client for the rest of the project: it looks at a broker over the network, changes what an
//! operator wants changed, and publishes to and consumes from it. It works against a broker that is
//! one node.
//!
//! - [`Admin`]: topics ([`topics`]) and consumer groups ([`groups`]).
//! - [`Client`]: what relays and consumers ask of a broker ([`data`]).
//! - [`ClientOptions`]: where to connect, and as whom.
//! - `connection`: requests and answers, one at a time.
//! - `login`: the client's side of SASL.

pub mod data;
pub mod groups;
pub mod options;
pub mod topics;

mod connection;
mod error;
mod login;

pub use data::{
    Assignment, Client, FetchWish, FetchedRange, JoinOptions, Member, PublishAnswer,
    PublishRefusal, TopicPartitions,
};
pub use error::ClientError;
pub use groups::{
    GroupDetail, GroupMember, GroupOffset, GroupSummary, OffsetReset, PartitionOffsets, ResetTo,
};
pub use options::{ClientLogin, ClientOptions, ClientTls};
pub use topics::{ConfigEntry, PartitionDetail, TopicDetail, TopicSummary};

use connection::Connection;

/// A connection for an operator's requests.
pub struct Admin {
    connection: Connection,
}

impl Admin {
    /// Connects, and logs in if the options say as whom.
    ///
    /// # Errors
    /// When nobody answers at the address, or it does not let this client in.
    pub async fn connect(options: &ClientOptions) -> Result<Self, ClientError> {
        let connection = Connection::open(options).await?;
        Ok(Self { connection })
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
