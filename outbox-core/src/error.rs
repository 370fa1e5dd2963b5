//! One classification of everything that can go wrong.

use std::error::Error as StdError;

/// What a failure means for the work at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing gets through: back off, burn no attempt, tell the operator once.
    Outage,
    /// This one failed, others may pass: retry it with backoff.
    Transient,
    /// It will never pass: dead letter.
    Permanent,
}

/// Why one message was not accepted by a broker.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// [`Class::Transient`] or [`Class::Permanent`]; an outage concerns the whole batch and is a
    /// [`crate::PublishError`].
    pub class: Class,
    /// The broker may have accepted it all the same (a timeout): later messages of its key wait.
    pub maybe_accepted: bool,
    /// What the broker said.
    pub text: String,
}

/// Why an operation of a store failed. Completes "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or the connection broke. Nothing that was known survives it.
    #[error("reach the store: {0}")]
    Outage(#[source] Box<dyn StdError + Send + Sync>),
    /// Another relay leads this destination now: this session changed nothing and must end.
    #[error("settle {destination:?}: another relay leads it now (epoch {epoch} is over)")]
    LeaseLost {
        /// The destination.
        destination: String,
        /// The epoch that was lost.
        epoch: i64,
    },
    /// The store is another one than progress was written on (a restored dump, a clone).
    #[error(
        "start {destination:?}: its progress was written on {stored}, and this store is {found}; \
         a copy must not publish. If this store now takes over, run `outbox adopt`"
    )]
    Foreign {
        /// The destination.
        destination: String,
        /// Incarnation stored with progress.
        stored: String,
        /// Incarnation of the store.
        found: String,
    },
    /// The sequence is below what has been handed out: seq values would be used twice.
    #[error(
        "start {destination:?}: the sequence stands at {last} but messages up to {high_water} were \
         already handed out; new messages would be skipped. Cure: {cure}"
    )]
    SequenceBehind {
        /// The destination.
        destination: String,
        /// Last value of the sequence.
        last: Seq,
        /// Highest seq known.
        high_water: Seq,
        /// The exact statement that mends it.
        cure: String,
    },
    /// The store refuses to be used like this (in recovery, half-detached partition, wrong role).
    #[error("use the store: {problem}. Cure: {cure}")]
    Refused {
        /// What was found.
        problem: String,
        /// What to do.
        cure: String,
    },
    /// The schema is missing, older or newer than this program.
    #[error("use the schema: {problem}. Cure: {cure}")]
    Schema {
        /// What was found.
        problem: String,
        /// The exact command that mends it.
        cure: String,
    },
    /// The message breaks a limit. Nothing was written.
    #[error("enqueue: {0}")]
    Invalid(#[from] crate::InvalidMessage),
    /// A name the store does not know.
    #[error("find {what} {name:?}: it does not exist{hint}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What exists instead, or empty.
        hint: String,
    },
    /// Anything else the store said: a bug or a damaged store.
    #[error("{context}: {source}")]
    Other {
        /// What was being done.
        context: String,
        /// What the store said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

use crate::Seq;

impl StoreError {
    /// What this means for whoever holds the session.
    pub fn class(&self) -> Class {
        match self {
            Self::Outage(_) => Class::Outage,
            Self::LeaseLost { .. } | Self::Other { .. } => Class::Transient,
            Self::Foreign { .. }
            | Self::SequenceBehind { .. }
            | Self::Refused { .. }
            | Self::Schema { .. }
            | Self::Invalid(_)
            | Self::NotFound { .. } => Class::Permanent,
        }
    }
}
