//! Where messages go.

use serde::{Deserialize, Serialize};

use crate::{RetryPolicy, TopicPattern};

/// Name of a destination: 1 to 63 bytes of `[a-z0-9_-]`, as in `outbox.toml`.
pub type DestinationName = String;

/// One place messages go, with the topics it covers and how they are delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Its name, unique in the store.
    pub name: DestinationName,
    /// The topics it covers. A change takes effect at the store's current last seq.
    pub patterns: Vec<TopicPattern>,
    /// URL of the broker, without secrets: shown by `outbox status`.
    pub broker: String,
    /// Whether messages of one key keep their order.
    pub order: Order,
    /// What becomes of the rest of a key when one of its messages is dead.
    pub on_dead: OnDead,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Where a new destination starts; of no effect on one that exists.
    pub start: Start,
    /// A paused destination keeps its cursor and sends nothing.
    pub paused: bool,
}

/// Whether messages of one key keep their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Messages of one (topic, key) keep their order; a failing one parks those behind it.
    #[default]
    Key,
    /// No order: a failing message holds up nothing.
    None,
}

/// What becomes of the rest of a key when one of its messages is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDead {
    /// The rest of the key waits until an operator resends or discards the dead message.
    #[default]
    BlockKey,
    /// The rest of the key goes on without it.
    Skip,
}

/// Where a new destination starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest message that is still retained.
    #[default]
    Beginning,
    /// After the last seq taken when it was created.
    End,
    /// At the first message created at or after this time; a few earlier ones may come too.
    At(chrono::DateTime<chrono::Utc>),
}
