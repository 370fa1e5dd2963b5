//! What operators ask for: resend, discard, unblock.

use chrono::TimeDelta;
use outbox_core::{
    DeliveryState, Exception, ExceptionFilter, Pending, RequestAction, Selection, Session,
    Settlement, StoreError,
};

use super::Fixture;
use super::stage::*;

/// `count` messages of key `k`, all sent.
async fn sent(f: &dyn Fixture, count: usize) -> (Box<dyn Session>, Vec<Pending>) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", count)).await.expect("enqueue");
    let all = read(&mut *session, count).await;
    session
        .settle(&through(all[count - 1].seq))
        .await
        .expect("settle");
    (session, all)
}

async fn ask(f: &dyn Fixture, action: RequestAction, selection: Selection) -> u64 {
    f.admin()
        .request("d", action, &selection)
        .await
        .expect("request")
}

fn ids<'a>(messages: impl IntoIterator<Item = &'a Pending>) -> Selection {
    Selection::Ids(messages.into_iter().map(|m| m.id).collect())
}

/// Seqs of all requests, applying each part.
async fn take_all(session: &mut dyn Session) -> Vec<i64> {
    let mut seqs = Vec::new();
    loop {
        let requests = session.requests().await.expect("requests");
        if requests.is_empty() {
            return seqs;
        }
        seqs.extend(requests.iter().flat_map(|r| &r.messages).map(|m| m.seq));
        let applied = requests.iter().map(|r| r.id).collect();
        let settlement = Settlement {
            requests: applied,
            ..Settlement::default()
        };
        session.settle(&settlement).await.expect("settle");
    }
}

/// Round trip.
pub async fn a_request_comes_to_the_leader_and_goes_when_applied(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 3).await;
    assert!(session.requests().await.expect("requests").is_empty());
    assert_eq!(ask(f, RequestAction::Resend, ids(&all[..2])).await, 2);
    assert_eq!(ask(f, RequestAction::Discard, ids(&all[2..])).await, 1);
    let requests = session.requests().await.expect("requests");
    let actions: Vec<_> = requests.iter().map(|r| r.action).collect();
    assert_eq!(
        actions,
        [RequestAction::Resend, RequestAction::Discard],
        "oldest first"
    );
    let named = &requests[0].messages;
    assert_eq!(
        named.iter().map(|m| m.seq).collect::<Vec<_>>(),
        [all[0].seq, all[1].seq]
    );
    assert_eq!(
        (&*named[0].topic, named[0].key.as_deref()),
        ("t", Some("k"))
    );
    assert_eq!(named[0].exception, None);
    assert_eq!(
        session.requests().await.expect("requests"),
        requests,
        "until it is applied"
    );
    let one = Settlement {
        requests: vec![requests[0].id],
        ..Settlement::default()
    };
    session.settle(&one).await.expect("settle");
    assert_eq!(session.requests().await.expect("requests"), requests[1..]);
    assert_eq!(take_all(&mut *session).await, [all[2].seq]);
}

/// The leader's sign that there is one.
pub async fn a_request_raises_the_control_version(f: &dyn Fixture) {
    let (_session, all) = sent(f, 1).await;
    let before = lease_row(&*f.store(), "d").await;
    ask(f, RequestAction::Resend, ids(&all)).await;
    let after = lease_row(&*f.store(), "d").await;
    assert!(after.control_version > before.control_version);
    assert_eq!((after.owner, after.epoch), (before.owner, before.epoch));
}

/// The leader decides by it.
pub async fn a_request_brings_the_delivery_row(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 1).await;
    let dead = Exception {
        attempts: 12,
        last_error: Some("refused".to_owned()),
        redelivery: 1,
        ..row(&all[0], DeliveryState::Dead)
    };
    settle_rows(&mut *session, &all, vec![dead.clone()]).await;
    ask(f, RequestAction::Unblock, ids(&all)).await;
    let requests = session.requests().await.expect("requests");
    assert_eq!(requests[0].messages[0].exception, Some(dead));
}

