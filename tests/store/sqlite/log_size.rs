//! The write-ahead log: it cannot start again while a reader is in the middle of it.

use outbox_core::{Message, Store};
use outbox_sqlite::limits::WAL_BYTES_MAX;
use outbox_tests::conformance::Fixture;
use outbox_tests::conformance::stage::*;

use super::{SqliteFixture, fixture};

fn wal_bytes(f: &SqliteFixture) -> u64 {
    let wal = f.folder.path().join("outbox.db-wal");
    std::fs::metadata(wal).expect("a log").len()
}

/// More than the log may hold, in some transactions.
async fn fill(f: &SqliteFixture) {
    let payload = vec![7_u8; outbox_core::limits::PAYLOAD_BYTES_MAX];
    let count = WAL_BYTES_MAX as usize / payload.len() / 8 + 1;
    for _ in 0..8 {
        let batch = vec![(); count];
        let batch = batch.iter().map(|()| Message::bytes("t", payload.clone()));
        f.enqueue(batch.collect()).await.expect("enqueue");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn house_keeping_empties_the_log_as_soon_as_no_reader_is_in_it() {
    let f = fixture().await;
    f.enqueue(messages("t", 1)).await.expect("enqueue");
    let mut reader = f.pool.begin().await.expect("begin");
    sqlx::query("SELECT count(*) FROM outbox_message")
        .fetch_one(&mut *reader)
        .await
        .expect("read");
    fill(&f).await;
    assert!(wal_bytes(&f) > WAL_BYTES_MAX, "the reader holds it");
    let starved = f.store.maintain(&keep_nothing()).await.expect("maintain");
    assert!(starved.put_off > 0, "{starved:?}");
    assert!(wal_bytes(&f) > WAL_BYTES_MAX);
    reader.rollback().await.expect("end");
    let done = f.store.maintain(&keep_nothing()).await.expect("maintain");
    assert_eq!(done.put_off, 0);
    assert!(wal_bytes(&f) <= WAL_BYTES_MAX, "{}", wal_bytes(&f));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_between_their_calls_are_no_readers() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    f.enqueue(keyed("t", "k", 3)).await.expect("enqueue");
    let all = read(&mut *session, 3).await;
    let limit = outbox_core::PageLimit { rows: 1, bytes: 1 };
    session.due(now(), limit).await.expect("due");
    session.parked(&key("t", "k"), limit).await.expect("parked");
    session.requests().await.expect("requests");
    session.settle(&through(all[0].seq)).await.expect("settle");
    status(&f).await;
    // A full checkpoint that may not wait for anybody.
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let row = sqlx::query(checkpoint)
        .fetch_one(&f.pool)
        .await
        .expect("checkpoint");
    assert_eq!(
        sqlx::Row::get::<i64, _>(&row, 0),
        0,
        "somebody is in the middle of the log"
    );
    assert_eq!(wal_bytes(&f), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn house_keeping_puts_off_what_a_writer_holds_up() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    f.enqueue(messages("t", 10)).await.expect("enqueue");
    let all = read(&mut *session, 10).await;
    session.settle(&through(all[9].seq)).await.expect("settle");
    let open = f.enqueue_open(messages("t", 1)).await.expect("enqueue");
    let begun = std::time::Instant::now();
    let put_off = f.store.maintain(&keep_nothing()).await.expect("maintain");
    assert!(
        put_off.put_off > 0 && put_off.partitions_emptied == 0,
        "{put_off:?}"
    );
    // Two steps of 50 ms; far from the ten seconds that a settle would wait.
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    open.roll_back().await;
    let done = f.store.maintain(&keep_nothing()).await.expect("maintain");
    assert_eq!((done.put_off, done.partitions_emptied), (0, 1));
}
