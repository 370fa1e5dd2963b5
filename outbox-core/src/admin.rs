//! The contract of a store, as the operator sees it.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    DeliveryState, Destination, Headers, Message, RequestAction, Seq, StoreError, Unrouted,
};

/// What the operator's tools ask of a store. None of it needs, or disturbs, a running relay.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Creates or upgrades the schema; answers the version it now has. Running it again does
    /// nothing.
    async fn migrate(&self) -> Result<u32, StoreError>;

    /// Makes the store's destinations be these: new ones are created, known ones updated (a
    /// change of patterns takes effect at the current last seq), others left alone.
    async fn declare(&self, destinations: &[Destination]) -> Result<(), StoreError>;

    /// Backlog, age, rate and exceptions of each destination.
    async fn status(&self) -> Result<Status, StoreError>;

    /// Delivery rows that match, by seq.
    async fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<ExceptionRow>, StoreError>;

    /// One message with its state at every destination, by id; `None` when it is not retained.
    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>, StoreError>;

    /// Leaves a request for the leader of `destination`; answers how many messages it names.
    async fn request(
        &self,
        destination: &str,
        action: RequestAction,
        selection: &Selection,
    ) -> Result<u64, StoreError>;

    /// Declares that this store, a copy or promotion, is now the one: progress goes on here.
    /// Answers the destinations that were adopted.
    async fn adopt(&self) -> Result<Vec<String>, StoreError>;

    /// Looks for everything that is known to hurt.
    async fn doctor(&self) -> Result<Vec<Finding>, StoreError>;

    /// Enqueues `messages` and moves the position of `source` from `from` to `to`, in one
    /// transaction.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the position is not `from`: somebody else imports the source.
    async fn import(
        &self,
        source: &str,
        from: u64,
        to: u64,
        messages: &[Message],
    ) -> Result<(), StoreError>;

    /// The position of `source`: 0 when it was never imported.
    async fn import_position(&self, source: &str) -> Result<u64, StoreError>;
}

/// The store at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Last seq taken.
    pub last_seq: Seq,
    /// One for each destination, by name.
    pub destinations: Vec<DestinationStatus>,
    /// Messages that no route covers, by topic.
    pub unrouted: Vec<UnroutedStatus>,
}

/// As [`Unrouted`], for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnroutedStatus {
    /// The topic.
    pub topic: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
}

impl From<Unrouted> for UnroutedStatus {
    fn from(u: Unrouted) -> Self {
        Self {
            topic: u.topic,
            count: u.count,
            first: u.first,
            last: u.last,
        }
    }
}

/// One destination at a glance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DestinationStatus {
    /// Its name.
    pub name: String,
    /// Topic patterns in force.
    pub patterns: Vec<String>,
    /// Broker URL without secrets.
    pub broker: String,
    /// Relay that leads it.
    pub owner: Option<String>,
    /// Lease epoch.
    pub epoch: i64,
    /// It is paused.
    pub paused: bool,
    /// Every seq at or below is accounted for.
    pub cursor: Seq,
    /// Seqs behind the cursor still to be read: an upper bound of the backlog (other
    /// destinations' messages and rolled-back seqs count too).
    pub pending: u64,
    /// Age of the oldest message behind the cursor, in seconds; `None` when there is none.
    pub oldest_pending_seconds: Option<f64>,
    /// Seqs passed for each second, over the last settles; 0 when idle.
    pub seqs_per_second: f64,
    /// Open gaps.
    pub gaps: u64,
    /// Rows by state.
    pub retrying: u64,
    /// Rows by state.
    pub parked: u64,
    /// Keys with a marker.
    pub parked_keys: u64,
    /// Rows by state.
    pub scheduled: u64,
    /// Rows by state.
    pub dead: u64,
    /// Rows by state.
    pub expired: u64,
}

/// Which delivery rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExceptionFilter {
    /// Of this destination only.
    pub destination: Option<String>,
    /// In this state only.
    pub state: Option<DeliveryState>,
    /// Behind this (destination, seq), for paging.
    pub after_seq: Option<Seq>,
    /// At most so many; 0 counts as 100.
    pub limit: usize,
}

/// A delivery row with the head of its message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExceptionRow {
    /// The destination.
    pub destination: String,
    /// The message's position.
    pub seq: Seq,
    /// The message's id.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<String>,
    /// The row's state.
    pub state: DeliveryState,
    /// Failed attempts.
    pub attempts: u32,
    /// When it is due.
    pub next_attempt: Option<DateTime<Utc>>,
    /// What the broker said last.
    pub last_error: Option<String>,
    /// Its key waits for it.
    pub blocks_key: bool,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
}

/// One message, whole, with its state at every destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageDetail {
    /// Its position.
    pub seq: Seq,
    /// Its id.
    pub id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<String>,
    /// Its content type.
    pub content_type: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    #[serde(skip)]
    pub payload: bytes::Bytes,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// (destination, status): `pending`, `sent`, a [`DeliveryState`] word, or `unrouted`.
    pub statuses: Vec<(String, String)>,
}

/// Which messages a request names.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// These, by id. Unknown ids are not counted.
    Ids(Vec<Uuid>),
    /// Every dead (and, if so, expired) message of the destination, created in this window.
    Dead {
        /// Created at or after.
        since: Option<DateTime<Utc>>,
        /// Created before.
        until: Option<DateTime<Utc>>,
        /// Expired ones as well.
        expired: bool,
    },
    /// Every message whose route covers it, created in this window, whatever its state.
    Window {
        /// Created at or after.
        since: DateTime<Utc>,
        /// Created before.
        until: DateTime<Utc>,
    },
}

/// One thing the doctor found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Short name, stable: `xmin_held`, `sequence_cache`, ….
    pub check: String,
    /// One sentence with the numbers.
    pub text: String,
    /// What to do; empty when all is well.
    pub cure: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Look at it soon.
    Warning,
    /// Messages stop, or could be lost.
    Error,
}

/// Age from now, for status lines.
pub fn age(since: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - since).to_std().unwrap_or_default()
}
