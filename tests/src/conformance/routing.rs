//! Routes: which destination sees which topic, from which seq.

use std::collections::BTreeMap;

use outbox_core::{Destination, PageLimit, Session, Start, StoreError};

use super::Fixture;
use super::stage::*;

async fn declare(f: &dyn Fixture, destinations: &[Destination]) {
    f.admin().declare(destinations).await.expect("declare");
}

/// Topics of other destinations are left out, and leave no gap.
pub async fn a_destination_sees_only_the_topics_it_covers(f: &dyn Fixture) {
    declare(f, &[destination("orders", &["orders.*", "refunds"])]).await;
    let mut session = lead(&*f.store(), "orders", "first").await;
    for topic in [
        "orders.placed",
        "invoices",
        "refunds",
        "refunds.x",
        "Orders.placed",
        "orders.a.b",
    ] {
        f.enqueue(messages(topic, 1)).await.expect("enqueue");
    }
    let read = read(&mut *session, 3).await;
    let topics: Vec<_> = read.iter().map(|m| &*m.topic).collect();
    assert_eq!(topics, ["orders.placed", "refunds", "orders.a.b"]);
    nothing_more(&mut *session).await;
}

/// What was enqueued before the change goes by the old patterns, even when read after it.
pub async fn a_change_of_patterns_takes_effect_at_the_last_seq(f: &dyn Fixture) {
    declare(f, &[destination("d", &["old"])]).await;
    f.enqueue([messages("old", 1), messages("new", 1)].concat())
        .await
        .expect("enqueue");
    declare(f, &[destination("d", &["new"])]).await;
    f.enqueue([messages("old", 1), messages("new", 1)].concat())
        .await
        .expect("enqueue");
    let mut session = lead(&*f.store(), "d", "first").await;
    let read = read(&mut *session, 2).await;
    let topics: Vec<_> = read.iter().map(|m| &*m.topic).collect();
    assert_eq!(topics, ["old", "new"]);
    nothing_more(&mut *session).await;
    let patterns: Vec<_> = session
        .opened()
        .destination
        .patterns
        .iter()
        .map(|p| p.as_str())
        .collect();
    assert_eq!(patterns, ["new"]);
}

/// A leader that has not noticed the change yet must not pass over what the change added: its page
/// follows the new routes, or fails so that it reopens.
pub async fn a_change_of_patterns_loses_nothing_for_a_session_that_is_open(f: &dyn Fixture) {
    declare(f, &[destination("d", &["old"])]).await;
    let mut session = lead(&*f.store(), "d", "first").await;
    f.enqueue(messages("old", 1)).await.expect("enqueue");
    let first = read(&mut *session, 1).await;
    declare(f, &[destination("d", &["new"])]).await;
    f.enqueue([messages("new", 1), messages("old", 1)].concat())
        .await
        .expect("enqueue");
    let topics = match read_or_settle_fails(&mut *session, first[0].seq).await {
        Some(topics) => topics,
        None => {
            let mut reopened = lead(&*f.store(), "d", "second").await;
            let read = read(&mut *reopened, 2).await;
            read.iter().skip(1).map(|m| m.topic.to_string()).collect()
        }
    };
    assert_eq!(topics, ["new"]);
}

/// The topics behind `seq`, or `None` when the session says that it must reopen.
async fn read_or_settle_fails(session: &mut dyn Session, seq: i64) -> Option<Vec<String>> {
    let mut topics = Vec::new();
    let mut last = seq;
    loop {
        let page = session.page(PageLimit::default()).await.ok()?;
        topics.extend(page.messages.iter().map(|m| m.topic.to_string()));
        last = last.max(page.through);
        if page.through < page.from && !page.more {
            break;
        }
    }
    session.settle(&through(last)).await.ok()?;
    Some(topics)
}

/// `Start::Beginning`.
pub async fn a_new_destination_starts_at_the_beginning_by_default(f: &dyn Fixture) {
    f.enqueue(messages("t", 3)).await.expect("enqueue");
    let mut session = lead_all(f, "d").await;
    assert_eq!(payloads(&read(&mut *session, 3).await), ["0", "1", "2"]);
}

/// `Start::End`.
pub async fn a_new_destination_can_start_at_the_end(f: &dyn Fixture) {
    f.enqueue(messages("before", 3)).await.expect("enqueue");
    let end = Destination {
        start: Start::End,
        ..destination("d", &["*"])
    };
    declare(f, &[end]).await;
    f.enqueue(messages("after", 2)).await.expect("enqueue");
    let mut session = lead(&*f.store(), "d", "first").await;
    assert!(
        read(&mut *session, 2)
            .await
            .iter()
            .all(|m| &*m.topic == "after")
    );
    nothing_more(&mut *session).await;
}

