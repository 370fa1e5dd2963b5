//! Leases and beats: one leader for each destination.

use outbox_core::{Destination, Lease, StoreError};

use super::Fixture;
use super::stage::*;

async fn declare(f: &dyn Fixture) {
    f.admin()
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
}

/// Of many that saw the same lease, one gets it.
pub async fn a_lease_is_claimed_by_one_only(f: &dyn Fixture) {
    declare(f).await;
    let seen = lease_row(&*f.store(), "d").await;
    assert_eq!(seen.owner, None);
    let (other, _) = f.another_process().await;
    let mut claims = tokio::task::JoinSet::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { f.store() } else { other.clone() };
        let seen = seen.clone();
        claims.spawn(async move { store.claim(&seen, &format!("relay-{n}")).await });
    }
    let mut taken = Vec::new();
    while let Some(claimed) = claims.join_next().await {
        taken.extend(claimed.expect("no panic").expect("claim"));
    }
    assert_eq!(taken.len(), 1, "{taken:?}");
    let row = lease_row(&*f.store(), "d").await;
    assert_eq!(
        (row.owner.as_ref(), row.epoch),
        (Some(&taken[0].owner), taken[0].epoch)
    );
}

/// Owner and epoch must both be as seen.
pub async fn a_claim_on_what_was_seen_before_fails(f: &dyn Fixture) {
    declare(f).await;
    let store = f.store();
    let seen = lease_row(&*store, "d").await;
    let lease = store
        .claim(&seen, "first")
        .await
        .expect("claim")
        .expect("taken");
    assert_eq!(store.claim(&seen, "second").await.expect("claim"), None);
    let mut wrong_owner = lease_row(&*store, "d").await;
    wrong_owner.owner = None;
    assert_eq!(
        store.claim(&wrong_owner, "second").await.expect("claim"),
        None
    );
    let row = lease_row(&*store, "d").await;
    assert_eq!(
        (row.owner, row.epoch),
        (Some("first".to_owned()), lease.epoch)
    );
}

/// Old epochs never come back.
pub async fn the_epoch_grows_with_every_claim_and_only_then(f: &dyn Fixture) {
    declare(f).await;
    let store = f.store();
    let mut last = lease_row(&*store, "d").await.epoch;
    for instance in ["a", "b", "a"] {
        let lease = claim(&*store, "d", instance).await;
        assert!(lease.epoch > last);
        last = lease.epoch;
        store.release(&lease).await.expect("release");
        assert_eq!(lease_row(&*store, "d").await.epoch, last);
    }
}

/// A graceful stop hands over.
pub async fn a_released_lease_is_free_at_once(f: &dyn Fixture) {
    declare(f).await;
    let lease = claim(&*f.store(), "d", "first").await;
    f.store().release(&lease).await.expect("release");
    let (other, _) = f.another_process().await;
    let seen = lease_row(&*other, "d").await;
    assert_eq!(seen.owner, None);
    assert!(other.claim(&seen, "second").await.expect("claim").is_some());
}

/// A late release must not take the lease from its new owner.
pub async fn releasing_a_lost_lease_does_nothing(f: &dyn Fixture) {
    declare(f).await;
    let lost = claim(&*f.store(), "d", "first").await;
    let held = claim(&*f.store(), "d", "second").await;
    f.store().release(&lost).await.expect("release");
    let row = lease_row(&*f.store(), "d").await;
    assert_eq!(
        (row.owner, row.epoch),
        (Some("second".to_owned()), held.epoch)
    );
}

/// What takeover is decided by.
pub async fn beats_grow_and_every_process_sees_them(f: &dyn Fixture) {
    declare(f).await;
    let (other, _) = f.another_process().await;
    let first = f.store().beat("a").await.expect("beat");
    let second = other.beat("b").await.expect("beat");
    let third = f.store().beat("a").await.expect("beat");
    let beat = |board: &outbox_core::Board, of: &str| {
        board
            .instances
            .iter()
            .find(|b| b.instance == of)
            .map(|b| b.beat)
    };
    assert!(beat(&first, "a").is_some() && beat(&first, "b").is_none());
    assert_eq!(beat(&second, "a"), beat(&first, "a"));
    assert!(beat(&third, "a") > beat(&first, "a"));
    assert_eq!(beat(&third, "b"), beat(&second, "b"));
    let names: Vec<_> = third
        .instances
        .iter()
        .map(|b| b.instance.as_str())
        .collect();
    assert_eq!(names, ["a", "b"], "sorted");
    assert_eq!(third.leases.len(), 1);
}

/// Pausing.
pub async fn a_paused_destination_is_claimed_by_nobody(f: &dyn Fixture) {
    let paused = Destination {
        paused: true,
        ..destination("d", &["*"])
    };
    f.admin().declare(&[paused]).await.expect("declare");
    let seen = lease_row(&*f.store(), "d").await;
    assert!(seen.paused);
    assert_eq!(f.store().claim(&seen, "first").await.expect("claim"), None);
    declare(f).await;
    claim(&*f.store(), "d", "first").await;
}

/// The lease is verified where the session begins.
pub async fn a_session_does_not_open_on_a_lost_lease(f: &dyn Fixture) {
    declare(f).await;
    let lost = claim(&*f.store(), "d", "first").await;
    claim(&*f.store(), "d", "second").await;
    let future = Lease {
        epoch: lost.epoch + 7,
        ..lost.clone()
    };
    for lease in [lost, future] {
        let error = f.store().open(&lease).await.map(drop).expect_err("lost");
        assert!(matches!(error, StoreError::LeaseLost { .. }), "{error}");
    }
}
