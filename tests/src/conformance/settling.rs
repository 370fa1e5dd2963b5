//! Settlements: the cursor, delivery rows, and the guard of the epoch.

use std::time::Duration;

use outbox_core::{DeliveryState, Exception, Settlement, StoreError};

use super::Fixture;
use super::stage::*;

/// `through` below the cursor leaves it unchanged.
pub async fn a_settle_moves_the_cursor_and_never_back(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 3)).await.expect("enqueue");
    let read = read(&mut *session, 3).await;
    for (to, cursor) in [(1, 1), (0, 1), (2, 2)] {
        session
            .settle(&through(read[to].seq))
            .await
            .expect("settle");
        assert_eq!(status(f).await.destinations[0].cursor, read[cursor].seq);
    }
    session.settle(&through(0)).await.expect("settle");
    assert_eq!(status(f).await.destinations[0].cursor, read[2].seq);
}

/// A zombie changes nothing in the store, whatever it settles.
pub async fn a_settle_with_a_stale_epoch_changes_nothing(f: &dyn Fixture) {
    let mut zombie = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 3)).await.expect("enqueue");
    let all = read(&mut *zombie, 3).await;
    settle_rows(
        &mut *zombie,
        &all[..1],
        vec![row(&all[0], DeliveryState::Dead)],
    )
    .await;
    f.admin()
        .request(
            "d",
            outbox_core::RequestAction::Discard,
            &outbox_core::Selection::Ids(vec![all[0].id]),
        )
        .await
        .expect("request");
    let request = zombie.requests().await.expect("requests")[0].id;
    let mut leader = lead(&*f.store(), "d", "second").await;
    let before = (status(f).await, exceptions(f).await);
    let settlement = Settlement {
        through: all[2].seq,
        late: vec![],
        upsert: vec![
            row(&all[1], DeliveryState::Retrying),
            row(&all[0], DeliveryState::Expired),
        ],
        remove: vec![all[0].seq],
        markers: vec![(key("t", "k"), Some(all[2].seq))],
        requests: vec![request],
    };
    let lost = zombie
        .settle(&settlement)
        .await
        .expect_err("the lease is lost");
    assert!(matches!(lost, StoreError::LeaseLost { .. }), "{lost}");
    assert_eq!(before, (status(f).await, exceptions(f).await));
    assert_eq!(leader.requests().await.expect("requests").len(), 1);
    let reopened = read(&mut *leader, 2).await;
    assert_eq!(payloads(&reopened), ["1", "2"]);
}

async fn exceptions(f: &dyn Fixture) -> Vec<outbox_core::ExceptionRow> {
    let all = outbox_core::ExceptionFilter::default();
    f.admin().exceptions(&all).await.expect("exceptions")
}

/// A released lease is over, though nobody has taken it.
pub async fn a_settle_after_the_release_changes_nothing(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    let lease = claim(&*f.store(), "d", "first").await;
    let mut session = f.store().open(&lease).await.expect("open");
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    f.store().release(&lease).await.expect("release");
    let lost = session
        .settle(&through(all[0].seq))
        .await
        .expect_err("the lease is lost");
    assert!(matches!(lost, StoreError::LeaseLost { .. }), "{lost}");
    assert_eq!(status(f).await.destinations[0].cursor, 0);
}

/// What was read and not settled comes again; what was settled does not.
pub async fn a_session_reads_on_from_the_cursor_when_it_reopens(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 5)).await.expect("enqueue");
    let first = read(&mut *session, 5).await;
    session
        .settle(&through(first[1].seq))
        .await
        .expect("settle");
    drop(session);
    let mut session = lead(&*f.store(), "d", "second").await;
    assert_eq!(session.opened().cursor, first[1].seq);
    let again = read(&mut *session, 3).await;
    assert_eq!(again, first[2..]);
}

