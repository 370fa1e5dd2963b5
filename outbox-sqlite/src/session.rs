//! One leader's conversation: pages, due and parked messages, requests.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use outbox_core::{
    Due, Exception, KeyRef, Lease, Opened, Page, PageLimit, Parked, Pending, Request,
    RequestAction, Requested, Seq, Session, Settlement, StoreError, Waiting,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use crate::connect::options;
use crate::coverage::Routes;
use crate::error::{corrupt, failed};
use crate::limits::{MARKER_SCAN_SEQS, REQUEST_MESSAGES_MAX};
use crate::opening::load;
use crate::row::{
    Strings, delivery_columns, exception, from_micros, get, message_columns, pending, to_micros,
};
use crate::settle;
use crate::store::{SqliteStore, last_seq};
use crate::unrouted::Uncovered;

/// A session on a connection of its own.
pub(crate) struct SqliteSession {
    store: SqliteStore,
    connection: SqliteConnection,
    lease: Lease,
    opened: Opened,
    /// Last seq that a page has passed.
    read_to: Seq,
    /// The cursor as this session settled it last.
    settled: Seq,
    routes: Routes,
    uncovered: Uncovered,
    strings: Strings,
}

impl SqliteSession {
    /// Verifies the lease and the file, and loads what the store knows.
    pub(crate) async fn open(store: SqliteStore, lease: &Lease) -> Result<Self, StoreError> {
        let connected = options(store.path()).connect().await;
        let mut connection = connected.map_err(|e| failed("open the file", e))?;
        let mut tx = connection
            .begin()
            .await
            .map_err(|e| failed("begin to read", e))?;
        let opened = load(&store, &mut tx, lease).await?;
        let routes = Routes::read(&mut tx, opened.cursor).await?;
        tx.rollback().await.map_err(|e| failed("end the read", e))?;
        Ok(Self {
            store,
            connection,
            lease: lease.clone(),
            read_to: opened.cursor,
            settled: opened.cursor,
            uncovered: Uncovered::behind(opened.cursor),
            opened,
            routes,
            strings: Strings::default(),
        })
    }
}

/// A page or another bounded list that is filling up.
struct Filling {
    limit: PageLimit,
    rows: usize,
    bytes: usize,
}

impl Filling {
    fn new(limit: PageLimit) -> Self {
        Self {
            limit,
            rows: 0,
            bytes: 0,
        }
    }

    /// Whether one more of `bytes` still fits; the first always does.
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.rows < self.limit.rows.max(1)
            && (self.rows == 0 || self.bytes + bytes <= self.limit.bytes);
        self.rows += 1;
        self.bytes += bytes;
        fits
    }

    /// Rows to ask for: one more than fit tells whether there are more.
    fn ask(&self) -> i64 {
        i64::try_from(self.limit.rows.max(1))
            .unwrap_or(i64::MAX)
            .saturating_add(1)
    }
}

/// Columns of a page's row behind the message: whether it is covered.
const COVERED: usize = 10;

/// The messages behind a seq, payloads of other destinations left out.
fn page_sql(covered: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT {}, CASE WHEN {covered} THEN m.payload ELSE x'' END, {covered} \
         FROM outbox_message m WHERE m.seq > ?1 ORDER BY m.seq LIMIT ?2",
        message_columns!()
    ))
}

/// The followers of a key from a seq on that have no row of their own.
fn followers_sql(covered: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT {}, m.payload FROM outbox_message m \
         WHERE m.seq >= ?2 AND m.seq <= ?3 AND m.topic = ?4 AND m.key = ?5 AND {covered} \
         AND NOT EXISTS (SELECT 1 FROM outbox_delivery d WHERE d.destination = ?1 AND d.seq = m.seq) \
         ORDER BY m.seq LIMIT ?6",
        message_columns!()
    ))
}

/// Delivery rows with a time, earliest first, whether due or not.
const DUE: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", m.payload, ",
    delivery_columns!(),
    " FROM outbox_delivery d JOIN outbox_message m ON m.seq = d.seq \
     WHERE d.destination = ?1 AND d.next_attempt IS NOT NULL \
     AND d.state IN ('retrying', 'scheduled') ORDER BY d.next_attempt, d.seq LIMIT ?2"
);

/// Parked rows of a key.
const PARKED: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", m.payload, ",
    delivery_columns!(),
    " FROM outbox_delivery d JOIN outbox_message m ON m.seq = d.seq \
     WHERE d.destination = ?1 AND d.topic = ?2 AND d.key = ?3 AND d.state = 'parked' \
     ORDER BY d.seq LIMIT ?4"
);

const MARKER: &str =
    "SELECT from_seq FROM outbox_parked_key WHERE destination = ? AND topic = ? AND key = ?";

const REQUESTS: &str = "SELECT id, action, seqs, json_array_length(seqs) FROM outbox_request \
     WHERE destination = ? ORDER BY id LIMIT ?";

