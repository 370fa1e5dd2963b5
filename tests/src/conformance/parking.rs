//! Messages that wait behind an earlier one of their key.

use outbox_core::{
    DeliveryState, Exception, KeyRef, PageLimit, Parked, Pending, Seq, Session, Settlement,
};

use super::Fixture;
use super::stage::*;

async fn parked(session: &mut dyn Session, key: &KeyRef) -> Parked {
    session
        .parked(key, PageLimit::default())
        .await
        .expect("parked")
}

/// All parked followers behind the marker of `key`, moving it as the relay does.
async fn followers(
    session: &mut dyn Session,
    key: &KeyRef,
    limit: PageLimit,
) -> (Vec<Pending>, Seq) {
    let mut all = Vec::new();
    loop {
        let found = session.parked(key, limit).await.expect("parked");
        let through = found.through.expect("re-read from the log");
        all.extend(found.messages);
        let next = Settlement {
            markers: vec![(key.clone(), Some(through + 1))],
            ..Settlement::default()
        };
        session.settle(&next).await.expect("settle");
        if !found.more {
            return (all, through);
        }
    }
}

/// Seq order, one key at a time.
pub async fn parked_messages_come_in_order_for_each_key(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    for _ in 0..3 {
        f.enqueue([keyed("t", "a", 1), keyed("t", "b", 1), keyed("u", "a", 1)].concat())
            .await
            .expect("enqueue");
    }
    let all = read(&mut *session, 9).await;
    let rows = all
        .iter()
        .map(|m| row(m, DeliveryState::Parked))
        .rev()
        .collect();
    settle_rows(&mut *session, &all, rows).await;
    let found = parked(&mut *session, &key("t", "a")).await;
    assert_eq!(
        found.messages,
        [all[0].clone(), all[3].clone(), all[6].clone()]
    );
    assert_eq!((found.through, found.more), (None, false));
    assert_eq!(
        parked(&mut *session, &key("u", "a")).await.messages.len(),
        3
    );
    assert_eq!(
        parked(&mut *session, &key("u", "b")).await,
        Parked::default()
    );
}

/// A long queue comes in parts.
pub async fn parked_messages_end_at_the_limit_and_say_more(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 5)).await.expect("enqueue");
    let all = read(&mut *session, 5).await;
    settle_rows(
        &mut *session,
        &all,
        all.iter().map(|m| row(m, DeliveryState::Parked)).collect(),
    )
    .await;
    let limit = PageLimit {
        rows: 2,
        bytes: 1 << 20,
    };
    let mut left = all;
    while !left.is_empty() {
        let found = session.parked(&key("t", "k"), limit).await.expect("parked");
        let count = left.len().min(2);
        assert_eq!(found.messages, left[..count]);
        assert_eq!(found.more, left.len() > 2);
        let remove = left.drain(..count).map(|m| m.seq).collect();
        session
            .settle(&Settlement {
                remove,
                ..Settlement::default()
            })
            .await
            .expect("settle");
    }
    f.enqueue(keyed("t", "k", 2)).await.expect("enqueue");
    let all = read(&mut *session, 2).await;
    settle_rows(
        &mut *session,
        &all,
        all.iter().map(|m| row(m, DeliveryState::Parked)).collect(),
    )
    .await;
    let one = session
        .parked(&key("t", "k"), PageLimit { rows: 9, bytes: 1 })
        .await
        .expect("parked");
    assert_eq!((one.messages.len(), one.more), (1, true), "one always fits");
}