/// `Start::At`: everything from then on, and perhaps a few earlier ones.
pub async fn a_new_destination_can_start_at_a_time(f: &dyn Fixture) {
    let mut first = lead_all(f, "d").await;
    for _ in 0..4 {
        f.enqueue(messages("t", 1)).await.expect("enqueue");
    }
    let all = read(&mut *first, 4).await;
    let at = |name: &str, time| Destination {
        start: Start::At(time),
        ..destination(name, &["*"])
    };
    let third = all[2].created_at;
    declare(
        f,
        &[
            at("third", third),
            at("future", now() + chrono::TimeDelta::days(1)),
        ],
    )
    .await;
    f.enqueue(messages("after", 1)).await.expect("enqueue");
    let mut session = lead(&*f.store(), "third", "first").await;
    let mut seen = Vec::new();
    while seen.last() != Some(&"after".to_owned()) {
        let page = session.page(PageLimit::default()).await.expect("page");
        seen.extend(page.messages.iter().map(|m| match &*m.topic {
            "after" => "after".to_owned(),
            _ => m.seq.to_string(),
        }));
    }
    for expected in [all[2].seq.to_string(), all[3].seq.to_string()] {
        assert!(seen.contains(&expected), "{expected} in {seen:?}");
    }
    let mut future = lead(&*f.store(), "future", "first").await;
    assert_eq!(read(&mut *future, 1).await[0].topic.as_ref(), "after");
}

/// Only a new destination has a start.
pub async fn a_start_has_no_effect_on_a_destination_that_exists(f: &dyn Fixture) {
    declare(f, &[destination("d", &["*"])]).await;
    f.enqueue(messages("t", 2)).await.expect("enqueue");
    declare(
        f,
        &[Destination {
            start: Start::End,
            ..destination("d", &["*"])
        }],
    )
    .await;
    let mut session = lead(&*f.store(), "d", "first").await;
    read(&mut *session, 2).await;
}

/// Destinations may be declared by several configurations.
pub async fn a_declaration_left_out_is_left_alone(f: &dyn Fixture) {
    declare(f, &[destination("a", &["x"])]).await;
    declare(f, &[destination("b", &["y"])]).await;
    let names: Vec<_> = status(f)
        .await
        .destinations
        .into_iter()
        .map(|d| (d.name, d.patterns))
        .collect();
    assert_eq!(
        names,
        [
            ("a".into(), vec!["x".into()]),
            ("b".into(), vec!["y".into()])
        ]
    );
}

/// A relay declares at every start; that must not disturb the leader.
pub async fn declaring_the_same_again_changes_nothing(f: &dyn Fixture) {
    let both = [destination("a", &["x", "y"]), destination("b", &["y"])];
    declare(f, &both).await;
    let _session = lead(&*f.store(), "a", "first").await;
    let before = (lease_row(&*f.store(), "a").await, status(f).await);
    declare(f, &both).await;
    assert_eq!(before, (lease_row(&*f.store(), "a").await, status(f).await));
}

/// The leader's sign to reload.
pub async fn a_change_of_configuration_raises_the_control_version(f: &dyn Fixture) {
    let store = f.store();
    declare(f, &[destination("d", &["x"])]).await;
    let mut last = lease_row(&*store, "d").await.control_version;
    let mut changed = destination("d", &["x", "y"]);
    for change in 0..3 {
        match change {
            0 => {}
            1 => changed.paused = true,
            _ => changed.retry.max_attempts = Some(3),
        }
        declare(f, std::slice::from_ref(&changed)).await;
        let now = lease_row(&*store, "d").await;
        assert!(now.control_version > last, "change {change}");
        assert_eq!(now.paused, changed.paused);
        last = now.control_version;
    }
    changed.paused = false;
    declare(f, std::slice::from_ref(&changed)).await;
    let session = lead(&*store, "d", "first").await;
    let opened = session.opened();
    assert_eq!(
        opened.control_version,
        lease_row(&*store, "d").await.control_version
    );
    assert_eq!(
        (&opened.destination.retry, &opened.destination.patterns),
        (&changed.retry, &changed.patterns)
    );
}

/// A mistyped topic is a lost message: it is counted, by exactly one destination, once.
pub async fn a_message_that_no_route_covers_is_counted_once(f: &dyn Fixture) {
    declare(f, &[destination("a", &["a"]), destination("b", &["b"])]).await;
    let batch = [
        messages("a", 2),
        messages("typo", 3),
        messages("b", 1),
        messages("tipo", 1),
    ];
    f.enqueue(batch.concat()).await.expect("enqueue");
    let mut counts = BTreeMap::new();
    for (name, covered) in [("a", 2), ("b", 1)] {
        let mut session = lead(&*f.store(), name, "first").await;
        let mut found = 0;
        let mut last = 0;
        while found < covered || last < status(f).await.last_seq {
            let page = session
                .page(PageLimit {
                    rows: 2,
                    bytes: 1 << 20,
                })
                .await
                .expect("page");
            found += page.messages.len();
            last = page.through;
            for unrouted in page.unrouted {
                *counts.entry(unrouted.topic).or_insert(0) += unrouted.count;
            }
        }
        session.settle(&through(last)).await.expect("settle");
    }
    let expected = BTreeMap::from([("typo".to_owned(), 3), ("tipo".to_owned(), 1)]);
    assert_eq!(counts, expected, "in pages");
    let stored = status(f).await.unrouted;
    let stored: BTreeMap<_, _> = stored.into_iter().map(|u| (u.topic, u.count)).collect();
    assert_eq!(stored, expected, "in the status");
    let refused = lead_missing(f).await;
    assert!(matches!(
        refused,
        Err(StoreError::LeaseLost { .. } | StoreError::NotFound { .. })
    ));
}

async fn lead_missing(f: &dyn Fixture) -> Result<(), StoreError> {
    let lease = outbox_core::Lease {
        destination: "c".into(),
        owner: "x".into(),
        epoch: 1,
    };
    f.store().open(&lease).await.map(drop)
}