/// The messages of a request, with their rows.
const REQUESTED: &str = concat!(
    "SELECT m.seq, m.topic, m.key, ",
    delivery_columns!(),
    " FROM json_each(?1) j JOIN outbox_message m ON m.seq = j.value \
     LEFT JOIN outbox_delivery d ON d.destination = ?2 AND d.seq = m.seq ORDER BY m.seq"
);

/// Columns of [`DUE`] and [`PARKED`] before those of the delivery row.
const DELIVERY: usize = 10;

/// A message with what its delivery row adds.
fn with_row(row: &SqliteRow, strings: &mut Strings) -> Result<(Pending, Exception), StoreError> {
    let mut message = pending(row, strings)?;
    let found = exception(row, DELIVERY)?;
    let found = found.ok_or_else(|| corrupt("the delivery row of seq", message.seq))?;
    message.attempts = found.attempts;
    message.redelivery = found.redelivery;
    Ok((message, found))
}

#[async_trait]
impl Session for SqliteSession {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    async fn poll(&mut self) -> Result<bool, StoreError> {
        Ok(last_seq(&mut self.connection).await? > self.read_to)
    }

    /// One read transaction: routes and messages of the same moment, so that a change of patterns
    /// is never passed by.
    async fn page(&mut self, limit: PageLimit) -> Result<Page, StoreError> {
        const CONTEXT: &str = "read a page";
        let (destination, from) = (&self.lease.destination, self.read_to + 1);
        let mut tx = self
            .connection
            .begin()
            .await
            .map_err(|e| failed(CONTEXT, e))?;
        self.routes = Routes::read(&mut tx, self.read_to).await?;
        self.uncovered
            .begin_page(&mut tx, self.routes.counts_unrouted(destination))
            .await?;
        let mut page = Page {
            from,
            through: self.read_to,
            ..Page::default()
        };
        let mut filling = Filling::new(limit);
        let mut rows = sqlx::query(page_sql(&self.routes.condition(destination)))
            .bind(self.read_to)
            .bind(filling.ask())
            .fetch(&mut *tx);
        while let Some(row) = rows.try_next().await.map_err(|e| failed(CONTEXT, e))? {
            let message = pending(&row, &mut self.strings)?;
            let covered: bool = get(&row, COVERED)?;
            if !filling.takes(if covered { message.size() } else { 0 }) {
                page.more = true;
                break;
            }
            page.through = message.seq;
            if covered {
                page.messages.push(message);
            } else if !self.routes.cover(&message.topic, message.seq) {
                self.uncovered.saw(message.seq, message.topic);
            }
        }
        drop(rows);
        tx.rollback().await.map_err(|e| failed(CONTEXT, e))?;
        self.store.witness().hand_out(page.through)?;
        self.read_to = page.through;
        page.unrouted = self.uncovered.end_page();
        Ok(page)
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: PageLimit) -> Result<Due, StoreError> {
        let (mut due, now) = (Due::default(), to_micros(now));
        let mut filling = Filling::new(limit);
        let mut rows = sqlx::query(DUE)
            .bind(self.lease.destination.clone())
            .bind(filling.ask())
            .fetch(&mut self.connection);
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|e| failed("read what is due", e))?
        {
            let at: i64 = get(&row, DELIVERY + 5)?;
            let (message, found) = with_row(&row, &mut self.strings)?;
            if at > now || !filling.takes(message.size()) {
                due.next = Some(from_micros(at)?);
                break;
            }
            let (state, blocks_key) = (found.state, found.blocks_key);
            due.messages.push(Waiting {
                message,
                state,
                blocks_key,
            });
        }
        Ok(due)
    }

    async fn parked(&mut self, key: &KeyRef, limit: PageLimit) -> Result<Parked, StoreError> {
        let begun = self.connection.begin().await;
        let mut tx = begun.map_err(|e| failed("read parked messages", e))?;
        let (destination, strings) = (&self.lease.destination, &mut self.strings);
        let mut parked = parked_rows(&mut tx, destination, key, limit, strings).await?;
        let marker = marker(&mut tx, destination, key).await?;
        if !parked.messages.is_empty() {
            parked.more |= marker.is_some();
        } else if let Some(from) = marker {
            // Every change of routes is behind this, or in the routes of the last page.
            let routes = Routes::read(&mut tx, 0).await?;
            let covered = routes.condition(destination);
            let behind = Behind {
                destination,
                key,
                covered: &covered,
                from,
                to: self.read_to,
            };
            parked = followers(&mut tx, behind, limit, strings).await?;
        }
        tx.rollback()
            .await
            .map_err(|e| failed("read parked messages", e))?;
        Ok(parked)
    }

    async fn requests(&mut self) -> Result<Vec<Request>, StoreError> {
        let begun = self.connection.begin().await;
        let mut tx = begun.map_err(|e| failed("read requests", e))?;
        let requests = requests(&mut tx, &self.lease.destination).await?;
        tx.rollback()
            .await
            .map_err(|e| failed("read requests", e))?;
        Ok(requests)
    }

    async fn settle(&mut self, settlement: &Settlement) -> Result<(), StoreError> {
        if settlement.through <= self.settled && settle::is_empty(settlement) {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let through = settlement.through.max(self.settled);
        settle::write(&mut tx, &self.lease, settlement, self.read_to).await?;
        self.uncovered.settle(&mut tx, through).await?;
        crate::store::commit(tx).await?;
        self.settled = through;
        self.uncovered.settled(through);
        Ok(())
    }
}

