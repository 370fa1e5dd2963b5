//! One leader's conversation about one destination, on a connection of its own.
//!
//! Everything it knows is loaded here and dies with it: after a crash or a promotion seqs are used
//! again, and what was remembered would skip them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use outbox_core::{
    BlockedKey, Destination, Due, KeyRef, Lease, Opened, Page, PageLimit, Parked, Request, Seq,
    Session, Settlement, StoreError, Unrouted,
};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::{OrStoreError, damaged};
use crate::gaps::{Gaps, StoredGap};
use crate::incarnation::Incarnation;
use crate::page_rows::Interner;
use crate::session_routes::Routes;
use crate::sql::{OPEN_GAPS, OPEN_KEYS, OPEN_LEASE, OPEN_SESSION, POLL};
use crate::store::PostgresStore;
use crate::{page, session_waiting, settle};

/// What a leader knows about its destination.
pub(crate) struct PostgresSession {
    pub(crate) store: PostgresStore,
    pub(crate) connection: PgConnection,
    pub(crate) lease: Lease,
    /// Settles are refused once the routes are no longer those of this version.
    pub(crate) route_version: i64,
    pub(crate) opened: Opened,
    /// The row in `session` that a crash or a promotion would take away.
    pub(crate) token: Uuid,
    pub(crate) routes: Routes,
    /// This destination counts the messages that no route covers.
    pub(crate) counts_unrouted: bool,
    pub(crate) gaps: Gaps,
    /// The last page ended here.
    pub(crate) position: Seq,
    /// As stored.
    pub(crate) cursor: Seq,
    pub(crate) high_water: Seq,
    pub(crate) sequence: Sequence,
    /// Seqs behind the position that were taken and are not there, and since when.
    pub(crate) tail: Option<Tail>,
    /// Unrouted messages of pages that are not settled yet, with the end of the page.
    pub(crate) unrouted: Vec<(Seq, Vec<Unrouted>)>,
    pub(crate) interner: Interner,
    started: Instant,
}

/// The last seq taken, as far as we know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequence {
    pub(crate) last: Seq,
    /// It was read since the last page.
    pub(crate) fresh: bool,
}

/// Seqs at the end of the log that were taken and are not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The first of them.
    pub(crate) from: Seq,
    /// The last seq taken when they were last looked at.
    pub(crate) bound: Seq,
    pub(crate) since: Duration,
    pub(crate) looked_at: Duration,
}

impl PostgresSession {
    /// Opens a session on a fresh connection.
    pub(crate) async fn open(store: &PostgresStore, lease: &Lease) -> Result<Self, StoreError> {
        let mut connection = store.open_session_connection().await?;
        store.enter(&mut connection).await?;
        let incarnation = Incarnation::read(&mut connection, store.statements()).await?;
        let state = LeaseState::read(store, &mut connection, lease).await?;
        let stored: Incarnation = state.incarnation.parse()?;
        state.check(store, lease, &incarnation, &stored)?;
        let token = Uuid::now_v7();
        store
            .query(OPEN_SESSION)
            .bind(&lease.destination)
            .bind(token)
            .bind(lease.epoch)
            .execute(&mut connection)
            .await
            .or_store("open the session")?;
        let routes = Routes::read(&mut connection, store.statements(), &lease.destination).await?;
        let gaps = read_gaps(store, &mut connection, lease).await?;
        let keys = read_keys(store, &mut connection, lease).await?;
        store.leave(&mut connection).await?;
        Ok(Self {
            store: store.clone(),
            connection,
            lease: lease.clone(),
            route_version: state.route_version,
            token,
            routes,
            counts_unrouted: state.counts,
            gaps: Gaps::load(gaps, incarnation == stored, Duration::ZERO),
            position: state.cursor,
            cursor: state.cursor,
            high_water: state.high_water,
            sequence: Sequence::default(),
            tail: None,
            unrouted: Vec::new(),
            interner: Interner::default(),
            started: Instant::now(),
            opened: Opened {
                destination: state.destination,
                incarnation: incarnation.to_string(),
                cursor: state.cursor,
                low_water: state.low_water,
                waiting: state.waiting,
                keys,
                control_version: state.control_version,
            },
        })
    }

