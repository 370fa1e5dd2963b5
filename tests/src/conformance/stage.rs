//! The props of every case: destinations, messages, leaders.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use outbox_core::{
    DeliveryState, Destination, Exception, KeyRef, Lease, LeaseRow, Maintenance, Message, OnDead,
    Order, Page, PageLimit, Pending, RetryPolicy, Seq, Session, Settlement, Start, Status, Store,
};

use super::Fixture;

/// Time within which a store must hand out what is committed.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// A destination called `name` for `patterns`, in key order, from the beginning.
pub fn destination(name: &str, patterns: &[&str]) -> Destination {
    Destination {
        name: name.to_owned(),
        patterns: patterns
            .iter()
            .map(|p| p.parse().expect("pattern"))
            .collect(),
        broker: "log:./log".to_owned(),
        order: Order::Key,
        on_dead: OnDead::BlockKey,
        retry: RetryPolicy::default(),
        start: Start::Beginning,
        paused: false,
    }
}

/// `count` messages of `topic`, their payloads numbered from 0.
pub fn messages(topic: &str, count: usize) -> Vec<Message> {
    let numbered = |n: usize| Message::bytes(topic, n.to_string());
    (0..count).map(numbered).collect()
}

/// `count` messages of `topic` with one key, their payloads numbered from 0.
pub fn keyed(topic: &str, key: &str, count: usize) -> Vec<Message> {
    let all = messages(topic, count).into_iter();
    all.map(|m| m.key(key)).collect()
}

/// The payloads as text, in order.
pub fn payloads<'a>(messages: impl IntoIterator<Item = &'a Pending>) -> Vec<String> {
    let text = |m: &Pending| String::from_utf8_lossy(&m.payload).into_owned();
    messages.into_iter().map(text).collect()
}

/// Now, in the precision that every store keeps.
pub fn now() -> DateTime<Utc> {
    Utc::now()
        .duration_trunc(TimeDelta::microseconds(1))
        .expect("in range")
}

/// The lease of `destination` as the store shows it.
pub async fn lease_row(store: &dyn Store, destination: &str) -> LeaseRow {
    let board = store.beat("onlooker").await.expect("beat");
    let mut leases = board.leases.into_iter();
    leases
        .find(|l| l.destination == destination)
        .expect("a lease for each destination")
}

/// Takes the lease of `destination` from whoever holds it.
pub async fn claim(store: &dyn Store, destination: &str, instance: &str) -> Lease {
    store.beat(instance).await.expect("beat");
    let seen = lease_row(store, destination).await;
    store
        .claim(&seen, instance)
        .await
        .expect("claim")
        .expect("nobody was faster")
}

/// Takes the lease of `destination` and opens a session on it.
pub async fn lead(store: &dyn Store, destination: &str, instance: &str) -> Box<dyn Session> {
    let lease = claim(store, destination, instance).await;
    store.open(&lease).await.expect("open")
}

/// Declares one destination `name` for everything and leads it.
pub async fn lead_all(fixture: &dyn Fixture, name: &str) -> Box<dyn Session> {
    fixture
        .admin()
        .declare(&[destination(name, &["*"])])
        .await
        .expect("declare");
    lead(&*fixture.store(), name, "first").await
}

/// Reads pages until `count` messages have come; fails when they do not come in time.
pub async fn read(session: &mut dyn Session, count: usize) -> Vec<Pending> {
    read_in(session, count, PageLimit::default()).await
}

/// [`read`] with pages of `limit`.
pub async fn read_in(session: &mut dyn Session, count: usize, limit: PageLimit) -> Vec<Pending> {
    let mut all = Vec::new();
    let reading = async {
        while all.len() < count {
            all.extend(session.page(limit).await.expect("page").messages);
            tokio::task::yield_now().await;
        }
    };
    let timed_out = tokio::time::timeout(READ_TIMEOUT, reading).await.is_err();
    assert!(!timed_out, "of {count} messages only {} came", all.len());
    assert_eq!(all.len(), count, "more messages came than were enqueued");
    all
}

/// The page that says there is nothing more to read now; fails when it holds a message.
pub async fn nothing_more(session: &mut dyn Session) -> Page {
    loop {
        let page = session.page(PageLimit::default()).await.expect("page");
        assert!(
            page.messages.is_empty(),
            "unexpected {:?}",
            payloads(&page.messages)
        );
        if !page.more && page.through < page.from {
            return page;
        }
    }
}

/// A settlement that moves the cursor to `through`.
pub fn through(through: Seq) -> Settlement {
    Settlement {
        through,
        ..Settlement::default()
    }
}

/// A delivery row for `message` in `state`: due now where that state is ever due, blocking its key
/// where that state does in an ordered destination.
pub fn row(message: &Pending, state: DeliveryState) -> Exception {
    let due = matches!(state, DeliveryState::Retrying | DeliveryState::Scheduled);
    let blocks = matches!(
        state,
        DeliveryState::Retrying | DeliveryState::Parked | DeliveryState::Dead
    );
    Exception {
        seq: message.seq,
        topic: message.topic.clone(),
        key: message.key.clone(),
        state,
        attempts: u32::from(!matches!(
            state,
            DeliveryState::Parked | DeliveryState::Scheduled
        )),
        next_attempt: due.then(now),
        last_error: None,
        redelivery: 0,
        blocks_key: blocks && message.key.is_some(),
    }
}

/// The key `key` of `topic`.
pub fn key(topic: &str, key: &str) -> KeyRef {
    KeyRef {
        topic: topic.into(),
        key: key.into(),
    }
}

/// Settles `rows`, with the cursor at the last of `read`.
pub async fn settle_rows(session: &mut dyn Session, read: &[Pending], rows: Vec<Exception>) {
    let through = read.iter().map(|m| m.seq).max().unwrap_or(0);
    let settlement = Settlement {
        through,
        upsert: rows,
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
}

/// What an operator sees, without what changes with the clock alone (rate and age).
pub async fn status(fixture: &dyn Fixture) -> Status {
    let mut status = fixture.admin().status().await.expect("status");
    for one in &mut status.destinations {
        one.seqs_per_second = 0.0;
        one.oldest_pending_seconds = one.oldest_pending_seconds.map(|_| 0.0);
    }
    status
}

/// Everything that is not needed may go at once.
pub fn keep_nothing() -> Maintenance {
    Maintenance {
        retention: Duration::ZERO,
    }
}

/// House-keeping until a round finds nothing more to do.
pub async fn maintain(store: &dyn Store, policy: &Maintenance) {
    for _ in 0..1_000 {
        let done = store.maintain(policy).await.expect("maintain");
        if done.partitions_emptied == 0 && done.partitions_dropped == 0 && done.put_off == 0 {
            return;
        }
    }
    panic!("1,000 rounds of house-keeping found no end");
}