/// Nothing that the relay knows survives its connection, so the store must know it all.
pub async fn a_session_reads_rows_keys_and_markers_when_it_reopens(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue([keyed("t", "a", 3), keyed("t", "b", 2), messages("t", 1)].concat())
        .await
        .expect("enqueue");
    let all = read(&mut *session, 6).await;
    let settlement = Settlement {
        through: all[5].seq,
        upsert: vec![
            row(&all[0], DeliveryState::Retrying),
            row(&all[1], DeliveryState::Parked),
            row(&all[3], DeliveryState::Dead),
            row(&all[5], DeliveryState::Scheduled),
        ],
        markers: vec![
            (key("t", "a"), Some(all[2].seq)),
            (key("t", "b"), Some(all[4].seq)),
        ],
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    let session = lead(&*f.store(), "d", "second").await;
    let opened = session.opened();
    assert_eq!((opened.cursor, opened.waiting), (all[5].seq, 2));
    assert_eq!(opened.low_water, all[0].seq);
    let mut keys = opened.keys.clone();
    keys.sort_by(|x, y| x.key.cmp(&y.key));
    let found: Vec<_> = keys
        .iter()
        .map(|k| (&*k.key.key, k.blockers, k.parked, k.marker))
        .collect();
    assert_eq!(
        found,
        [("a", 1, 1, Some(all[2].seq)), ("b", 1, 0, Some(all[4].seq))]
    );
}

/// One row for each (destination, seq).
pub async fn a_row_is_replaced_by_a_later_one_of_its_seq(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 1)).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    settle_rows(
        &mut *session,
        &all,
        vec![row(&all[0], DeliveryState::Retrying)],
    )
    .await;
    let dead = Exception {
        attempts: 7,
        last_error: Some("refused: ü".to_owned()),
        redelivery: 2,
        ..row(&all[0], DeliveryState::Dead)
    };
    settle_rows(&mut *session, &all, vec![dead]).await;
    let rows = exceptions(f).await;
    assert_eq!(rows.len(), 1);
    let found = &rows[0];
    assert_eq!(
        (found.state, found.attempts, found.next_attempt),
        (DeliveryState::Dead, 7, None)
    );
    assert_eq!(
        (found.last_error.as_deref(), found.blocks_key),
        (Some("refused: ü"), true)
    );
    assert_eq!(
        (found.seq, found.id, found.key.as_deref()),
        (all[0].seq, all[0].id, Some("k"))
    );
    let remove = Settlement {
        remove: vec![all[0].seq],
        ..Settlement::default()
    };
    session.settle(&remove).await.expect("settle");
    assert!(exceptions(f).await.is_empty());
}

/// The idle leader costs nothing.
pub async fn an_empty_settlement_writes_nothing(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    session.settle(&through(all[0].seq)).await.expect("settle");
    let before = (status(f).await, lease_row(&*f.store(), "d").await);
    session
        .settle(&Settlement::default())
        .await
        .expect("settle");
    session.settle(&through(all[0].seq)).await.expect("settle");
    assert_eq!(before, (status(f).await, lease_row(&*f.store(), "d").await));
}

/// A broker may forget what is below it, so nothing that is still to be sent may be below it. (A
/// resend of a dead message passes by its raised redelivery number, so the dead do not count.)
pub async fn the_low_water_waits_for_what_is_still_to_be_sent(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 5)).await.expect("enqueue");
    let all = read(&mut *session, 5).await;
    let states = [
        DeliveryState::Dead,
        DeliveryState::Retrying,
        DeliveryState::Parked,
        DeliveryState::Scheduled,
    ];
    let rows = all.iter().zip(states).map(|(m, s)| row(m, s)).collect();
    settle_rows(&mut *session, &all, rows).await;
    for n in 1..4 {
        let mut session = lead(&*f.store(), "d", &format!("leader-{n}")).await;
        let low_water = session.opened().low_water;
        assert!(low_water <= all[n].seq, "{} waits", states[n]);
        assert!(n == 1 || low_water > all[n - 1].seq, "it moves on");
        let remove = Settlement {
            remove: vec![all[n].seq],
            ..Settlement::default()
        };
        session.settle(&remove).await.expect("settle");
    }
    let mut session = lead(&*f.store(), "d", "marker").await;
    assert_eq!(session.opened().low_water, all[4].seq + 1);
    let marker = Settlement {
        markers: vec![(key("t", "k"), Some(all[2].seq))],
        ..Settlement::default()
    };
    session.settle(&marker).await.expect("settle");
    let session = lead(&*f.store(), "d", "last").await;
    assert!(session.opened().low_water <= all[2].seq, "a marker waits");
}

/// A settlement has no limit of its own.
pub async fn a_settlement_of_many_rows_is_written_whole(f: &dyn Fixture) {
    const MANY: usize = 5_000;
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", MANY)).await.expect("enqueue");
    let all = read(&mut *session, MANY).await;
    let mut rows: Vec<_> = all.iter().map(|m| row(m, DeliveryState::Parked)).collect();
    rows[0] = row(&all[0], DeliveryState::Retrying);
    settle_rows(&mut *session, &all, rows).await;
    let one = status(f).await.destinations.remove(0);
    assert_eq!((one.retrying, one.parked), (1, MANY as u64 - 1));
    let remove = Settlement {
        remove: all.iter().map(|m| m.seq).collect(),
        ..Settlement::default()
    };
    tokio::time::timeout(Duration::from_secs(30), session.settle(&remove))
        .await
        .expect("in time")
        .expect("settle");
    let one = status(f).await.destinations.remove(0);
    assert_eq!((one.retrying, one.parked), (0, 0));
}
