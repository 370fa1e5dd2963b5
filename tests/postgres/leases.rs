//! Leases fence the store: who lost one changes nothing.

use outbox_core::{DeliveryState, KeyRef, Message, Settlement, Store, StoreError};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::{claim, keyed, lead, read, row, settle_rows};
use sqlx::Row;

use crate::stage::{Stage, connect};

/// Everything that a settle could have changed, as one text.
async fn state(stage: &Stage) -> String {
    let all = "select concat_ws(' | ', \
        (select string_agg(p::text, ',' order by p.id) from \
            (select * from outbox.progress_0 union all select * from outbox.progress_1) p), \
        (select string_agg(g::text, ',' order by g.lo) from outbox.gap g), \
        (select string_agg(d::text, ',' order by d.seq) from outbox.delivery d), \
        (select string_agg(k::text, ',' order by k.key) from outbox.parked_key k), \
        (select string_agg(r::text, ',' order by r.id) from outbox.request r), \
        (select string_agg(u::text, ',' order by u.topic) from outbox.unrouted u))";
    sqlx::query(all)
        .fetch_one(stage.pool())
        .await
        .expect("state")
        .get(0)
}

/// A settlement that writes to every table.
async fn everything(stage: &Stage, session: &mut dyn outbox_core::Session) -> Settlement {
    stage.enqueue(keyed("t", "k", 4)).await;
    let first = read(session, 4).await;
    settle_rows(
        session,
        &first[..1],
        vec![row(&first[0], DeliveryState::Retrying)],
    )
    .await;
    stage
        .run("insert into outbox.request (destination, action, seqs) values ('d', 'resend', '{1}')")
        .await;
    let mut open = stage.pool().begin().await.expect("begin");
    Outbox::default()
        .enqueue(&mut open, Message::bytes("t", "gap"))
        .await
        .expect("enqueue");
    stage.enqueue(keyed("t", "k", 1)).await;
    let last = read(session, 1).await;
    open.rollback().await.expect("roll back");
    let request = session.requests().await.expect("requests");
    Settlement {
        through: last[0].seq,
        late: Vec::new(),
        upsert: vec![row(&first[1], DeliveryState::Dead)],
        remove: vec![first[0].seq],
        markers: vec![(
            KeyRef {
                topic: "t".into(),
                key: "k".into(),
            },
            Some(first[2].seq),
        )],
        requests: request.iter().map(|r| r.id).collect(),
    }
}

#[tokio::test]
async fn a_zombie_that_settles_everything_changes_nothing() {
    let stage = Stage::new().await;
    let mut zombie = stage.lead_all("d").await;
    let settlement = everything(&stage, &mut *zombie).await;
    let before = state(&stage).await;
    claim(&stage.store, "d", "second").await;
    let lost = zombie.settle(&settlement).await.expect_err("stale");
    assert!(
        matches!(lost, StoreError::LeaseLost { epoch: 1, .. }),
        "{lost}"
    );
    assert_eq!(state(&stage).await, before);
}

#[tokio::test]
async fn the_same_settlement_under_the_lease_writes_to_every_table() {
    let stage = Stage::new().await;
    let mut leader = stage.lead_all("d").await;
    let settlement = everything(&stage, &mut *leader).await;
    leader.settle(&settlement).await.expect("settle");
    let after = state(&stage).await;
    for part in [",dead,", "(d,t,k,", "resend"] {
        assert!(after.contains(part), "{part} is not in {after}");
    }
    assert_eq!(stage.number("select count(*) from outbox.gap").await, 1);
    assert_eq!(
        stage.number("select count(*) from outbox.delivery").await,
        1
    );
    let applied = "select count(*) from outbox.request where applied_at is not null";
    assert_eq!(stage.number(applied).await, 1);
}

/// The takeover has happened but is not committed: the settle must wait for it, and then see it.
#[tokio::test]
async fn a_settle_waits_for_a_takeover_that_is_under_way() {
    let stage = Stage::new().await;
    let mut zombie = stage.lead_all("d").await;
    let settlement = everything(&stage, &mut *zombie).await;
    let before = state(&stage).await;
    let mut takeover = stage.pool().begin().await.expect("begin");
    sqlx::query("update outbox.lease set epoch = epoch + 1, owner = 'second'")
        .execute(&mut *takeover)
        .await
        .expect("take over");
    let settling = tokio::spawn(async move { zombie.settle(&settlement).await });
    wait_until_blocked(&stage).await;
    takeover.commit().await.expect("commit");
    let lost = settling.await.expect("settle").expect_err("stale");
    assert!(matches!(lost, StoreError::LeaseLost { .. }), "{lost}");
    assert_eq!(state(&stage).await, before);
}

/// Until some backend of this database waits for a lock.
async fn wait_until_blocked(stage: &Stage) {
    let waiting = "select count(*) from pg_stat_activity \
        where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..10_000 {
        if stage.number(waiting).await > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("nobody waited for the takeover");
}

#[tokio::test]
async fn a_heart_beats_on_after_its_connection_was_cut() {
    let stage = Stage::new().await;
    stage.store.beat("first").await.expect("beat");
    stage
        .run(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity \
              where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    let board = stage.store.beat("first").await.expect("beat");
    assert_eq!(board.instances[0].beat, 2);
    stage.store.leave("first").await.expect("leave");
    assert!(
        stage
            .store
            .beat("second")
            .await
            .expect("beat")
            .instances
            .len()
            == 1
    );
}

/// The least rights: a login that is a member of `outbox_relay` and nothing else.
#[tokio::test]
async fn a_login_of_the_relay_role_can_do_all_that_a_relay_does() {
    let stage = Stage::new().await;
    drop(stage.lead_all("d").await);
    let url = stage.database.login("outbox_relay").await.expect("login");
    let store = connect(&url, "outbox").await;
    store.check().await.expect("check");
    let mut session = lead(&store, "d", "second").await;
    let settlement = everything(&stage, &mut *session).await;
    session.settle(&settlement).await.expect("settle");
    session.poll().await.expect("poll");
    session
        .due(chrono::Utc::now(), Default::default())
        .await
        .expect("due");
    let key = KeyRef {
        topic: "t".into(),
        key: "k".into(),
    };
    session
        .parked(&key, Default::default())
        .await
        .expect("parked");
    store.leave("second").await.expect("leave");
    let pool = sqlx::PgPool::connect(&url).await.expect("connect");
    for forbidden in [
        "insert into outbox.message (id, topic, payload) values (gen_random_uuid(), 't', '')",
        "delete from outbox.message",
        "select outbox.enqueue('t', '1')",
    ] {
        let refused = sqlx::query(forbidden)
            .execute(&pool)
            .await
            .expect_err(forbidden);
        assert!(
            refused.to_string().contains("permission denied"),
            "{forbidden}: {refused}"
        );
    }
}