/// The first parked rows of `key`.
async fn parked_rows(
    tx: &mut SqliteConnection,
    destination: &str,
    key: &KeyRef,
    limit: PageLimit,
    strings: &mut Strings,
) -> Result<Parked, StoreError> {
    let (mut parked, mut filling) = (Parked::default(), Filling::new(limit));
    let mut rows = sqlx::query(PARKED)
        .bind(destination.to_owned())
        .bind(key.topic.to_string())
        .bind(key.key.to_string())
        .bind(filling.ask())
        .fetch(tx);
    while let Some(row) = rows
        .try_next()
        .await
        .map_err(|e| failed("read parked messages", e))?
    {
        let (message, _) = with_row(&row, strings)?;
        if !filling.takes(message.size()) {
            parked.more = true;
            break;
        }
        parked.messages.push(message);
    }
    Ok(parked)
}

/// From which seq on the messages of `key` are parked without a row.
async fn marker(
    tx: &mut SqliteConnection,
    destination: &str,
    key: &KeyRef,
) -> Result<Option<Seq>, StoreError> {
    let row = sqlx::query(MARKER)
        .bind(destination.to_owned())
        .bind(key.topic.to_string())
        .bind(key.key.to_string())
        .fetch_optional(tx)
        .await;
    let row = row.map_err(|e| failed("read the marker", e))?;
    row.map(|row| get(&row, 0)).transpose()
}

/// What is behind a marker.
struct Behind<'a> {
    destination: &'a str,
    key: &'a KeyRef,
    covered: &'a str,
    from: Seq,
    /// The session's read position.
    to: Seq,
}

/// The followers behind a marker, re-read from a bounded stretch of the log.
async fn followers(
    tx: &mut SqliteConnection,
    behind: Behind<'_>,
    limit: PageLimit,
    strings: &mut Strings,
) -> Result<Parked, StoreError> {
    let end = behind
        .to
        .min(behind.from.saturating_add(MARKER_SCAN_SEQS - 1));
    let mut parked = Parked {
        through: Some(end.max(behind.from - 1)),
        more: end < behind.to,
        ..Parked::default()
    };
    let mut filling = Filling::new(limit);
    let mut rows = sqlx::query(followers_sql(behind.covered))
        .bind(behind.destination.to_owned())
        .bind(behind.from)
        .bind(end)
        .bind(behind.key.topic.to_string())
        .bind(behind.key.key.to_string())
        .bind(filling.ask())
        .fetch(tx);
    while let Some(row) = rows
        .try_next()
        .await
        .map_err(|e| failed("read followers", e))?
    {
        let message = pending(&row, strings)?;
        if !filling.takes(message.size()) {
            // Whatever lies between the last that fits and this one is not a follower.
            parked.through = Some(message.seq - 1);
            parked.more = true;
            break;
        }
        parked.messages.push(message);
    }
    Ok(parked)
}

/// Whole requests, oldest first, up to the bound.
async fn requests(
    tx: &mut SqliteConnection,
    destination: &str,
) -> Result<Vec<Request>, StoreError> {
    let rows = sqlx::query(REQUESTS)
        .bind(destination.to_owned())
        .bind(REQUEST_MESSAGES_MAX as i64)
        .fetch_all(&mut *tx)
        .await;
    let (mut found, mut named) = (Vec::new(), 0_usize);
    for row in rows.map_err(|e| failed("read requests", e))? {
        named += usize::try_from(get::<i64>(&row, 3)?).unwrap_or_default();
        if named > REQUEST_MESSAGES_MAX && !found.is_empty() {
            break;
        }
        let word: &str = get(&row, 1)?;
        let action = RequestAction::from_word(word).ok_or_else(|| corrupt("the action", word))?;
        let messages = requested(tx, destination, get(&row, 2)?).await?;
        found.push(Request {
            id: get(&row, 0)?,
            action,
            messages,
        });
    }
    Ok(found)
}

async fn requested(
    tx: &mut SqliteConnection,
    destination: &str,
    seqs: String,
) -> Result<Vec<Requested>, StoreError> {
    let rows = sqlx::query(REQUESTED)
        .bind(seqs)
        .bind(destination.to_owned())
        .fetch_all(tx)
        .await;
    let mut messages = Vec::new();
    for row in rows.map_err(|e| failed("read requests", e))? {
        messages.push(Requested {
            seq: get(&row, 0)?,
            topic: get::<&str>(&row, 1)?.into(),
            key: get::<Option<&str>>(&row, 2)?.map(Into::into),
            exception: exception(&row, 3)?,
        });
    }
    Ok(messages)
}