    /// Time since the session opened, for the ages of gaps.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn enter(&mut self) -> Result<(), StoreError> {
        self.store.enter(&mut self.connection).await
    }

    async fn leave(&mut self) -> Result<(), StoreError> {
        self.store.leave(&mut self.connection).await
    }

    /// Reads the last seq taken.
    ///
    /// # Errors
    /// [`StoreError::SequenceBehind`] when it stands below what was read already.
    pub(crate) async fn read_sequence(&mut self) -> Result<(), StoreError> {
        let row = self
            .store
            .query(POLL)
            .fetch_one(&mut self.connection)
            .await
            .or_store("read the sequence")?;
        let last: Seq = row.get(0);
        check_sequence(&self.store, &self.lease.destination, last, self.position)?;
        self.sequence = Sequence { last, fresh: true };
        Ok(())
    }
}

#[async_trait]
impl Session for PostgresSession {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    async fn poll(&mut self) -> Result<bool, StoreError> {
        self.enter().await?;
        self.read_sequence().await?;
        self.leave().await?;
        let now = self.now();
        let moved = match &self.tail {
            // Nothing was taken since the last look: what was taken before may have committed.
            Some(tail) if tail.bound == self.sequence.last => tail.wants_a_look(now),
            _ => self.sequence.last > self.position,
        };
        Ok(moved || self.gaps.wants_a_look(now))
    }

    async fn page(&mut self, limit: PageLimit) -> Result<Page, StoreError> {
        self.enter().await?;
        let page = page::read(self, limit).await?;
        self.leave().await?;
        Ok(page)
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: PageLimit) -> Result<Due, StoreError> {
        self.enter().await?;
        let due = session_waiting::due(self, now, limit).await?;
        self.leave().await?;
        Ok(due)
    }

    async fn parked(&mut self, key: &KeyRef, limit: PageLimit) -> Result<Parked, StoreError> {
        self.enter().await?;
        let parked = session_waiting::parked(self, key, limit).await?;
        self.leave().await?;
        Ok(parked)
    }

    async fn requests(&mut self) -> Result<Vec<Request>, StoreError> {
        self.enter().await?;
        let requests = session_waiting::requests(self).await?;
        self.leave().await?;
        Ok(requests)
    }

    fn gap_floor(&self) -> Seq {
        self.gaps.lowest().unwrap_or(self.position + 1)
    }

    async fn settle(&mut self, settlement: &Settlement) -> Result<(), StoreError> {
        self.enter().await?;
        settle::settle(self, settlement).await?;
        self.leave().await
    }
}

impl Tail {
    fn wants_a_look(&self, now: Duration) -> bool {
        let age = now.saturating_sub(self.since);
        now.saturating_sub(self.looked_at) >= crate::gaps::look_period(age)
    }
}

/// A destination with its lease and progress, as `open_lease.sql` answers.
struct LeaseState {
    owner: Option<String>,
    epoch: i64,
    route_version: i64,
    control_version: i64,
    destination: Destination,
    counts: bool,
    last_seq: Seq,
    incarnation: String,
    cursor: Seq,
    high_water: Seq,
    low_water: Seq,
    waiting: u64,
}

impl LeaseState {
    async fn read(
        store: &PostgresStore,
        connection: &mut PgConnection,
        lease: &Lease,
    ) -> Result<Self, StoreError> {
        let doing = "open the session";
        let row = store
            .query(OPEN_LEASE)
            .bind(&lease.destination)
            .fetch_optional(connection)
            .await
            .or_store(doing)?;
        let Some(row) = row else {
            return Err(StoreError::NotFound {
                what: "destination",
                name: lease.destination.clone(),
                hint: String::new(),
            });
        };
        Self::from_row(&row).or_store(doing)?.ok_or_else(|| {
            damaged(
                doing,
                format!("{:?} was never given a cursor", lease.destination),
            )
        })
    }

