//! Pages: order, limits, fields.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use outbox_core::{Message, PageLimit};

use super::Fixture;
use super::stage::*;

/// Order across transactions.
pub async fn messages_come_in_the_order_they_were_enqueued(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let all = messages("t", 20);
    for message in all.clone() {
        f.enqueue(vec![message]).await.expect("enqueue");
    }
    let read = read(&mut *session, 20).await;
    assert!(read.windows(2).all(|w| w[0].seq < w[1].seq));
    let ids: Vec<_> = read.iter().map(|m| m.id).collect();
    assert_eq!(ids, all.iter().map(|m| m.id).collect::<Vec<_>>());
    assert!(
        read.iter()
            .all(|m| !m.late && m.attempts == 0 && m.redelivery == 0)
    );
}

/// Order within one transaction, batches of several statements included.
pub async fn messages_of_one_transaction_come_in_call_order(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let all = messages("t", 1_000);
    let ids = f.enqueue(all.clone()).await.expect("enqueue");
    assert_eq!(ids, all.iter().map(|m| m.id).collect::<Vec<_>>());
    let read = read(&mut *session, 1_000).await;
    let expected: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(payloads(&read), expected);
}

/// Round trip of every field, at its awkward values too.
pub async fn every_field_comes_back_as_it_was_enqueued(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let full = Message::bytes("orders.placed", vec![0, 159, 146, 150, 255])
        .key("Zürich 'quoted' \\ \u{1F980}")
        .content_type("application/x-thing; charset=utf-8")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("x-empty", "")
        .header("x-quote", "\"ä\\")
        .deliver_after(now() - TimeDelta::seconds(9))
        .expires_at(now() + TimeDelta::days(400));
    let bare = Message::bytes("t", "");
    let before = now() - TimeDelta::seconds(5);
    f.enqueue(vec![full.clone(), bare.clone()])
        .await
        .expect("enqueue");
    let read = read(&mut *session, 2).await;
    for (enqueued, found) in [full, bare].iter().zip(&read) {
        assert_eq!(found.id, enqueued.id);
        assert_eq!(*found.topic, *enqueued.topic);
        assert_eq!(found.key.as_deref(), enqueued.key.as_deref());
        assert_eq!(found.payload, enqueued.payload);
        assert_eq!(*found.content_type, *enqueued.content_type);
        let headers: BTreeMap<_, _> = found.headers.as_deref().cloned().unwrap_or_default();
        assert_eq!(headers, enqueued.headers);
        assert_eq!(found.deliver_after, enqueued.deliver_after);
        assert_eq!(found.expires_at, enqueued.expires_at);
        assert!(found.created_at > before && found.created_at < now() + TimeDelta::seconds(5));
    }
    assert_eq!(read[1].headers, None, "no headers are None on the hot path");
}

/// Promise 2.
pub async fn a_rolled_back_message_is_never_seen(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("kept", 2)).await.expect("enqueue");
    f.enqueue_rolled_back(messages("gone", 5))
        .await
        .expect("enqueue");
    f.enqueue(messages("kept", 2)).await.expect("enqueue");
    let read = read(&mut *session, 4).await;
    assert!(read.iter().all(|m| &*m.topic == "kept"));
    nothing_more(&mut *session).await;
}

/// `rows` bounds a page, and the next one reads on.
pub async fn a_page_ends_at_its_number_of_rows(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 10)).await.expect("enqueue");
    let limit = PageLimit {
        rows: 4,
        bytes: 1 << 20,
    };
    let mut sizes = Vec::new();
    let mut next_from = None;
    while sizes.iter().sum::<usize>() < 10 {
        let page = session.page(limit).await.expect("page");
        assert!(page.messages.len() <= 4, "{} rows", page.messages.len());
        assert!(next_from.is_none_or(|n| n == page.from), "pages touch");
        let left = sizes.iter().sum::<usize>() + page.messages.len() < 10;
        assert!(page.more || !left, "a page that was cut says more");
        next_from = Some(page.through + 1);
        sizes.push(page.messages.len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 10);
}

