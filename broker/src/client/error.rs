//! What a client is told. Texts complete "failed to …".

use std::io;
use std::time::Duration;

use crate::codec::ErrorCode;

/// Why a client's request was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers there, or no longer.
    #[error("reach the broker at {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time: it is not known whether the request was done.
    #[error("hear from the broker at {address}: no answer within {time:?}")]
    Silent {
        /// Where.
        address: String,
        /// How long it was waited for.
        time: Duration,
    },
    /// The authorities' file or the host's name is of no use.
    #[error("encrypt the connection to {address}: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The broker does not let this user in.
    #[error("log in at {address} as {user:?}: {reason}")]
    Login {
        /// Where.
        address: String,
        /// As whom.
        user: String,
        /// Why not.
        reason: String,
    },
    /// What answers is no broker that this client knows how to talk to.
    #[error("talk to the broker at {address}: {reason}")]
    Protocol {
        /// Where.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The broker says no.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's number of the error.
        code: i16,
        /// In words.
        reason: String,
    },
    /// There is no such topic, partition or group.
    #[error("{what}: there is none of this name")]
    NotFound {
        /// What was asked for.
        what: String,
    },
}

impl ClientError {
    /// The broker's error, in words; `Ok` when there is none.
    pub(super) fn check(what: &str, code: i16, message: Option<&str>) -> Result<(), Self> {
        if code == crate::codec::NO_ERROR {
            return Ok(());
        }
        let what = what.to_owned();
        match ErrorCode::try_from_code(code) {
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::GroupIdNotFound) => {
                Err(Self::NotFound { what })
            }
            known => {
                let said = message.filter(|text| !text.is_empty()).map(str::to_owned);
                let reason = said.unwrap_or_else(|| match known {
                    Some(error) => error.to_string(),
                    None => format!("error {code}"),
                });
                Err(Self::Refused { what, code, reason })
            }
        }
    }
}