    /// `None` when the destination has no progress.
    fn from_row(row: &PgRow) -> sqlx::Result<Option<Self>> {
        let Some(incarnation) = row.try_get("incarnation")? else {
            return Ok(None);
        };
        let Json(mut destination): Json<Destination> = row.try_get("config")?;
        destination.paused = row.try_get("paused")?;
        Ok(Some(Self {
            owner: row.try_get("owner")?,
            epoch: row.try_get::<Option<i64>, _>("epoch")?.unwrap_or_default(),
            route_version: row
                .try_get::<Option<i64>, _>("route_version")?
                .unwrap_or_default(),
            control_version: row.try_get("control_version")?,
            destination,
            counts: row.try_get("counts")?,
            last_seq: row.try_get("last_seq")?,
            incarnation,
            cursor: row.try_get("cursor")?,
            high_water: row.try_get("high_water")?,
            low_water: row.try_get("low_water")?,
            waiting: row.try_get::<i64, _>("waiting")?.unsigned_abs(),
        }))
    }

    /// The lease is ours, the store is the one progress was written on, and the sequence has not
    /// gone back.
    fn check(
        &self,
        store: &PostgresStore,
        lease: &Lease,
        found: &Incarnation,
        stored: &Incarnation,
    ) -> Result<(), StoreError> {
        if self.epoch != lease.epoch || self.owner.as_deref() != Some(&lease.owner) {
            return Err(StoreError::LeaseLost {
                destination: lease.destination.clone(),
                epoch: lease.epoch,
            });
        }
        if !found.same_store(stored) {
            return Err(StoreError::Foreign {
                destination: lease.destination.clone(),
                stored: stored.to_string(),
                found: found.to_string(),
            });
        }
        let high_water = self.high_water.max(self.cursor);
        check_sequence(store, &lease.destination, self.last_seq, high_water)
    }
}

fn check_sequence(
    store: &PostgresStore,
    destination: &str,
    last: Seq,
    high_water: Seq,
) -> Result<(), StoreError> {
    if last >= high_water {
        return Ok(());
    }
    let sequence = format!(
        "{}.message_seq",
        outbox_migrations::quote_identifier(store.schema())
    );
    Err(StoreError::SequenceBehind {
        destination: destination.to_owned(),
        last,
        high_water,
        cure: format!(
            "select setval({}, {high_water})",
            outbox_migrations::quote_literal(&sequence)
        ),
    })
}

async fn read_gaps(
    store: &PostgresStore,
    connection: &mut PgConnection,
    lease: &Lease,
) -> Result<Vec<StoredGap>, StoreError> {
    let doing = "read the open gaps";
    let rows = store
        .query(OPEN_GAPS)
        .bind(&lease.destination)
        .fetch_all(connection)
        .await
        .or_store(doing)?;
    let gap = |row: &PgRow| {
        let fence: &str = row.get(2);
        Ok(StoredGap {
            lo: row.get(0),
            hi: row.get(1),
            fence: Some(
                fence
                    .parse()
                    .map_err(|_| damaged(doing, format!("fence {fence:?}")))?,
            ),
            age: Duration::try_from_secs_f64(row.get(3)).unwrap_or_default(),
        })
    };
    rows.iter().map(gap).collect()
}

async fn read_keys(
    store: &PostgresStore,
    connection: &mut PgConnection,
    lease: &Lease,
) -> Result<Vec<BlockedKey>, StoreError> {
    let rows = store
        .query(OPEN_KEYS)
        .bind(&lease.destination)
        .fetch_all(connection)
        .await
        .or_store("read the blocked keys")?;
    let count = |row: &PgRow, at: usize| u32::try_from(row.get::<i64, _>(at)).unwrap_or(u32::MAX);
    let key = |row: &PgRow| BlockedKey {
        key: KeyRef {
            topic: row.get::<&str, _>(0).into(),
            key: row.get::<&str, _>(1).into(),
        },
        blockers: count(row, 2),
        parked: count(row, 3),
        marker: row.get(4),
    };
    Ok(rows.iter().map(key).collect())
}
