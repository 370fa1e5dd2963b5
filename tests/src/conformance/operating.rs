//! What an operator sees.

use outbox_core::{DeliveryState, Exception, ExceptionFilter, Settlement, Severity, Status};

use super::Fixture;
use super::stage::*;

/// Every number of the status.
pub async fn status_tells_cursor_backlog_and_exceptions(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue([keyed("t", "k", 6), messages("u", 4)].concat())
        .await
        .expect("enqueue");
    let all = read(&mut *session, 10).await;
    let before = f
        .admin()
        .status()
        .await
        .expect("status")
        .destinations
        .remove(0);
    assert_eq!((before.cursor, before.pending), (0, 10));
    assert!(
        before
            .oldest_pending_seconds
            .is_some_and(|s| (0.0..60.0).contains(&s))
    );
    let states = [
        DeliveryState::Dead,
        DeliveryState::Retrying,
        DeliveryState::Parked,
        DeliveryState::Parked,
        DeliveryState::Expired,
    ];
    let mut upsert: Vec<_> = all.iter().zip(states).map(|(m, s)| row(m, s)).collect();
    upsert.push(row(&all[6], DeliveryState::Scheduled));
    let settlement = Settlement {
        through: all[7].seq,
        upsert,
        markers: vec![(key("t", "k"), Some(all[5].seq))],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let status = status(f).await;
    assert_eq!(status.last_seq, all[9].seq);
    let one = &status.destinations[0];
    assert_eq!(
        (one.name.as_str(), one.patterns.as_slice()),
        ("d", ["*".to_owned()].as_slice())
    );
    assert_eq!(
        (one.broker.as_str(), one.owner.as_deref()),
        ("log:./log", Some("first"))
    );
    assert_eq!(one.epoch, lease_row(&*f.store(), "d").await.epoch);
    assert_eq!((one.cursor, one.pending, one.gaps), (all[7].seq, 2, 0));
    assert_eq!((one.retrying, one.parked, one.parked_keys), (1, 2, 1));
    assert_eq!((one.scheduled, one.dead, one.expired), (1, 1, 1));
    assert!(!one.paused && one.seqs_per_second >= 0.0);
    session.settle(&through(all[9].seq)).await.expect("settle");
    let done = f
        .admin()
        .status()
        .await
        .expect("status")
        .destinations
        .remove(0);
    assert_eq!((done.pending, done.oldest_pending_seconds), (0, None));
}

/// No destination, no message.
pub async fn status_of_an_empty_store_is_empty(f: &dyn Fixture) {
    assert_eq!(status(f).await, Status::default());
}

/// By destination, by state, by page.
pub async fn exceptions_are_filtered_and_paged(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("a", &["*"]), destination("b", &["*"])])
        .await
        .expect("declare");
    f.enqueue(keyed("t", "k", 6)).await.expect("enqueue");
    for name in ["a", "b"] {
        let mut session = lead(&*f.store(), name, "first").await;
        let all = read(&mut *session, 6).await;
        let state = |n: usize| {
            if n.is_multiple_of(2) {
                DeliveryState::Dead
            } else {
                DeliveryState::Parked
            }
        };
        let rows = all.iter().enumerate().map(|(n, m)| Exception {
            last_error: (name == "b").then(|| format!("no. {n}")),
            ..row(m, state(n))
        });
        let rows = rows.collect();
        settle_rows(&mut *session, &all, rows).await;
    }
    let admin = f.admin();
    let of = |destination: Option<&str>, state, after_seq, limit| ExceptionFilter {
        destination: destination.map(str::to_owned),
        state,
        after_seq,
        limit,
    };
    let all = admin
        .exceptions(&of(None, None, None, 0))
        .await
        .expect("exceptions");
    assert_eq!(all.len(), 12);
    assert!(all.windows(2).all(|w| w[0].seq <= w[1].seq), "by seq");
    let dead_b = of(Some("b"), Some(DeliveryState::Dead), None, 0);
    let dead_b = admin.exceptions(&dead_b).await.expect("exceptions");
    assert_eq!(dead_b.len(), 3);
    assert!(
        dead_b
            .iter()
            .all(|r| r.destination == "b" && r.state == DeliveryState::Dead)
    );
    assert_eq!(dead_b[1].last_error.as_deref(), Some("no. 2"));
    assert_eq!((dead_b[1].topic.as_str(), dead_b[1].attempts), ("t", 1));
    let unknown = admin.exceptions(&of(Some("c"), None, None, 0)).await;
    let unknown = unknown.expect_err("nothing found would read as all is well");
    assert!(unknown.to_string().contains("there are a, b"), "{unknown}");
    let mut paged = Vec::new();
    while let rows = admin
        .exceptions(&of(
            Some("a"),
            None,
            paged.last().map(|r: &outbox_core::ExceptionRow| r.seq),
            4,
        ))
        .await
        .expect("exceptions")
        && !rows.is_empty()
    {
        assert!(rows.len() <= 4);
        paged.extend(rows);
    }
    let seqs: Vec<_> = paged.iter().map(|r| r.seq).collect();
    assert_eq!(
        seqs,
        all.iter()
            .filter(|r| r.destination == "a")
            .map(|r| r.seq)
            .collect::<Vec<_>>()
    );
}

