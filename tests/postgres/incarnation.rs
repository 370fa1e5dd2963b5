//! Crash, promotion, copy, and everything else after which seqs are used again.

use std::collections::HashSet;

use outbox_core::{Message, PageLimit, Pending, Seq, Settlement, Store, StoreError};
use outbox_postgres::{Outbox, PostgresStore};
use outbox_tests::conformance::stage::{claim, destination, lead, messages, read, through};
use outbox_tests::postgres::{Server, ServerOptions, TestDb};
use sqlx::PgPool;

use crate::stage::{Stage, connect};

/// A private server on which nothing is flushed but when somebody forces it.
async fn asynchronous_server() -> Server {
    let settings = ["fsync=on", "synchronous_commit=off", "wal_writer_delay=10s"];
    let settings = settings.map(str::to_owned).to_vec();
    Server::start(ServerOptions { settings })
        .await
        .expect("server")
}

pub async fn enqueue(pool: &PgPool, messages: Vec<Message>) {
    let mut tx = pool.begin().await.expect("begin");
    Outbox::default()
        .enqueue_all(&mut tx, messages)
        .await
        .expect("enqueue");
    tx.commit().await.expect("commit");
}

async fn seqs_stored(pool: &PgPool) -> Vec<Seq> {
    let all = "select seq from outbox.message order by seq";
    sqlx::query_scalar(all).fetch_all(pool).await.expect("seqs")
}

fn seqs(messages: &[Pending]) -> Vec<Seq> {
    messages.iter().map(|m| m.seq).collect()
}

pub async fn migrated(url: &str) -> PostgresStore {
    let store = connect(url, "outbox").await;
    outbox_core::Admin::migrate(&store).await.expect("migrate");
    let declared = [destination("d", &["*"])];
    outbox_core::Admin::declare(&store, &declared)
        .await
        .expect("declare");
    store
}

#[tokio::test]
async fn what_a_crash_takes_back_was_never_handed_out_and_its_seqs_come_again() {
    let server = asynchronous_server().await;
    let database = TestDb::on(&server).await.expect("database");
    let store = migrated(database.url()).await;
    let pool = database.pool();
    let mut session = lead(&store, "d", "first").await;
    let mut handed_out = Vec::new();
    for _ in 0..10 {
        enqueue(pool, messages("t", 10)).await;
        handed_out.extend(read(&mut *session, 10).await);
    }
    session.settle(&through(50)).await.expect("settle");
    // Visible, and nowhere on disk.
    enqueue(pool, messages("t", 40)).await;
    server.kill9().await.expect("kill");
    server.restart().await.expect("restart");

    let survived = seqs_stored(pool).await;
    let lost: Vec<Seq> = seqs(&handed_out)
        .into_iter()
        .filter(|s| !survived.contains(s))
        .collect();
    assert_eq!(
        lost,
        Vec::<Seq>::new(),
        "handed out, then taken back by the crash"
    );
    assert!(
        survived.len() < 140,
        "the crash took nothing back: nothing was put to the test"
    );
    let broken = session
        .page(PageLimit::default())
        .await
        .expect_err("the connection is gone");
    assert!(matches!(broken, StoreError::Outage(_)), "{broken}");

    let mut again = lead(&store, "d", "second").await;
    let cursor = again.opened().cursor;
    enqueue(pool, messages("again", 50)).await;
    let expected: Vec<Seq> = seqs_stored(pool)
        .await
        .into_iter()
        .filter(|&seq| seq > cursor)
        .collect();
    let read = read(&mut *again, expected.len()).await;
    assert_eq!(
        seqs(&read).into_iter().collect::<HashSet<_>>(),
        expected.into_iter().collect()
    );
}

