//! Retention: what is old and done with goes, and nothing else.

use std::time::Duration;

use outbox_core::{DeliveryState, Maintenance, PageLimit, RequestAction, Selection, Settlement};

use super::Fixture;
use super::stage::*;

/// The slowest destination decides.
pub async fn retention_never_removes_what_a_destination_still_needs(f: &dyn Fixture) {
    let both = [destination("fast", &["*"]), destination("slow", &["*"])];
    f.admin().declare(&both).await.expect("declare");
    let mut fast = lead(&*f.store(), "fast", "first").await;
    f.enqueue(messages("t", 500)).await.expect("enqueue");
    let all = read(&mut *fast, 500).await;
    fast.settle(&through(all[499].seq)).await.expect("settle");
    maintain(&*f.store(), &keep_nothing()).await;
    let mut slow = lead(&*f.store(), "slow", "first").await;
    assert_eq!(read(&mut *slow, 500).await, all);
    slow.settle(&through(all[99].seq)).await.expect("settle");
    maintain(&*f.store(), &keep_nothing()).await;
    let mut slow = lead(&*f.store(), "slow", "second").await;
    assert_eq!(read(&mut *slow, 400).await, all[100..]);
}

/// Dead, expired, parked, retrying, scheduled, and what an operator has asked for.
pub async fn retention_never_removes_what_an_exception_still_needs(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 300)).await.expect("enqueue");
    let all = read(&mut *session, 300).await;
    let states = [
        DeliveryState::Retrying,
        DeliveryState::Scheduled,
        DeliveryState::Dead,
        DeliveryState::Expired,
        DeliveryState::Parked,
    ];
    let rows = all
        .iter()
        .skip(50)
        .zip(states)
        .map(|(m, s)| row(m, s))
        .collect();
    settle_rows(&mut *session, &all, rows).await;
    let sent = Selection::Ids(vec![all[7].id]);
    f.admin()
        .request("d", RequestAction::Resend, &sent)
        .await
        .expect("request");
    maintain(&*f.store(), &keep_nothing()).await;
    let mut session = lead(&*f.store(), "d", "second").await;
    let due = session
        .due(now(), PageLimit::default())
        .await
        .expect("due")
        .messages;
    let due: Vec<_> = due
        .iter()
        .map(|w| (w.message.seq, w.message.payload.clone()))
        .collect();
    let expected = [&all[50], &all[51]].map(|m| (m.seq, m.payload.clone()));
    assert_eq!(due, expected);
    let parked = session
        .parked(&key("t", "k"), PageLimit::default())
        .await
        .expect("parked");
    assert_eq!(payloads(&parked.messages), ["54"]);
    let requests = session.requests().await.expect("requests");
    assert_eq!(requests[0].messages[0].seq, all[7].seq);
    for kept in [&all[7], &all[52], &all[53]] {
        let found = f
            .admin()
            .message(kept.id)
            .await
            .expect("message")
            .expect("kept");
        assert_eq!(found.payload, kept.payload);
    }
}

/// They have no rows, but the marker stands for all of them.
pub async fn retention_never_removes_followers_of_a_marker(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue([messages("t", 20), keyed("t", "k", 30), messages("u", 20)].concat())
        .await
        .expect("enqueue");
    let all = read(&mut *session, 70).await;
    let settlement = Settlement {
        through: all[69].seq,
        upsert: vec![row(&all[20], DeliveryState::Retrying)],
        markers: vec![(key("t", "k"), Some(all[21].seq))],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    maintain(&*f.store(), &keep_nothing()).await;
    let mut session = lead(&*f.store(), "d", "second").await;
    let mut found = Vec::new();
    loop {
        let part = session
            .parked(
                &key("t", "k"),
                PageLimit {
                    rows: 25,
                    bytes: 1 << 20,
                },
            )
            .await;
        let part = part.expect("parked");
        found.extend(part.messages);
        let next = part.through.expect("from the log") + 1;
        let settlement = Settlement {
            markers: vec![(key("t", "k"), Some(next))],
            ..Settlement::default()
        };
        session.settle(&settlement).await.expect("settle");
        if !part.more {
            break;
        }
    }
    assert_eq!(found, all[21..50]);
}

/// Messages stay readable for a while after everybody is done.
pub async fn retention_keeps_what_is_young(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let ids = f.enqueue(messages("t", 50)).await.expect("enqueue");
    let all = read(&mut *session, 50).await;
    session.settle(&through(all[49].seq)).await.expect("settle");
    let day = Maintenance {
        retention: Duration::from_secs(86_400),
    };
    maintain(&*f.store(), &day).await;
    for id in ids {
        assert!(f.admin().message(id).await.expect("message").is_some());
    }
}

/// A seq that came back would be below the cursor, and skipped.
pub async fn seqs_are_not_used_again_after_retention(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 20)).await.expect("enqueue");
    let all = read(&mut *session, 20).await;
    session.settle(&through(all[19].seq)).await.expect("settle");
    maintain(&*f.store(), &keep_nothing()).await;
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    assert!(read(&mut *session, 1).await[0].seq > all[19].seq);
    assert_eq!(status(f).await.last_seq, all[19].seq + 1);
}
