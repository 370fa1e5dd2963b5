//! Seqs that never come: their gaps close, by xid or by locks, and soon.

use std::time::{Duration, Instant};

use outbox_core::{Admin, PageLimit};
use outbox_tests::conformance::stage::{destination, lead, messages};
use outbox_tests::postgres::TestDb;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Reader, connect, enqueue, run, warm_up};
use crate::stage::Stage;

/// The holder of an xid in another database keeps xmin back for the whole cluster.
#[tokio::test]
async fn gaps_close_by_locks_while_a_foreign_transaction_holds_xmin_back() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let elsewhere = TestDb::new().await;
    let mut foreign = PgConnection::connect(elsewhere.url())
        .await
        .expect("connect");
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    for round in 0..300usize {
        run(&mut writer, "begin").await;
        enqueue(&mut writer, "never").await;
        run(&mut writer, "rollback").await;
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + round).await;
    }
    reader.no_gap_open().await;
    assert!(reader.gaps_open_max > 0, "nothing was put to the test");
    assert_eq!(reader.messages.len(), 400);
    run(&mut foreign, "rollback").await;
}

#[tokio::test]
async fn a_rate_of_rollbacks_under_a_held_xmin_leaves_few_gaps_open() {
    let stage = Stage::new().await;
    let elsewhere = TestDb::new().await;
    let mut foreign = PgConnection::connect(elsewhere.url())
        .await
        .expect("connect");
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    let stop = CancellationToken::new();
    let writers = (0..4).map(|_| {
        tokio::spawn(roll_back_some(
            stage.database.url().to_owned(),
            stop.clone(),
        ))
    });
    let writers: Vec<_> = writers.collect();
    let begun = Instant::now();
    let mut gaps_open_late = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        reader.turn().await;
        if begun.elapsed() > Duration::from_secs(2) {
            gaps_open_late = gaps_open_late.max(reader.last.gaps_open);
        }
    }
    stop.cancel();
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.expect("writer");
    }
    reader.read(committed).await;
    assert!(gaps_open_late <= 120, "{gaps_open_late} gaps open at once");
    reader.no_gap_open().await;
    run(&mut foreign, "rollback").await;
}

/// Commits about fifty messages a second, and rolls back about ten.
async fn roll_back_some(url: String, stop: CancellationToken) -> usize {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    let mut committed = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(17));
    while !stop.is_cancelled() {
        ticks.tick().await;
        let commits = rand::random_range(0..6) > 0;
        run(&mut connection, "begin").await;
        enqueue(&mut connection, "x").await;
        run(&mut connection, if commits { "commit" } else { "rollback" }).await;
        committed += usize::from(commits);
    }
    committed
}

#[tokio::test]
async fn a_bulk_insert_that_rolled_back_is_one_gap_and_closes() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let bulk =
        "select count(outbox.enqueue_bytes('t', 'x', 'text/plain')) from generate_series(1, 35000)";
    run(&mut writer, bulk).await;
    stage.enqueue(messages("t", 3)).await;
    reader.read(3).await;
    assert_eq!(reader.last.gaps_open, 1, "one range, not 35,000 seqs");
    run(&mut writer, "rollback").await;
    reader.no_gap_open().await;
    assert_eq!(reader.messages.len(), 3);
}

#[tokio::test]
async fn seqs_at_the_end_that_never_come_do_not_keep_the_reader_busy() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let last = enqueue(&mut writer, "never").await;
    run(&mut writer, "rollback").await;
    reader
        .until("the tail is passed", |r| r.last.through >= last)
        .await;
    reader.no_gap_open().await;
    assert!(
        !reader.session.poll().await.expect("poll"),
        "there is nothing to look for"
    );
    stage.enqueue(messages("t", 1)).await;
    assert!(reader.session.poll().await.expect("poll"));
    reader.read(1).await;
}

#[tokio::test]
async fn a_gap_that_stays_open_is_looked_at_ten_times_a_second_at_most() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    enqueue(&mut open, "held").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(1).await;
    let begun = Instant::now();
    reader
        .until("the gap is old", |_| {
            begun.elapsed() > Duration::from_secs(1)
        })
        .await;
    let (begun, mut looks) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        if reader.session.poll().await.expect("poll") {
            looks += 1;
            reader.turn().await;
        }
    }
    assert!((5..=12).contains(&looks), "{looks} looks in a second");
    run(&mut open, "commit").await;
    reader.read(2).await;
}

#[tokio::test]
async fn messages_of_other_destinations_are_no_gaps() {
    let stage = Stage::new().await;
    stage
        .store
        .declare(&[destination("d", &["ours.*"])])
        .await
        .expect("declare");
    let mut session = lead(&stage.store, "d", "first").await;
    stage
        .enqueue([messages("theirs", 20), messages("ours.a", 1)].concat())
        .await;
    let page = session.page(PageLimit::default()).await.expect("page");
    assert_eq!(
        (page.messages.len(), page.gaps.len(), page.through),
        (1, 0, 21)
    );
}