/// `bytes` bounds a page, but one message always fits.
pub async fn a_page_ends_at_its_bytes_and_holds_at_least_one_message(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let big = |n: u8| Message::bytes("t", vec![n; 10_000]);
    f.enqueue((0..6).map(big).collect()).await.expect("enqueue");
    let two = PageLimit {
        rows: 100,
        bytes: 20_500,
    };
    let page = session.page(two).await.expect("page");
    assert!(
        (1..=2).contains(&page.messages.len()),
        "{} messages",
        page.messages.len()
    );
    assert!(page.more);
    let one = PageLimit {
        rows: 100,
        bytes: 1,
    };
    let read = read_in(&mut *session, 6 - page.messages.len(), one).await;
    let order: Vec<u8> = page
        .messages
        .iter()
        .chain(&read)
        .map(|m| m.payload[0])
        .collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

/// However many rows of other destinations come before it.
pub async fn a_message_larger_than_a_page_comes_behind_others_too(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("d", &["big"])])
        .await
        .expect("declare");
    let mut session = lead(&*f.store(), "d", "first").await;
    let big = Message::bytes("big", vec![1; 10_000]);
    f.enqueue([messages("other", 3), vec![big.clone(), big]].concat())
        .await
        .expect("enqueue");
    let limit = PageLimit {
        rows: 100,
        bytes: 100,
    };
    for _ in 0..2 {
        let page = session.page(limit).await.expect("page");
        assert_eq!(page.messages.len(), 1, "one always fits");
    }
    nothing_more(&mut *session).await;
}

/// The read position is the session's own.
pub async fn pages_are_read_ahead_of_settlements(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 6)).await.expect("enqueue");
    let limit = PageLimit {
        rows: 2,
        bytes: 1 << 20,
    };
    let first = read_in(&mut *session, 6, limit).await;
    session
        .settle(&through(first[1].seq))
        .await
        .expect("settle");
    nothing_more(&mut *session).await;
    session
        .settle(&through(first[5].seq))
        .await
        .expect("settle");
    assert_eq!(status(f).await.destinations[0].cursor, first[5].seq);
}

/// Nothing is something to handle too.
pub async fn an_empty_store_gives_an_empty_page(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    assert_eq!((session.opened().cursor, session.opened().waiting), (0, 0));
    let page = session.page(PageLimit::default()).await.expect("page");
    assert_eq!((page.messages.len(), page.from, page.through), (0, 1, 0));
    assert!(!page.more && page.gaps.is_empty() && page.unrouted.is_empty());
}

/// The idle loop's look.
pub async fn poll_says_yes_when_there_is_something_to_read(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    nothing_more(&mut *session).await;
    for round in 0..3 {
        f.enqueue(messages("t", 1)).await.expect("enqueue");
        assert!(session.poll().await.expect("poll"), "round {round}");
        read(&mut *session, 1).await;
    }
    nothing_more(&mut *session).await;
    assert!(
        !session.poll().await.expect("poll"),
        "an idle store is not read"
    );
}

/// A cursor for each destination.
pub async fn each_destination_reads_at_its_own_pace(f: &dyn Fixture) {
    let both = [destination("a", &["*"]), destination("b", &["*"])];
    f.admin().declare(&both).await.expect("declare");
    let (mut a, mut b) = (
        lead(&*f.store(), "a", "first").await,
        lead(&*f.store(), "b", "first").await,
    );
    f.enqueue(messages("t", 4)).await.expect("enqueue");
    let read_a = read(&mut *a, 4).await;
    a.settle(&through(read_a[3].seq)).await.expect("settle");
    f.enqueue(messages("t", 2)).await.expect("enqueue");
    assert_eq!(read(&mut *b, 6).await.len(), 6);
    assert_eq!(read(&mut *a, 2).await.len(), 2);
    let status = status(f).await;
    assert_eq!(
        (status.destinations[0].cursor, status.destinations[1].cursor),
        (read_a[3].seq, 0)
    );
}
