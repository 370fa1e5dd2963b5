//! One leader's conversation: pages, due and parked messages, requests.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use outbox_core::{
    Due, KeyRef, Lease, Opened, Page, PageLimit, Parked, Request, Seq, Session, Settlement,
    StoreError, Waiting,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use crate::connect::options;
use crate::coverage::Routes;
use crate::error::failed;
use crate::filling::Filling;
use crate::opening::load;
use crate::parking::{Behind, followers, marker, parked_rows};
use crate::requested::requests;
use crate::row::{
    DELIVERY, Strings, delivery_columns, from_micros, get, message_columns, pending, to_micros,
    with_row,
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
