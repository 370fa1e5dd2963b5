//! A random walk over the contract, beside a model that fits in memory.
//!
//! Enqueues, roll-backs, pages, settlements, retries, transactions left open and crashes come in
//! random order; after each step the store must agree with the model. A failing seed is printed;
//! `OUTBOX_TEST_SEED` replays it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use outbox_core::{
    DeliveryState, Exception, Message, PageLimit, Pending, Seq, Session, Settlement, StoreError,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::stage::*;
use super::{Fixture, Open};

/// Committed messages of one walk.
const MESSAGES: usize = 10_000;
/// Largest transaction of the walk.
const BATCH_MAX: usize = 60;
/// Time within which everything committed must come at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Nothing is skipped, nothing comes twice beyond what a crash allows, and the order is by seq.
pub async fn ten_thousand_messages_through_crashes_and_rollbacks_lose_nothing(f: &dyn Fixture) {
    let given = std::env::var("OUTBOX_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = Seed(given.unwrap_or_else(rand::random));
    f.admin()
        .declare(&[destination("d", &["t.*"])])
        .await
        .expect("declare");
    let session = lead(&*f.store(), "d", "leader-0").await;
    let mut walk = Walk::new(f, session, StdRng::seed_from_u64(seed.0));
    while walk.committed.len() < MESSAGES {
        walk.step().await;
    }
    walk.finish().await;
}

/// Prints itself when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with OUTBOX_TEST_SEED={}", self.0);
        }
    }
}

/// What the model knows of a committed message.
struct Known {
    /// Its place among all messages enqueued.
    place: usize,
    /// Its transaction was left open for a while, so that it may come late.
    may_be_late: bool,
    /// Whether the destination covers it.
    covered: bool,
}

/// A transaction left open, and what it will have committed.
type Left = (Box<dyn Open>, Vec<(Uuid, Known)>);

struct Walk<'a> {
    fixture: &'a dyn Fixture,
    session: Box<dyn Session>,
    rng: StdRng,
    leaders: usize,
    enqueued: usize,
    open: Vec<Left>,
    committed: HashMap<Uuid, Known>,
    seqs: BTreeMap<Seq, Uuid>,
    /// Settled as sent.
    sent: HashSet<Uuid>,
    /// Settled with a delivery row.
    rows: BTreeMap<Seq, Exception>,
    cursor: Seq,
    /// Read by this session and not settled, in the order they came.
    unsettled: Vec<Pending>,
    /// Last seq of the last page of this session.
    read_to: Seq,
}

impl<'a> Walk<'a> {
    fn new(fixture: &'a dyn Fixture, session: Box<dyn Session>, rng: StdRng) -> Self {
        Self {
            fixture,
            session,
            rng,
            leaders: 1,
            enqueued: 0,
            open: Vec::new(),
            committed: HashMap::new(),
            seqs: BTreeMap::new(),
            sent: HashSet::new(),
            rows: BTreeMap::new(),
            cursor: 0,
            unsettled: Vec::new(),
            read_to: 0,
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => self.enqueue().await,
            30..38 => self.roll_back().await,
            38..45 if self.fixture.commits_late() => self.leave_open().await,
            45..52 => self.close().await,
            52..74 => self.page().await,
            74..90 => self.settle().await,
            90..97 => self.retry().await,
            _ => self.crash().await,
        }
    }

