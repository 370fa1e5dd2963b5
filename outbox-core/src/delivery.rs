//! A message on its way: what the relay reads, and the exceptions it writes.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Headers, TopicPattern};

/// Position of a message in the outbox's log: unique, growing, with holes where a transaction
/// rolled back. Starts at 1; 0 means "before the first".
pub type Seq = i64;

/// A committed message that a destination has not finished with.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its position.
    pub seq: Seq,
    /// Its identity.
    pub id: Uuid,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its key; `None` has no order.
    pub key: Option<Arc<str>>,
    /// Its body.
    pub payload: Bytes,
    /// Media type of the body.
    pub content_type: Arc<str>,
    /// Its headers; `None` when it has none, which is the usual case on the hot path.
    pub headers: Option<Arc<Headers>>,
    /// When it was enqueued, by the store's clock.
    pub created_at: DateTime<Utc>,
    /// Not before.
    pub deliver_after: Option<DateTime<Utc>>,
    /// Not after.
    pub expires_at: Option<DateTime<Utc>>,
    /// It became visible after a later seq had been handed out (a late commit): it is delivered,
    /// flagged and counted, for its order is no longer promised.
    pub late: bool,
    /// Failed attempts so far.
    pub attempts: u32,
    /// How often an operator asked for it again: brokers that drop duplicates let a raised
    /// number pass.
    pub redelivery: u32,
}

impl Pending {
    /// The order domain of this message, or `None` when it has no order.
    pub fn key_ref(&self) -> Option<KeyRef> {
        let key = self.key.clone()?;
        Some(KeyRef {
            topic: self.topic.clone(),
            key,
        })
    }

    /// Bytes this message counts for in a page or batch.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().flat_map(|h| h.iter());
        self.payload.len()
            + self.topic.len()
            + self.key.as_ref().map_or(0, |k| k.len())
            + headers.map(|(n, v)| n.len() + v.len()).sum::<usize>()
    }

    /// Whether one of `patterns` covers this message's topic.
    pub fn covered_by(&self, patterns: &[TopicPattern]) -> bool {
        patterns.iter().any(|p| p.matches(&self.topic))
    }
}

/// The domain within which order is promised at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyRef {
    /// The topic.
    pub topic: Arc<str>,
    /// The key.
    pub key: Arc<str>,
}

/// State of a message at a destination that is neither `pending` nor `sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It failed and is tried again at `next_attempt`.
    Retrying,
    /// It waits behind an earlier message of its key.
    Parked,
    /// A marker: this seq and all later ones of the key are parked, without a row each.
    ParkedFrom,
    /// It waits for its `deliver_after`.
    Scheduled,
    /// It failed for good, and waits for an operator.
    Dead,
    /// It was not delivered before its `expires_at`.
    Expired,
}

impl DeliveryState {
    /// The word used in SQL, metrics and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::ParkedFrom => "parked_from",
            Self::Scheduled => "scheduled",
            Self::Dead => "dead",
            Self::Expired => "expired",
        }
    }

    /// The state of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::Retrying,
            Self::Parked,
            Self::ParkedFrom,
            Self::Scheduled,
            Self::Dead,
            Self::Expired,
        ];
        all.into_iter().find(|s| s.as_str() == word)
    }
}

impl std::fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A delivery row: one message at one destination that did not simply go through.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// The message.
    pub seq: Seq,
    /// Its topic, for the blocked-key look-up.
    pub topic: Arc<str>,
    /// Its key, if it has one.
    pub key: Option<Arc<str>>,
    /// What it waits for.
    pub state: DeliveryState,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it is due: `Some` for `Retrying` and `Scheduled`, else `None`.
    pub next_attempt: Option<DateTime<Utc>>,
    /// Text of the last failure, cut to [`crate::limits::ERROR_TEXT_BYTES_MAX`].
    pub last_error: Option<String>,
    /// How often an operator asked for it again.
    pub redelivery: u32,
    /// Whether it blocks the messages of its key behind it. `Retrying` and `Parked` rows of an
    /// ordered destination do; a `Dead` one does under `on_dead = block_key`.
    pub blocks_key: bool,
}
