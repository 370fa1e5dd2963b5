//! Messages that no route covers: counted once, whoever passes them.
//!
//! Every session sees them. In the store a watermark says up to where they were counted; the settle
//! that moves a cursor past it counts those in between and moves it, in the same transaction. In
//! pages only one destination, the first that is not paused, reports them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use outbox_core::{Seq, StoreError, Unrouted};
use sqlx::SqliteConnection;

use crate::error::failed;
use crate::row::get;

/// What one session has seen and not settled.
#[derive(Debug)]
pub(crate) struct Uncovered {
    seen: VecDeque<(Seq, Arc<str>)>,
    /// Nothing at or below it was looked at by this session.
    behind: Seq,
    /// This destination reports in its pages.
    reports: bool,
    /// Up to here the store has counted.
    counted: Seq,
    page: BTreeMap<Arc<str>, Unrouted>,
}

impl Uncovered {
    /// A session that reads on behind `cursor`.
    pub(crate) fn behind(cursor: Seq) -> Self {
        Self {
            seen: VecDeque::new(),
            behind: cursor,
            reports: false,
            counted: 0,
            page: BTreeMap::new(),
        }
    }

    /// Reads the watermark of the page's moment.
    pub(crate) async fn begin_page(
        &mut self,
        tx: &mut SqliteConnection,
        reports: bool,
    ) -> Result<(), StoreError> {
        self.counted = watermark(tx).await?;
        self.reports = reports;
        Ok(())
    }

    /// A message without a route went by.
    pub(crate) fn saw(&mut self, seq: Seq, topic: Arc<str>) {
        if seq <= self.counted {
            return;
        }
        if self.reports {
            add(&mut self.page, seq, &topic);
        }
        self.seen.push_back((seq, topic));
    }

    /// What the page reports.
    pub(crate) fn end_page(&mut self) -> Vec<Unrouted> {
        std::mem::take(&mut self.page).into_values().collect()
    }

    /// Counts what the cursor passes, unless another destination is behind and will.
    pub(crate) async fn settle(
        &self,
        tx: &mut SqliteConnection,
        through: Seq,
    ) -> Result<(), StoreError> {
        const MOVE: &str = "UPDATE outbox_store SET unrouted_through = ?";
        const COUNT: &str = "INSERT INTO outbox_unrouted (topic, count, first, last) \
             VALUES (?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE SET count = count + excluded.count, \
             first = min(first, excluded.first), last = max(last, excluded.last)";
        let counted = watermark(tx).await?;
        let whole = self.behind <= counted || self.reports;
        if through <= counted || !whole {
            return Ok(());
        }
        let mut topics = BTreeMap::new();
        for (seq, topic) in self.seen.iter().take_while(|(seq, _)| *seq <= through) {
            if *seq > counted {
                add(&mut topics, *seq, topic);
            }
        }
        for unrouted in topics.into_values() {
            let count = sqlx::query(COUNT)
                .bind(unrouted.topic)
                .bind(i64::try_from(unrouted.count).unwrap_or(i64::MAX))
                .bind(unrouted.first)
                .bind(unrouted.last);
            count
                .execute(&mut *tx)
                .await
                .map_err(|e| failed("count what no route covers", e))?;
        }
        let moved = sqlx::query(MOVE).bind(through).execute(tx).await;
        moved
            .map(drop)
            .map_err(|e| failed("count what no route covers", e))
    }

    /// That settlement is committed.
    pub(crate) fn settled(&mut self, through: Seq) {
        while self.seen.front().is_some_and(|(seq, _)| *seq <= through) {
            self.seen.pop_front();
        }
    }
}

fn add(topics: &mut BTreeMap<Arc<str>, Unrouted>, seq: Seq, topic: &Arc<str>) {
    let one = topics.entry(topic.clone()).or_insert_with(|| Unrouted {
        topic: topic.to_string(),
        count: 0,
        first: seq,
        last: seq,
    });
    one.count += 1;
    one.last = seq;
}

async fn watermark(tx: &mut SqliteConnection) -> Result<Seq, StoreError> {
    let row = sqlx::query("SELECT unrouted_through FROM outbox_store")
        .fetch_one(tx)
        .await;
    get(
        &row.map_err(|e| failed("count what no route covers", e))?,
        0,
    )
}