/// A broker that drops duplicates lets a raised number pass; the number survives a crash.
pub async fn a_resend_of_a_sent_message_raises_its_redelivery(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 1).await;
    ask(f, RequestAction::Resend, ids(&all)).await;
    let request = session.requests().await.expect("requests").remove(0);
    let again = Exception {
        attempts: 0,
        redelivery: 1,
        blocks_key: false,
        ..row(&all[0], DeliveryState::Retrying)
    };
    let settlement = Settlement {
        upsert: vec![again],
        requests: vec![request.id],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let mut session = lead(&*f.store(), "d", "second").await;
    assert!(session.requests().await.expect("requests").is_empty());
    let due = session
        .due(now(), outbox_core::PageLimit::default())
        .await
        .expect("due")
        .messages;
    assert_eq!(
        (
            due.len(),
            due[0].message.redelivery,
            due[0].message.attempts
        ),
        (1, 1, 0)
    );
    let remove = Settlement {
        remove: vec![all[0].seq],
        ..Settlement::default()
    };
    session.settle(&remove).await.expect("settle");
    assert_eq!(status(f).await.destinations[0].retrying, 0);
}

/// What is written is what comes back.
pub async fn a_resend_of_a_dead_message_gives_it_fresh_attempts(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 1).await;
    settle_rows(&mut *session, &all, vec![row(&all[0], DeliveryState::Dead)]).await;
    ask(
        f,
        RequestAction::Resend,
        Selection::Dead {
            since: None,
            until: None,
            expired: false,
        },
    )
    .await;
    let request = session.requests().await.expect("requests").remove(0);
    let found = request.messages[0].exception.clone().expect("a row");
    assert_eq!((found.state, found.redelivery), (DeliveryState::Dead, 0));
    let fresh = Exception {
        state: DeliveryState::Retrying,
        attempts: 0,
        next_attempt: Some(now()),
        ..found
    };
    let settlement = Settlement {
        upsert: vec![fresh],
        requests: vec![request.id],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let due = session
        .due(now(), outbox_core::PageLimit::default())
        .await
        .expect("due")
        .messages;
    assert_eq!(
        (
            due.len(),
            due[0].message.redelivery,
            due[0].message.attempts
        ),
        (1, 0, 0)
    );
    let one = &status(f).await.destinations[0];
    assert_eq!((one.dead, one.retrying), (0, 1));
}

/// Given up.
pub async fn a_discard_removes_the_row(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 2).await;
    let rows = vec![
        row(&all[0], DeliveryState::Dead),
        row(&all[1], DeliveryState::Parked),
    ];
    settle_rows(&mut *session, &all, rows).await;
    ask(f, RequestAction::Discard, ids(&all[..1])).await;
    let request = session.requests().await.expect("requests").remove(0);
    let settlement = Settlement {
        remove: vec![all[0].seq],
        requests: vec![request.id],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let session = lead(&*f.store(), "d", "second").await;
    let keys = &session.opened().keys;
    assert_eq!((keys.len(), keys[0].blockers, keys[0].parked), (1, 0, 1));
    assert_eq!(status(f).await.destinations[0].dead, 0);
}

/// It stays dead and visible.
pub async fn an_unblock_keeps_the_row_and_frees_the_key(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 1).await;
    settle_rows(&mut *session, &all, vec![row(&all[0], DeliveryState::Dead)]).await;
    ask(f, RequestAction::Unblock, ids(&all)).await;
    let request = session.requests().await.expect("requests").remove(0);
    let unblocked = Exception {
        blocks_key: false,
        ..row(&all[0], DeliveryState::Dead)
    };
    let settlement = Settlement {
        upsert: vec![unblocked],
        requests: vec![request.id],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let session = lead(&*f.store(), "d", "second").await;
    assert_eq!(session.opened().keys, []);
    assert_eq!(status(f).await.destinations[0].dead, 1);
}

/// Nor is a message named twice counted twice.
pub async fn unknown_ids_are_not_counted(f: &dyn Fixture) {
    let (mut session, all) = sent(f, 2).await;
    let before = lease_row(&*f.store(), "d").await.control_version;
    let unknown = Selection::Ids(vec![uuid::Uuid::now_v7(), uuid::Uuid::nil()]);
    assert_eq!(ask(f, RequestAction::Resend, unknown).await, 0);
    assert_eq!(
        ask(f, RequestAction::Resend, Selection::Ids(vec![])).await,
        0
    );
    assert!(session.requests().await.expect("requests").is_empty());
    assert_eq!(
        lease_row(&*f.store(), "d").await.control_version,
        before,
        "nothing was asked"
    );
    let mixed = Selection::Ids(vec![all[1].id, uuid::Uuid::now_v7(), all[0].id, all[1].id]);
    assert_eq!(ask(f, RequestAction::Resend, mixed).await, 2);
    assert_eq!(take_all(&mut *session).await, [all[0].seq, all[1].seq]);
}

