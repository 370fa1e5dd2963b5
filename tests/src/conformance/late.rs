//! Late commits: a seq that becomes visible after a later one was handed out.

use std::time::Duration;

use outbox_core::{PageLimit, Pending, Session, Settlement};

use super::Fixture;
use super::stage::*;
use crate::condition::until;

/// Time within which a store must find that a transaction was rolled back.
const GAP_TIMEOUT: Duration = Duration::from_secs(20);

/// Two messages in an open transaction, then two committed ones, read and settled.
async fn overtaken(f: &dyn Fixture) -> (Box<dyn Session>, Box<dyn super::Open>, Vec<Pending>) {
    assert!(
        f.commits_late(),
        "this suite is for stores that commit late"
    );
    let mut session = lead_all(f, "d").await;
    let open = f.enqueue_open(messages("late", 2)).await.expect("enqueue");
    f.enqueue(messages("t", 2)).await.expect("enqueue");
    let all = read(&mut *session, 2).await;
    session.settle(&through(all[1].seq)).await.expect("settle");
    (session, open, all)
}

/// Skipping it would lose it.
pub async fn a_late_commit_is_delivered_and_flagged(f: &dyn Fixture) {
    let (mut session, open, all) = overtaken(f).await;
    assert!(all.iter().all(|m| !m.late));
    open.commit().await;
    assert!(session.poll().await.expect("poll"), "gaps are open");
    let late = read(&mut *session, 2).await;
    assert!(late.iter().all(|m| m.late && m.seq < all[0].seq));
    assert_eq!(payloads(&late), ["0", "1"]);
}

/// Open gaps are known to the next leader.
pub async fn a_late_commit_is_delivered_after_a_crash(f: &dyn Fixture) {
    let (session, open, _) = overtaken(f).await;
    drop(session);
    let mut session = lead(&*f.store(), "d", "second").await;
    open.commit().await;
    assert_eq!(payloads(&read(&mut *session, 2).await), ["0", "1"]);
    drop(session);
    let mut session = lead(&*f.store(), "d", "third").await;
    assert_eq!(
        payloads(&read(&mut *session, 2).await),
        ["0", "1"],
        "until it is settled"
    );
}

/// Or they would pile up.
pub async fn a_gap_of_a_rolled_back_transaction_closes(f: &dyn Fixture) {
    let (mut session, open, all) = overtaken(f).await;
    open.roll_back().await;
    let mut last = all[1].seq;
    // What closes it is in the database's own lists of transactions and locks.
    until("the gap closes", GAP_TIMEOUT, async || {
        f.enqueue(messages("t", 1)).await.expect("enqueue");
        let page = session.page(PageLimit::default()).await.expect("page");
        assert!(page.messages.iter().all(|m| &*m.topic == "t"));
        last = last.max(page.through);
        session.settle(&through(last)).await.expect("settle");
        Ok(page.gaps_open == 0 && status(f).await.destinations[0].gaps == 0)
    })
    .await
    .expect("in time");
}

/// Once accounted for, it is done with.
pub async fn a_settled_late_message_does_not_come_again(f: &dyn Fixture) {
    let (mut session, open, all) = overtaken(f).await;
    open.commit().await;
    let late = read(&mut *session, 2).await;
    let settlement = Settlement {
        through: all[1].seq,
        late: late.iter().map(|m| m.seq).collect(),
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    nothing_more(&mut *session).await;
    let mut session = lead(&*f.store(), "d", "second").await;
    nothing_more(&mut *session).await;
    assert_eq!(session.opened().cursor, all[1].seq);
}

/// Promise 6.
pub async fn an_open_transaction_delays_only_its_own_messages(f: &dyn Fixture) {
    let (mut session, open, _) = overtaken(f).await;
    for _ in 0..20 {
        f.enqueue(messages("t", 5)).await.expect("enqueue");
        let all = read(&mut *session, 5).await;
        session.settle(&through(all[4].seq)).await.expect("settle");
    }
    open.commit().await;
    assert!(read(&mut *session, 2).await.iter().all(|m| m.late));
}

/// What may still come was never published.
pub async fn the_low_water_waits_for_an_open_gap(f: &dyn Fixture) {
    let (_, open, all) = overtaken(f).await;
    let session = lead(&*f.store(), "d", "second").await;
    assert!(session.opened().low_water < all[0].seq);
    open.commit().await;
}
