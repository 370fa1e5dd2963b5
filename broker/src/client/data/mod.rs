//! What relays and consumers ask of a broker: publish, fetch, offsets, membership of a group.
//!
//! Only requests that may be repeated, so that a connection that the broker has closed meanwhile is
//! replaced without anybody noticing.

mod fetch;
mod membership;
mod publish;
mod topics;

use std::time::Duration;

use tokio::sync::Mutex;

use super::ClientError;
use super::connection::Connection;
use super::options::ClientOptions;
use crate::codec::Request;

pub use fetch::{FetchWish, FetchedRange};
pub use membership::{Assignment, JoinOptions, Member, Partition};
pub use publish::{PublishAnswer, PublishRefusal};
pub use topics::TopicPartitions;

/// One connection to one broker, made when it is first needed and again when it is lost.
///
/// Calls from several tasks wait for each other; a long poll wants a client of its own.
pub struct Client {
    options: ClientOptions,
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = &self.options.address;
        f.debug_struct("Client")
            .field("address", address)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(options: ClientOptions) -> Self {
        Self {
            options,
            connection: Mutex::new(None),
        }
    }

    /// Host and port of the broker.
    pub fn address(&self) -> &str {
        &self.options.address
    }

    /// Sends a request and waits for its answer: `wait` longer than usual, for a request that the
    /// broker may hold back so long.
    ///
    /// Cancellation: whether the broker carried the request out is unknown, and the connection is
    /// given up.
    async fn call<R: Request>(
        &self,
        version: i16,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, ClientError> {
        let mut slot = self.connection.lock().await;
        // Taken out: a call that is dropped half-way must not leave its answer to the next one.
        if let Some(mut connection) = slot.take() {
            match connection.call_for(version, request, wait).await {
                Ok(answer) => {
                    *slot = Some(connection);
                    return Ok(answer);
                }
                // The broker had closed it (it was idle, or the broker is a new one): try anew.
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = Connection::open(&self.options).await?;
        let answer = connection.call_for(version, request, wait).await?;
        *slot = Some(connection);
        Ok(answer)
    }

    /// An answer that cannot be read.
    fn confused(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Protocol {
            address: self.options.address.clone(),
            reason: reason.to_string(),
        }
    }
}

impl ClientError {
    /// Kafka's error code, when the broker answered with one.
    pub fn code(&self) -> Option<i16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