#[tokio::test]
async fn after_a_promotion_seqs_that_are_used_again_are_not_skipped() {
    let primary = asynchronous_server().await;
    let database = TestDb::on(&primary).await.expect("database");
    let store = migrated(database.url()).await;
    let mut session = lead(&store, "d", "first").await;
    enqueue(database.pool(), messages("t", 50)).await;
    read(&mut *session, 50).await;
    session.settle(&through(40)).await.expect("settle");
    sqlx::query("checkpoint")
        .execute(database.pool())
        .await
        .expect("checkpoint");
    let standby = primary.standby().await.expect("standby");
    let there = sqlx::PgPool::connect(&standby.url(database.name()))
        .await
        .expect("connect");
    while seqs_stored(&there).await.len() < 50 {
        tokio::task::yield_now().await;
    }
    let refused = connect(&standby.url(database.name()), "outbox")
        .await
        .check()
        .await;
    let refused = refused.expect_err("a standby").to_string();
    assert!(refused.contains("recovery"), "{refused}");
    there.close().await;
    standby.stop().await.expect("stop");
    // Only the old primary ever sees these.
    enqueue(database.pool(), messages("t", 60)).await;
    read(&mut *session, 60).await;
    session.settle(&through(110)).await.expect("settle");
    let before = session.opened().incarnation.clone();
    primary.kill9().await.expect("kill");

    standby.restart().await.expect("restart");
    standby.promote().await.expect("promote");
    let url = standby.url(database.name());
    let promoted = connect(&url, "outbox").await;
    let mut again = lead(&promoted, "d", "second").await;
    assert_ne!(
        again.opened().incarnation,
        before,
        "the timeline is another one"
    );
    assert_eq!(again.opened().cursor, 40);
    let pool = PgPool::connect(&url).await.expect("connect");
    enqueue(&pool, messages("again", 60)).await;
    let stored = seqs_stored(&pool).await;
    assert!(
        stored
            .iter()
            .filter(|&&seq| (51..=110).contains(&seq))
            .count()
            > 0,
        "{stored:?}"
    );
    let read = read(&mut *again, 70).await;
    let settled = Settlement {
        through: *stored.last().expect("some"),
        ..Settlement::default()
    };
    again.settle(&settled).await.expect("settle");
    let expected: HashSet<Seq> = stored.into_iter().filter(|&seq| seq > 40).collect();
    assert_eq!(seqs(&read).into_iter().collect::<HashSet<_>>(), expected);
    pool.close().await;
}

/// A pooler may hide a crash: the session's row is gone then, for its table is unlogged.
#[tokio::test]
async fn a_session_that_lost_its_row_reads_nothing_more() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.enqueue(messages("t", 1)).await;
    stage.run("truncate outbox.session").await;
    let error = session
        .page(PageLimit::default())
        .await
        .expect_err("no row");
    assert!(matches!(error, StoreError::Outage(_)), "{error}");
}

#[tokio::test]
async fn a_sequence_that_went_back_stops_the_relay_until_its_cure_is_run() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.enqueue(messages("t", 20)).await;
    read(&mut *session, 20).await;
    session.settle(&through(20)).await.expect("settle");
    stage.skip_to(5).await;
    let behind = session.poll().await.expect_err("behind");
    assert!(
        matches!(
            behind,
            StoreError::SequenceBehind {
                last: 5,
                high_water: 20,
                ..
            }
        ),
        "{behind}"
    );
    let lease = claim(&stage.store, "d", "second").await;
    let behind = stage
        .store
        .open(&lease)
        .await
        .map(drop)
        .expect_err("behind");
    let StoreError::SequenceBehind { cure, .. } = behind else {
        panic!("{behind}");
    };
    sqlx::query(sqlx::AssertSqlSafe(cure))
        .execute(stage.pool())
        .await
        .expect("the cure runs");
    let mut session = stage.store.open(&lease).await.expect("open");
    stage.enqueue(messages("t", 1)).await;
    assert_eq!(read(&mut *session, 1).await[0].seq, 21);
}

#[tokio::test]
async fn row_level_security_is_an_error_and_not_a_loss() {
    let stage = Stage::new().await;
    drop(stage.lead_all("d").await);
    let url = stage.database.login("outbox_relay").await.expect("login");
    let store = connect(&url, "outbox").await;
    let mut session = lead(&store, "d", "second").await;
    stage
        .run(
            "alter table outbox.message enable row level security; \
        create policy even on outbox.message for select using (seq % 2 = 0); create policy writers on outbox.message for insert with check (true)",
        )
        .await;
    stage.enqueue(messages("t", 10)).await;
    let refused = session
        .page(PageLimit::default())
        .await
        .expect_err("hidden rows");
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    let refused = store.check().await.expect_err("hidden rows").to_string();
    assert!(
        refused.contains("row-level security") && refused.contains("bypassrls"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_half_detached_partition_is_refused_with_its_cure() {
    let stage = Stage::new().await;
    drop(stage.lead_all("d").await);
    stage.store.check().await.expect("whole");
    stage
        .run(
            "update pg_inherits set inhdetachpending = true \
        where inhrelid = 'outbox.message_p1'::regclass",
        )
        .await;
    let refused = stage
        .store
        .check()
        .await
        .expect_err("half detached")
        .to_string();
    assert!(refused.contains("finalize"), "{refused}");
}