/// 60 followers, no row each.
async fn marked(f: &dyn Fixture) -> (Box<dyn Session>, Vec<Pending>) {
    let mut session = lead_all(f, "d").await;
    for n in 0..20 {
        f.enqueue([keyed("t", "k", 3), keyed("t", &format!("other-{n}"), 2)].concat())
            .await
            .expect("enqueue");
    }
    let all = read(&mut *session, 100).await;
    let settlement = Settlement {
        through: all[99].seq,
        upsert: vec![row(&all[0], DeliveryState::Retrying)],
        markers: vec![(key("t", "k"), Some(all[0].seq + 1))],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    (session, all)
}

/// Every follower, in order, whatever the limit.
pub async fn followers_behind_a_marker_are_read_again_from_the_log(f: &dyn Fixture) {
    let (mut session, all) = marked(f).await;
    let expected: Vec<_> = all[1..]
        .iter()
        .filter(|m| m.key.as_deref() == Some("k"))
        .cloned()
        .collect();
    for limit in [
        PageLimit {
            rows: 7,
            bytes: 1 << 20,
        },
        PageLimit {
            rows: 1_000,
            bytes: 3,
        },
    ] {
        let (found, through) = followers(&mut *session, &key("t", "k"), limit).await;
        assert_eq!(found, expected);
        assert!(through >= all[99].seq);
        let back = Settlement {
            markers: vec![(key("t", "k"), Some(all[0].seq + 1))],
            ..Settlement::default()
        };
        session.settle(&back).await.expect("settle");
    }
}

/// What was not read by this session is parked, or sent, when it is.
pub async fn followers_behind_a_marker_end_at_what_was_read(f: &dyn Fixture) {
    let (mut session, all) = marked(f).await;
    f.enqueue(keyed("t", "k", 5)).await.expect("enqueue");
    let (found, through) = followers(&mut *session, &key("t", "k"), PageLimit::default()).await;
    assert_eq!((found.len(), through), (59, all[99].seq));
    read(&mut *session, 5).await;
    let (found, through) = followers(&mut *session, &key("t", "k"), PageLimit::default()).await;
    assert_eq!(found.len(), 5);
    assert_eq!(Some(through), found.last().map(|m| m.seq));
}

/// A row says more than the marker does.
pub async fn followers_with_rows_of_their_own_are_left_out(f: &dyn Fixture) {
    let (mut session, all) = marked(f).await;
    let rows = vec![
        row(&all[1], DeliveryState::Scheduled),
        row(&all[5], DeliveryState::Dead),
    ];
    settle_rows(&mut *session, &all, rows).await;
    let (found, _) = followers(&mut *session, &key("t", "k"), PageLimit::default()).await;
    assert_eq!(found.len(), 57);
    assert!(
        found
            .iter()
            .all(|m| m.seq != all[1].seq && m.seq != all[5].seq)
    );
}

/// The domain is (topic, key), and only topics that were routed here.
pub async fn followers_of_other_keys_and_topics_are_left_out(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("d", &["t"])])
        .await
        .expect("declare");
    let mut session = lead(&*f.store(), "d", "first").await;
    let mixed = [
        keyed("t", "k", 2),
        keyed("u", "k", 2),
        keyed("t", "K", 1),
        keyed("t", "k", 1),
    ];
    f.enqueue(mixed.concat()).await.expect("enqueue");
    let all = read(&mut *session, 4).await;
    let settlement = Settlement {
        through: all[3].seq,
        upsert: vec![row(&all[0], DeliveryState::Retrying)],
        markers: vec![
            (key("t", "k"), Some(all[1].seq)),
            (key("u", "k"), Some(all[0].seq)),
        ],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let (found, _) = followers(&mut *session, &key("t", "k"), PageLimit::default()).await;
    assert_eq!(found, [all[1].clone(), all[3].clone()]);
    let (found, _) = followers(&mut *session, &key("u", "k"), PageLimit::default()).await;
    assert!(found.is_empty(), "{found:?}");
}

/// Rows are earlier than the marker behind them.
pub async fn parked_rows_go_before_the_marker(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 4)).await.expect("enqueue");
    let all = read(&mut *session, 4).await;
    let settlement = Settlement {
        through: all[3].seq,
        upsert: vec![
            row(&all[0], DeliveryState::Retrying),
            row(&all[1], DeliveryState::Parked),
        ],
        markers: vec![(key("t", "k"), Some(all[2].seq))],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let rows = parked(&mut *session, &key("t", "k")).await;
    assert_eq!((rows.messages.len(), rows.through), (1, None));
    assert_eq!(rows.messages[0].seq, all[1].seq);
    assert!(rows.more, "the marker's followers are behind it");
    let remove = Settlement {
        remove: vec![all[1].seq],
        ..Settlement::default()
    };
    session.settle(&remove).await.expect("settle");
    let behind = parked(&mut *session, &key("t", "k")).await;
    assert_eq!(behind.messages, all[2..]);
    assert!(behind.through >= Some(all[3].seq));
}

/// `None` clears it.
pub async fn a_cleared_marker_is_gone(f: &dyn Fixture) {
    let (mut session, all) = marked(f).await;
    let clear = Settlement {
        remove: vec![all[0].seq],
        markers: vec![(key("t", "k"), None)],
        ..Settlement::default()
    };
    session.settle(&clear).await.expect("settle");
    assert_eq!(
        parked(&mut *session, &key("t", "k")).await,
        Parked::default()
    );
    let session = lead(&*f.store(), "d", "second").await;
    assert_eq!(session.opened().keys, []);
    assert_eq!(status(f).await.destinations[0].parked_keys, 0);
}

/// At 0 blockers a key's parked messages are free to go.
pub async fn only_rows_that_block_count_as_blockers(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue([keyed("t", "a", 3), keyed("t", "b", 3)].concat())
        .await
        .expect("enqueue");
    let all = read(&mut *session, 6).await;
    let free = |m: &Pending, state| Exception {
        blocks_key: false,
        ..row(m, state)
    };
    let rows = vec![
        free(&all[0], DeliveryState::Dead),
        free(&all[1], DeliveryState::Expired),
        row(&all[2], DeliveryState::Parked),
        row(&all[3], DeliveryState::Dead),
        row(&all[4], DeliveryState::Retrying),
        row(&all[5], DeliveryState::Parked),
    ];
    settle_rows(&mut *session, &all, rows).await;
    let session = lead(&*f.store(), "d", "second").await;
    let mut keys = session.opened().keys.clone();
    keys.sort_by(|x, y| x.key.cmp(&y.key));
    let found: Vec<_> = keys
        .iter()
        .map(|k| (&*k.key.key, k.blockers, k.parked))
        .collect();
    assert_eq!(found, [("a", 0, 1), ("b", 2, 1)]);
}