/// `since` is included, `until` is not.
pub async fn dead_messages_are_selected_by_window_and_state(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    for message in keyed("t", "k", 5) {
        f.enqueue(vec![message]).await.expect("enqueue");
    }
    let all = read(&mut *session, 5).await;
    let states = [
        DeliveryState::Dead,
        DeliveryState::Expired,
        DeliveryState::Dead,
        DeliveryState::Retrying,
        DeliveryState::Dead,
    ];
    settle_rows(
        &mut *session,
        &all,
        all.iter().zip(states).map(|(m, s)| row(m, s)).collect(),
    )
    .await;
    let dead = |since: Option<usize>, until: Option<usize>, expired| Selection::Dead {
        since: since.map(|n| all[n].created_at),
        until: until.map(|n| all[n].created_at),
        expired,
    };
    let cases = [
        (dead(None, None, false), vec![0, 2, 4]),
        (dead(None, None, true), vec![0, 1, 2, 4]),
        (dead(Some(2), None, true), vec![2, 4]),
        (dead(None, Some(2), true), vec![0, 1]),
        (dead(Some(0), Some(4), false), vec![0, 2]),
    ];
    for (selection, expected) in cases {
        let expected: Vec<_> = expected.into_iter().map(|n| all[n].seq).collect();
        let count = ask(f, RequestAction::Resend, selection.clone()).await;
        assert_eq!(count, expected.len() as u64, "{selection:?}");
        assert_eq!(take_all(&mut *session).await, expected, "{selection:?}");
    }
}

/// Sent, pending and dead alike.
pub async fn a_window_selects_whatever_the_state(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    for message in keyed("t", "k", 5) {
        f.enqueue(vec![message]).await.expect("enqueue");
    }
    let all = read(&mut *session, 5).await;
    settle_rows(
        &mut *session,
        &all[..3],
        vec![row(&all[1], DeliveryState::Dead)],
    )
    .await;
    let window = Selection::Window {
        since: all[1].created_at,
        until: all[4].created_at,
    };
    assert_eq!(ask(f, RequestAction::Resend, window).await, 3);
    let expected: Vec<_> = all[1..4].iter().map(|m| m.seq).collect();
    assert_eq!(take_all(&mut *session).await, expected);
}

/// Another destination's messages are none of its business.
pub async fn a_window_selects_only_what_the_destination_covers(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("d", &["a.*"]), destination("e", &["*"])])
        .await
        .expect("declare");
    let mut session = lead(&*f.store(), "d", "first").await;
    let batch = [messages("a.x", 2), messages("b.x", 2), messages("a.y", 1)];
    f.enqueue(batch.concat()).await.expect("enqueue");
    let all = read(&mut *session, 3).await;
    let wide = TimeDelta::hours(1);
    let window = Selection::Window {
        since: now() - wide,
        until: now() + wide,
    };
    assert_eq!(ask(f, RequestAction::Resend, window).await, 3);
    let expected: Vec<_> = all.iter().map(|m| m.seq).collect();
    assert_eq!(take_all(&mut *session).await, expected);
}

/// At most 1,000 messages at a time, none of them lost.
pub async fn a_request_of_many_messages_comes_in_bounded_parts(f: &dyn Fixture) {
    const MANY: usize = 2_500;
    let (mut session, all) = sent(f, MANY).await;
    let wide = TimeDelta::hours(1);
    let window = Selection::Window {
        since: now() - wide,
        until: now() + wide,
    };
    assert_eq!(ask(f, RequestAction::Resend, window).await, MANY as u64);
    let first = session.requests().await.expect("requests");
    let named: usize = first.iter().map(|r| r.messages.len()).sum();
    assert!((1..=1_000).contains(&named), "{named} messages at once");
    let expected: Vec<_> = all.iter().map(|m| m.seq).collect();
    assert_eq!(take_all(&mut *session).await, expected);
}

/// A mistyped name changes nothing, and is told what there is.
pub async fn a_request_for_an_unknown_destination_names_those_that_exist(f: &dyn Fixture) {
    let (_session, all) = sent(f, 1).await;
    let error = f
        .admin()
        .request("nope", RequestAction::Resend, &ids(&all))
        .await;
    let error = error.expect_err("unknown");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("\"nope\"") && text.contains('d'), "{text}");
    let none = ExceptionFilter {
        destination: Some("d".into()),
        ..ExceptionFilter::default()
    };
    assert!(
        f.admin()
            .exceptions(&none)
            .await
            .expect("exceptions")
            .is_empty()
    );
}
