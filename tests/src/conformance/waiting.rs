//! Messages with a delivery row that come due.

use chrono::TimeDelta;
use outbox_core::{DeliveryState, Exception, PageLimit, Pending, Session};

use super::Fixture;
use super::stage::*;

/// `count` messages read, and settled as retrying at `seconds` from now each.
async fn retrying_at(
    f: &dyn Fixture,
    seconds: &[i64],
) -> (Box<dyn Session>, Vec<Pending>, Vec<Exception>) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", seconds.len()))
        .await
        .expect("enqueue");
    let all = read(&mut *session, seconds.len()).await;
    let base = now();
    let rows: Vec<_> = all
        .iter()
        .zip(seconds)
        .map(|(m, s)| Exception {
            next_attempt: Some(base + TimeDelta::seconds(*s)),
            ..row(m, DeliveryState::Retrying)
        })
        .collect();
    settle_rows(&mut *session, &all, rows.clone()).await;
    (session, all, rows)
}

/// By due time, then by seq.
pub async fn due_messages_come_earliest_first(f: &dyn Fixture) {
    let (mut session, all, _) = retrying_at(f, &[-1, -9, -5, -9]).await;
    let due = session.due(now(), PageLimit::default()).await.expect("due");
    let seqs: Vec<_> = due.messages.iter().map(|w| w.message.seq).collect();
    assert_eq!(seqs, [all[1].seq, all[3].seq, all[2].seq, all[0].seq]);
    assert_eq!(due.next, None);
    assert_eq!(due.messages[0].message.payload, all[1].payload);
}

/// So that the relay can sleep until then.
pub async fn due_says_when_the_next_one_is_due(f: &dyn Fixture) {
    let (mut session, all, rows) = retrying_at(f, &[500, -1, 100]).await;
    let due = session.due(now(), PageLimit::default()).await.expect("due");
    assert_eq!(due.messages.len(), 1);
    assert_eq!(due.messages[0].message.seq, all[1].seq);
    assert_eq!(due.next, rows[2].next_attempt);
    let later = session
        .due(now() + TimeDelta::seconds(200), PageLimit::default())
        .await
        .expect("due");
    assert_eq!(
        (later.messages.len(), later.next),
        (2, rows[0].next_attempt)
    );
}

/// A burst of retries comes in bounded parts.
pub async fn due_ends_at_its_limit_and_says_what_is_next(f: &dyn Fixture) {
    let (mut session, all, rows) = retrying_at(f, &[-9, -8, -7, -6]).await;
    let limit = PageLimit {
        rows: 3,
        bytes: 1 << 20,
    };
    let due = session.due(now(), limit).await.expect("due");
    assert_eq!(due.messages.len(), 3);
    assert_eq!(due.next, rows[3].next_attempt);
    let one = session
        .due(now(), PageLimit { rows: 9, bytes: 1 })
        .await
        .expect("due");
    assert_eq!(one.messages.len(), 1, "one always fits");
    assert_eq!(one.messages[0].message.seq, all[0].seq);
    assert_eq!(one.next, rows[1].next_attempt);
}

/// `deliver_after` goes by the same way.
pub async fn a_scheduled_message_is_due_at_its_time(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let at = now() + TimeDelta::seconds(60);
    let message = messages("t", 1).remove(0).deliver_after(at);
    f.enqueue(vec![message]).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    assert_eq!(all[0].deliver_after, Some(at));
    let scheduled = Exception {
        next_attempt: Some(at),
        ..row(&all[0], DeliveryState::Scheduled)
    };
    settle_rows(&mut *session, &all, vec![scheduled]).await;
    let early = session
        .due(at - TimeDelta::microseconds(1), PageLimit::default())
        .await
        .expect("due");
    assert_eq!((early.messages.len(), early.next), (0, Some(at)));
    let due = session.due(at, PageLimit::default()).await.expect("due");
    assert_eq!(due.messages.len(), 1);
    assert_eq!(
        (due.messages[0].state, due.messages[0].blocks_key),
        (DeliveryState::Scheduled, false)
    );
    assert_eq!(due.messages[0].message.attempts, 0);
}

/// Only `Retrying` and `Scheduled` have a time.
pub async fn what_is_dead_expired_or_parked_is_never_due(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 3)).await.expect("enqueue");
    let all = read(&mut *session, 3).await;
    let states = [
        DeliveryState::Dead,
        DeliveryState::Expired,
        DeliveryState::Parked,
    ];
    let rows = all.iter().zip(states).map(|(m, s)| row(m, s)).collect();
    settle_rows(&mut *session, &all, rows).await;
    let due = session
        .due(now() + TimeDelta::days(9_999), PageLimit::default())
        .await
        .expect("due");
    assert_eq!((due.messages.len(), due.next), (0, None));
}

/// The relay decides by these.
pub async fn a_due_message_brings_attempts_and_redelivery(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 1)).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    let retrying = Exception {
        attempts: 4,
        redelivery: 3,
        last_error: Some("timeout".to_owned()),
        ..row(&all[0], DeliveryState::Retrying)
    };
    settle_rows(&mut *session, &all, vec![retrying]).await;
    let mut session = lead(&*f.store(), "d", "second").await;
    let due = session
        .due(now(), PageLimit::default())
        .await
        .expect("due")
        .messages;
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].message.attempts, due[0].message.redelivery), (4, 3));
    assert_eq!(
        (due[0].state, due[0].blocks_key),
        (DeliveryState::Retrying, true)
    );
    let expected = Pending {
        attempts: 4,
        redelivery: 3,
        ..all[0].clone()
    };
    assert_eq!(due[0].message, expected);
}
