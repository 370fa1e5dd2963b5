//! Gaps and fences: every way a seq can be missing, against a reader that must neither skip nor repeat.
//!
//! - `open_transactions`: what commits late.
//! - `rollbacks`: what never comes.
//! - `many_writers`: both, at random.

mod many_writers;
mod open_transactions;
mod rollbacks;

use std::time::{Duration, Instant};

use outbox_core::{Message, Page, PageLimit, Pending, Seq, Session, Settlement};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::messages;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::stage::Stage;

/// Time within which a reader must have caught up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A reader that settles every page at once, and keeps what it read.
struct Reader {
    session: Box<dyn Session>,
    messages: Vec<Pending>,
    gaps_open_max: u64,
    last: Page,
}

impl Reader {
    async fn new(stage: &Stage) -> Self {
        Self {
            session: stage.lead_all("d").await,
            messages: Vec::new(),
            gaps_open_max: 0,
            last: Page::default(),
        }
    }

    /// One page, settled.
    async fn turn(&mut self) {
        let page = self.session.page(PageLimit::default()).await.expect("page");
        let late = page
            .messages
            .iter()
            .filter(|m| m.late)
            .map(|m| m.seq)
            .collect();
        let settlement = Settlement {
            through: page.through,
            late,
            ..Settlement::default()
        };
        self.session.settle(&settlement).await.expect("settle");
        self.gaps_open_max = self.gaps_open_max.max(page.gaps_open);
        self.last = page.clone();
        self.messages.extend(page.messages);
    }

    /// Turns until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < TIMEOUT,
                "{what}: not in time; last {:?}",
                self.last
            );
            self.turn().await;
        }
    }

    async fn read(&mut self, count: usize) {
        self.until("messages", |r| r.messages.len() >= count).await;
        assert_eq!(self.messages.len(), count, "more came than were committed");
    }

    async fn no_gap_open(&mut self) {
        self.until("gaps close", |r| {
            r.last.gaps_open == 0 && r.last.through < r.last.from
        })
        .await;
    }

    fn payloads(&self) -> Vec<String> {
        let text = |m: &Pending| String::from_utf8_lossy(&m.payload).into_owned();
        self.messages.iter().map(text).collect()
    }
}

/// Enqueues one message in whatever transaction `connection` is in.
async fn enqueue(connection: &mut PgConnection, payload: &str) -> Seq {
    let message = Message::bytes("t", payload.to_owned());
    Outbox::default()
        .enqueue(&mut *connection, message)
        .await
        .expect("enqueue");
    let last = "select currval('outbox.message_seq')";
    sqlx::query_scalar(last)
        .fetch_one(connection)
        .await
        .expect("currval")
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = sql.to_owned();
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn connect(stage: &Stage) -> PgConnection {
    PgConnection::connect(stage.database.url())
        .await
        .expect("connect")
}

/// Takes 100 values: `nextval` takes an xid by itself every 32nd time, and hides what must be seen.
async fn warm_up(stage: &Stage) {
    stage.enqueue(messages("warm", 100)).await;
}
