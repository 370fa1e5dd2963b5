//! The contract of a store, as the relay sees it.
//!
//! A [`Store`] hands out leases; a [`Session`] is one leader's conversation about one destination.
//! Everything a session knows is loaded when it opens and dies with it: after any error the relay
//! drops the session, and opens a new one when it (still or again) holds the lease.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{DeliveryState, Destination, Exception, KeyRef, Pending, Seq, StoreError};

/// Leases, beats and maintenance of one store. Cheap to share; safe from any task.
#[async_trait]
pub trait Store: Send + Sync {
    /// Checks that a relay may run here: schema version, not in recovery, whole partitions,
    /// the role sees every row.
    ///
    /// # Errors
    /// With the exact cure in the text.
    async fn check(&self) -> Result<(), StoreError>;

    /// Beats the heart of `instance` (creating it), and reads everybody's.
    ///
    /// Runs on a connection of its own, so that a slow page never delays it.
    async fn beat(&self, instance: &str) -> Result<Board, StoreError>;

    /// Takes the lease of `seen.destination` if it is still as `seen` (owner and epoch), with the
    /// next epoch. `None`: somebody else was faster.
    async fn claim(&self, seen: &LeaseRow, instance: &str) -> Result<Option<Lease>, StoreError>;

    /// Gives a lease back, so that another relay takes it at once. Does nothing when it was lost.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Takes `instance` off the board: it stops and will not beat again, so that others need not
    /// wait for its silence before they take its share. A store that does nothing here is still
    /// right, only slower.
    async fn leave(&self, _instance: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Opens a session: verifies the lease and the incarnation, and loads cursor, gaps and
    /// blocked keys on a fresh connection.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], [`StoreError::Foreign`], [`StoreError::SequenceBehind`], ….
    async fn open(&self, lease: &Lease) -> Result<Box<dyn Session>, StoreError>;

    /// One round of house-keeping, safe to run anywhere at any time: partitions ahead, retention,
    /// rotation of progress, dead instances. Never waits for a lock longer than 50 ms.
    async fn maintain(&self, policy: &Maintenance) -> Result<Maintained, StoreError>;
}

/// The instances and leases of a store at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// Relays known to the store, dead ones included, sorted by id.
    pub instances: Vec<Beat>,
    /// One row for each destination, sorted by name.
    pub leases: Vec<LeaseRow>,
}

/// A relay's heart beat. It is dead when `beat` has not changed for the TTL on the *observer's*
/// monotonic clock; the store's clock is never compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The instance.
    pub instance: String,
    /// Grows with every beat.
    pub beat: i64,
}

/// The lease of one destination, as read from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The destination.
    pub destination: String,
    /// Who holds it; `None` when it was released.
    pub owner: Option<String>,
    /// Grows with every claim, never otherwise.
    pub epoch: i64,
    /// A paused destination is claimed by nobody.
    pub paused: bool,
    /// Grows when an operator changes configuration or leaves a request.
    pub control_version: i64,
}

/// A lease that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The destination.
    pub destination: String,
    /// Who holds it.
    pub owner: String,
    /// Its epoch: every write of the session is guarded by it.
    pub epoch: i64,
}

/// One leader's conversation about one destination.
///
/// Calls are made one at a time. After an error the session is of no more use, except after
/// [`StoreError::Invalid`].
///
/// # Cancellation
/// No method is cancel-safe: a session whose call was dropped must be dropped too.
#[async_trait]
pub trait Session: Send {
    /// What was loaded when the session opened.
    fn opened(&self) -> &Opened;

    /// Whether [`Session::page`] may find something: a cheap look (one number) for the idle loop.
    /// It may say yes in vain, never no in vain.
    async fn poll(&mut self) -> Result<bool, StoreError>;

    /// Reads on from where the last page ended (at first from the cursor): the next messages by
    /// seq, and first those of open gaps that have become visible since. Only what is durable in
    /// the store is handed out.
    ///
    /// Pages may be read ahead of settlements; the read position is the session's own.
    async fn page(&mut self, limit: PageLimit) -> Result<Page, StoreError>;

    /// Messages with a delivery row of state `Retrying` or `Scheduled` that are due at `now`,
    /// earliest first, and when the next one after those is due.
    async fn due(&mut self, now: DateTime<Utc>, limit: PageLimit) -> Result<Due, StoreError>;

    /// The first parked messages of `key` in seq order: those with `Parked` rows, and when there
    /// are none and the key has a marker, its followers re-read from the log.
    async fn parked(&mut self, key: &KeyRef, limit: PageLimit) -> Result<Parked, StoreError>;

    /// What operators asked for and no leader has applied, oldest first, at most 1,000 messages.
    async fn requests(&mut self) -> Result<Vec<Request>, StoreError>;

    /// A seq below which no gap is open, as of the last page; asked only while some are. The
    /// default, where the session opened, is always right, but it keeps a broker that remembers
    /// seqs from forgetting any while a gap is open: a store with gaps answers the lowest one.
    fn gap_floor(&self) -> Seq {
        self.opened().low_water
    }

    /// Writes what became of messages, in one transaction, under the epoch: either all of it or,
    /// when the lease was lost, none of it.
    async fn settle(&mut self, settlement: &Settlement) -> Result<(), StoreError>;
}

