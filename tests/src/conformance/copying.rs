//! A copy of a store must not publish until somebody says that it is now the one.

use outbox_core::StoreError;

use super::Fixture;
use super::stage::*;

/// A staging clone would send everything a second time.
pub async fn a_copy_does_not_open_until_it_is_adopted(f: &dyn Fixture) {
    let session = lead_all(f, "d").await;
    f.enqueue(messages("t", 2)).await.expect("enqueue");
    let copy = f.copied().await;
    let lease = claim(&*copy.store(), "d", "copy").await;
    let foreign = copy
        .store()
        .open(&lease)
        .await
        .map(drop)
        .expect_err("foreign");
    assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");
    assert!(foreign.to_string().contains("outbox adopt"), "{foreign}");
    assert_eq!(copy.admin().adopt().await.expect("adopt"), ["d"]);
    let adopted = lead(&*copy.store(), "d", "copy").await;
    assert_ne!(adopted.opened().incarnation, session.opened().incarnation);
    let at_home = lead(&*f.store(), "d", "second").await;
    assert_eq!(
        at_home.opened().incarnation,
        session.opened().incarnation,
        "the original goes on"
    );
}

/// Cursor and rows come with it.
pub async fn an_adopted_copy_goes_on_where_the_original_stood(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    f.enqueue(keyed("t", "k", 5)).await.expect("enqueue");
    let all = read(&mut *session, 5).await;
    let retrying = vec![row(&all[1], outbox_core::DeliveryState::Retrying)];
    settle_rows(&mut *session, &all[..2], retrying).await;
    let copy = f.copied().await;
    copy.admin().adopt().await.expect("adopt");
    let mut adopted = lead(&*copy.store(), "d", "copy").await;
    assert_eq!(
        (adopted.opened().cursor, adopted.opened().waiting),
        (all[1].seq, 1)
    );
    assert_eq!(payloads(&read(&mut *adopted, 3).await), ["2", "3", "4"]);
    copy.enqueue(messages("t", 1)).await.expect("enqueue");
    let next = read(&mut *adopted, 1).await;
    assert!(next[0].seq > all[4].seq);
}

/// `adopt` may be run by mistake.
pub async fn adopting_a_store_at_home_changes_nothing(f: &dyn Fixture) {
    let session = lead_all(f, "d").await;
    assert_eq!(
        f.admin().adopt().await.expect("adopt"),
        Vec::<String>::new()
    );
    let reopened = lead(&*f.store(), "d", "second").await;
    assert_eq!(reopened.opened().incarnation, session.opened().incarnation);
}