/// `pending`, `sent`, the row's state, or `unrouted`.
pub async fn a_message_is_found_by_id_with_its_state_everywhere(f: &dyn Fixture) {
    let all = [
        destination("dead", &["*"]),
        destination("none", &["other"]),
        destination("pending", &["t"]),
        destination("sent", &["*"]),
    ];
    f.admin().declare(&all).await.expect("declare");
    let message = keyed("t", "k", 1).remove(0).header("x-a", "b");
    f.enqueue(vec![message.clone()]).await.expect("enqueue");
    for name in ["dead", "sent"] {
        let mut session = lead(&*f.store(), name, "first").await;
        let all = read(&mut *session, 1).await;
        let rows = (name == "dead").then(|| row(&all[0], DeliveryState::Dead));
        settle_rows(&mut *session, &all, rows.into_iter().collect()).await;
    }
    let found = f
        .admin()
        .message(message.id)
        .await
        .expect("message")
        .expect("found");
    assert_eq!((found.id, found.topic.as_str()), (message.id, "t"));
    assert_eq!(
        (found.key.as_deref(), &found.payload),
        (Some("k"), &message.payload)
    );
    assert_eq!(
        (&found.headers, &found.content_type),
        (&message.headers, &message.content_type)
    );
    let expected = [
        ("dead", "dead"),
        ("none", "unrouted"),
        ("pending", "pending"),
        ("sent", "sent"),
    ];
    let expected: Vec<_> = expected.map(|(d, s)| (d.to_owned(), s.to_owned())).into();
    assert_eq!(found.statuses, expected);
}

/// Nothing is not an error.
pub async fn an_unknown_message_is_not_found(f: &dyn Fixture) {
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    assert_eq!(
        f.admin()
            .message(uuid::Uuid::now_v7())
            .await
            .expect("message"),
        None
    );
}

/// No false alarm on a new store.
pub async fn the_doctor_finds_a_healthy_store_healthy(f: &dyn Fixture) {
    let _session = lead_all(f, "d").await;
    f.enqueue(messages("t", 3)).await.expect("enqueue");
    let findings = f.admin().doctor().await.expect("doctor");
    assert!(!findings.is_empty(), "it says what it looked at");
    for finding in findings {
        assert!(finding.severity < Severity::Error, "{finding:?}");
        assert_eq!(
            finding.cure.is_empty(),
            finding.severity == Severity::Ok,
            "{finding:?}"
        );
    }
}

/// Every relay migrates at its start, perhaps.
pub async fn migrating_again_does_nothing(f: &dyn Fixture) {
    let session = lead_all(f, "d").await;
    f.enqueue(messages("t", 2)).await.expect("enqueue");
    let before = status(f).await;
    let first = f.admin().migrate().await.expect("migrate");
    let (_, other) = f.another_process().await;
    assert_eq!(other.migrate().await.expect("migrate"), first);
    assert_eq!(status(f).await, before);
    let incarnation = session.opened().incarnation.clone();
    let reopened = lead(&*f.store(), "d", "second").await;
    assert_eq!(reopened.opened().incarnation, incarnation);
}

/// What a relay asks first.
pub async fn a_migrated_store_passes_its_check(f: &dyn Fixture) {
    f.store().check().await.expect("check");
    let (other, _) = f.another_process().await;
    other.check().await.expect("check");
}