    /// A batch for random topics and keys.
    fn batch(&mut self, may_be_late: bool) -> (Vec<Message>, Vec<(Uuid, Known)>) {
        let count = self.rng.random_range(1..=BATCH_MAX);
        let mut known = Vec::with_capacity(count);
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            let topic = ["t.a", "t.b", "x.c"][self.rng.random_range(0..3)];
            let mut message = Message::bytes(topic, self.enqueued.to_string());
            if self.rng.random_bool(0.8) {
                message = message.key(self.rng.random_range(0..20));
            }
            let (place, covered) = (self.enqueued, topic != "x.c");
            known.push((
                message.id,
                Known {
                    place,
                    may_be_late,
                    covered,
                },
            ));
            messages.push(message);
            self.enqueued += 1;
        }
        (messages, known)
    }

    async fn enqueue(&mut self) {
        let (messages, known) = self.batch(false);
        self.fixture.enqueue(messages).await.expect("enqueue");
        self.committed.extend(known);
    }

    async fn roll_back(&mut self) {
        let (messages, _) = self.batch(false);
        self.fixture
            .enqueue_rolled_back(messages)
            .await
            .expect("enqueue");
    }

    async fn leave_open(&mut self) {
        if self.open.len() < 4 {
            let (messages, known) = self.batch(true);
            let open = self.fixture.enqueue_open(messages).await.expect("enqueue");
            self.open.push((open, known));
        }
    }

    async fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.open.len());
        let (open, known) = self.open.swap_remove(at);
        if self.rng.random_bool(0.7) {
            open.commit().await;
            self.committed.extend(known);
        } else {
            open.roll_back().await;
        }
    }

    async fn page(&mut self) {
        let rows = self.rng.random_range(1..200);
        let bytes = if self.rng.random_bool(0.2) {
            50
        } else {
            1 << 20
        };
        let page = self
            .session
            .page(PageLimit { rows, bytes })
            .await
            .expect("page");
        assert_eq!(page.from, self.read_to + 1, "pages touch");
        assert!(page.through >= page.from - 1);
        let mut last = self.read_to;
        for message in &page.messages {
            self.check(message);
            if message.late {
                assert!(message.seq <= self.read_to, "only what was passed is late");
            } else {
                assert!(message.seq > last && message.seq <= page.through, "by seq");
                last = message.seq;
            }
        }
        self.read_to = page.through;
        self.unsettled.extend(page.messages);
    }

    /// A message that comes must be committed, covered, and due to come.
    fn check(&mut self, message: &Pending) {
        let known = self
            .committed
            .get(&message.id)
            .expect("committed, not rolled back");
        assert!(known.covered, "no route covers {}", message.topic);
        assert_eq!(message.payload, known.place.to_string().as_bytes());
        assert!(
            known.may_be_late || !message.late,
            "{} was never overtaken",
            message.seq
        );
        assert!(
            !self.sent.contains(&message.id),
            "seq {} came after it was settled",
            message.seq
        );
        assert!(
            !self.rows.contains_key(&message.seq),
            "seq {} has a row",
            message.seq
        );
        let again = self.unsettled.iter().any(|m| m.seq == message.seq);
        assert!(!again, "seq {} came twice to one session", message.seq);
        let before = self.seqs.insert(message.seq, message.id);
        assert!(
            before.is_none_or(|id| id == message.id),
            "a seq was used twice"
        );
    }

    async fn settle(&mut self) {
        let count = self.rng.random_range(0..=self.unsettled.len());
        let whole = count == self.unsettled.len();
        let settled: Vec<_> = self.unsettled.drain(..count).collect();
        let in_order = settled.iter().filter(|m| !m.late).map(|m| m.seq).max();
        let through = if whole {
            self.read_to
        } else {
            in_order.unwrap_or(0)
        };
        let late = settled.iter().filter(|m| m.late).map(|m| m.seq).collect();
        let mut upsert = Vec::new();
        for message in &settled {
            match self.rng.random_range(0..20) {
                0 => upsert.push(row(message, DeliveryState::Retrying)),
                1 => upsert.push(row(message, DeliveryState::Parked)),
                2 => upsert.push(row(message, DeliveryState::Dead)),
                _ => assert!(self.sent.insert(message.id)),
            }
        }
        self.rows.extend(upsert.iter().map(|r| (r.seq, r.clone())));
        let settlement = Settlement {
            through,
            late,
            upsert,
            ..Settlement::default()
        };
        self.session.settle(&settlement).await.expect("settle");
        self.cursor = self.cursor.max(through);
    }

    /// Sends what is due, or gives it up.
    async fn retry(&mut self) {
        let rows = self.rng.random_range(1..20);
        let limit = PageLimit {
            rows,
            bytes: 1 << 20,
        };
        let due = self.session.due(now(), limit).await.expect("due").messages;
        let retrying = |r: &&Exception| r.state == DeliveryState::Retrying;
        let waiting = self.rows.values().filter(retrying).count();
        assert_eq!(
            due.len(),
            waiting.min(rows),
            "every retry is due at once here"
        );
        let mut settlement = Settlement::default();
        for waiting in due {
            let message = waiting.message;
            assert_eq!(self.rows[&message.seq].attempts, message.attempts);
            if self.rng.random_bool(0.5) {
                self.rows.remove(&message.seq);
                self.sent.insert(message.id);
                settlement.remove.push(message.seq);
            } else {
                let state = if message.attempts > 3 {
                    DeliveryState::Dead
                } else {
                    waiting.state
                };
                let again = Exception {
                    attempts: message.attempts + 1,
                    ..row(&message, state)
                };
                self.rows.insert(message.seq, again.clone());
                settlement.upsert.push(again);
            }
        }
        self.session.settle(&settlement).await.expect("settle");
    }

    /// Another leader takes over; the old one is a zombie and changes nothing.
    async fn crash(&mut self) {
        let instance = format!("leader-{}", self.leaders);
        self.leaders += 1;
        let next = lead(&*self.fixture.store(), "d", &instance).await;
        let mut zombie = std::mem::replace(&mut self.session, next);
        let settlement = Settlement {
            through: self.read_to.max(self.cursor + 1),
            remove: self.rows.keys().copied().collect(),
            ..Settlement::default()
        };
        let lost = zombie
            .settle(&settlement)
            .await
            .expect_err("the lease is lost");
        assert!(matches!(lost, StoreError::LeaseLost { .. }), "{lost}");
        self.unsettled.clear();
        self.check_opened();
        self.read_to = self.cursor;
    }

    /// What the new session loaded is what the model holds.
    fn check_opened(&self) {
        let opened = self.session.opened();
        assert_eq!(opened.cursor, self.cursor);
        let count = |state| self.rows.values().filter(|r| r.state == state).count();
        assert_eq!(opened.waiting, count(DeliveryState::Retrying) as u64);
        let keyed = |r: &&Exception| r.key.is_some();
        let expected: BTreeSet<_> = self
            .rows
            .values()
            .filter(keyed)
            .map(|r| {
                (
                    r.topic.to_string(),
                    r.key.as_deref().unwrap_or_default().to_owned(),
                )
            })
            .collect();
        let keys = opened.keys.iter();
        let found: BTreeSet<_> = keys
            .map(|k| (k.key.topic.to_string(), k.key.key.to_string()))
            .collect();
        assert_eq!(found, expected, "blocked keys");
        let parked: u32 = opened.keys.iter().map(|k| k.parked).sum();
        let expected = self
            .rows
            .values()
            .filter(keyed)
            .filter(|r| r.state == DeliveryState::Parked);
        assert_eq!(parked as usize, expected.count());
        let live = self
            .rows
            .values()
            .filter(|r| r.state != DeliveryState::Dead);
        let earliest = live.map(|r| r.seq).min().unwrap_or(Seq::MAX);
        assert!(opened.low_water <= earliest.min(self.cursor + 1));
    }

    /// Closes what is open, crashes once more, reads everything, and takes stock.
    async fn finish(&mut self) {
        while !self.open.is_empty() {
            self.close().await;
        }
        self.crash().await;
        let covered = self.committed.values().filter(|k| k.covered).count();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.sent.len() + self.rows.len() + self.unsettled.len() < covered {
            assert!(Instant::now() < deadline, "{} of {covered} never came", {
                covered - self.sent.len() - self.rows.len() - self.unsettled.len()
            });
            self.page().await;
        }
        self.page().await;
        let covered = self
            .committed
            .iter()
            .filter(|(_, k)| k.covered)
            .map(|(id, _)| *id);
        let covered: HashSet<_> = covered.collect();
        assert_eq!(self.seqs.values().copied().collect::<HashSet<_>>(), covered);
        self.check_order();
    }

    /// Seq order is enqueue order, but for transactions that were left open.
    fn check_order(&self) {
        let places = self.seqs.values().map(|id| &self.committed[id]);
        let places: Vec<_> = places.filter(|k| !k.may_be_late).map(|k| k.place).collect();
        assert!(
            places.is_sorted(),
            "order by seq is the order of the commits"
        );
    }
}