/// What a session starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The destination as configured in the store.
    pub destination: Destination,
    /// Identity of the store: system identifier, timeline and database in one printable word.
    pub incarnation: String,
    /// Every seq at or below it is accounted for, but for gaps and delivery rows.
    pub cursor: Seq,
    /// No seq below it will be published again (but by resend).
    pub low_water: Seq,
    /// Number of delivery rows in state `Retrying` or `Scheduled`.
    pub waiting: u64,
    /// The keys that are blocked, or have parked messages to be drained.
    pub keys: Vec<BlockedKey>,
    /// The control version this was read at.
    pub control_version: i64,
}

/// A key with delivery rows.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockedKey {
    /// The key.
    pub key: KeyRef,
    /// Rows that hold it up: `Retrying`, or `Dead` with `blocks_key`. At 0 its parked messages
    /// are free to go.
    pub blockers: u32,
    /// Rows in state `Parked`.
    pub parked: u32,
    /// From this seq on its messages are parked without a row each.
    pub marker: Option<Seq>,
}

/// Where a page ends: whichever is first. A page holds at least one message when there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Rows, those of other destinations included.
    pub rows: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

impl Default for PageLimit {
    fn default() -> Self {
        Self {
            rows: crate::limits::PAGE_ROWS,
            bytes: crate::limits::PAGE_BYTES_MAX,
        }
    }
}

/// One stretch of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Messages for this destination: late ones (flagged) first, then by seq. Topics of other
    /// destinations are left out.
    pub messages: Vec<Pending>,
    /// The first seq of the stretch (the previous page's `through` + 1).
    pub from: Seq,
    /// The last seq of the stretch; `from - 1` when nothing new was seen.
    pub through: Seq,
    /// Seqs of the stretch that were not there and may still commit, as ranges with both ends
    /// included, sorted.
    pub gaps: Vec<(Seq, Seq)>,
    /// Gaps, of this and of earlier pages, that are still open.
    pub gaps_open: u64,
    /// Age of the oldest open gap.
    pub gap_age_max: std::time::Duration,
    /// Messages seen here that no destination's route covers, by topic. Exactly one destination
    /// counts them.
    pub unrouted: Vec<Unrouted>,
    /// There may be more right behind this page.
    pub more: bool,
}

/// Messages that no route covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrouted {
    /// The topic.
    pub topic: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
}

/// A message with a delivery row.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The message, with `attempts` and `redelivery` from its row.
    pub message: Pending,
    /// The row's state.
    pub state: DeliveryState,
    /// The row's `blocks_key`.
    pub blocks_key: bool,
}

/// Messages that are due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// The messages.
    pub messages: Vec<Waiting>,
    /// When the next one is due; `None` when nothing else waits.
    pub next: Option<DateTime<Utc>>,
}

/// Parked messages of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parked {
    /// The messages in seq order.
    pub messages: Vec<Pending>,
    /// Set when they were re-read from the log behind a marker: every visible follower up to this
    /// seq is in `messages`. Once those are published the marker moves to `through + 1`, and it
    /// may go when `through` has reached the session's read position.
    pub through: Option<Seq>,
    /// There may be more behind these.
    pub more: bool,
}

/// What an operator asked of messages of one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its id: named in [`Settlement::requests`] once applied.
    pub id: i64,
    /// What to do.
    pub action: RequestAction,
    /// The messages, with their delivery rows where they have one.
    pub messages: Vec<Requested>,
}

/// One message of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Requested {
    /// The message.
    pub seq: Seq,
    /// Its topic.
    pub topic: std::sync::Arc<str>,
    /// Its key.
    pub key: Option<std::sync::Arc<str>>,
    /// Its delivery row, if any.
    pub exception: Option<Exception>,
}

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestAction {
    /// Send it (again), with a fresh set of attempts and a raised redelivery number, so that a
    /// broker that drops duplicates lets it pass.
    Resend,
    /// Give it up: the row goes, the key goes on.
    Discard,
    /// The dead message stays dead and visible, but its key goes on without it.
    Unblock,
}

impl RequestAction {
    /// The word used in SQL and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Discard => "discard",
            Self::Unblock => "unblock",
        }
    }

    /// The action of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Resend, Self::Discard, Self::Unblock]
            .into_iter()
            .find(|a| a.as_str() == word)
    }
}

/// What became of messages. An empty settlement is allowed and writes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlement {
    /// The new cursor: every seq at or below it was sent, or is in `upsert`, in a marker, or in a
    /// gap the session knows. Never below the old one (then: unchanged), never beyond the last
    /// page.
    pub through: Seq,
    /// Late seqs (flagged in a page) that are now accounted for: their gaps close.
    pub late: Vec<Seq>,
    /// Delivery rows to write, replacing any of the same seq.
    pub upsert: Vec<Exception>,
    /// Delivery rows to remove: sent at last, or discarded.
    pub remove: Vec<Seq>,
    /// Markers to set, or to clear with `None`.
    pub markers: Vec<(KeyRef, Option<Seq>)>,
    /// Requests that this settlement applies.
    pub requests: Vec<i64>,
}

/// What house-keeping is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// How long messages stay readable after every destination is done with them. Default 7 d.
    pub retention: std::time::Duration,
}

/// What a round of house-keeping did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions attached ahead of the sequence.
    pub partitions_attached: u32,
    /// Partitions emptied by retention (on SQLite: chunks of rows).
    pub partitions_emptied: u32,
    /// Empty partitions dropped.
    pub partitions_dropped: u32,
    /// Messages copied aside because something still needs them.
    pub kept: u64,
    /// Rows in the default partition: more than 0 is an alert.
    pub default_rows: u64,
    /// Steps put off because a lock was not to be had at once; they are tried again next round.
    pub put_off: u32,
}
