//! Transactions that stay open, commit late or in another way than COMMIT.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use outbox_core::{Page, PageLimit, Seq, Settlement};
use outbox_tests::conformance::stage::{lead, messages};
use sqlx::Row;

use super::{Reader, connect, enqueue, run, warm_up};
use crate::stage::Stage;

#[tokio::test]
async fn an_open_transaction_delays_only_its_own_message_across_many_polls() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    let held = enqueue(&mut open, "late").await;
    for round in 0..50 {
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + round).await;
    }
    assert_eq!(reader.last.gaps_open, 1);
    assert!(reader.messages.iter().all(|m| m.seq != held && !m.late));
    run(&mut open, "commit").await;
    reader.read(151).await;
    let late = reader.messages.last().expect("late");
    assert_eq!(
        (late.seq, late.late, &late.payload[..]),
        (held, true, &b"late"[..])
    );
    reader.no_gap_open().await;
    assert_eq!(stage.number("select count(*) from outbox.gap").await, 0);
}

#[tokio::test]
async fn a_large_late_transaction_is_read_in_pages_and_none_is_skipped() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let bulk =
        "select count(outbox.enqueue_bytes('t', 'x', 'text/plain')) from generate_series(1, 20000)";
    run(&mut writer, bulk).await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(1).await;
    run(&mut writer, "commit").await;
    reader.read(20_001).await;
    let seqs: HashSet<Seq> = reader.messages.iter().map(|m| m.seq).collect();
    assert_eq!(seqs.len(), 20_001, "one came twice");
    reader.no_gap_open().await;
}

#[tokio::test]
async fn what_a_savepoint_took_back_is_skipped_and_the_rest_is_not() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin; savepoint a").await;
    enqueue(&mut writer, "taken back").await;
    run(&mut writer, "rollback to a; savepoint b").await;
    enqueue(&mut writer, "kept").await;
    run(&mut writer, "release b").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(101).await;
    run(&mut writer, "commit").await;
    reader.read(102).await;
    assert_eq!(reader.payloads()[101], "kept");
    reader.no_gap_open().await;
    assert_eq!(reader.messages.len(), 102);
}

/// PREPARE takes the transaction off its backend and renames the holder of its locks.
#[tokio::test]
async fn two_phase_commit_loses_nothing_even_when_xmin_is_held_back() {
    let stage = Stage::new().await;
    let two_phase = stage
        .number("select current_setting('max_prepared_transactions')::int8")
        .await;
    assert!(
        two_phase > 0,
        "the test server must allow prepared transactions"
    );
    warm_up(&stage).await;
    let mut foreign = connect(&stage).await;
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let name = format!("'{}'", stage.database.name());
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    enqueue(&mut writer, "prepared").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(101).await;
    // Long enough for the lock rule to have looked at the holder under its old name.
    let begun = Instant::now();
    reader
        .until("the gap is old", |_| {
            begun.elapsed() > Duration::from_secs(1)
        })
        .await;
    run(&mut writer, &format!("prepare transaction {name}")).await;
    let prepared = Instant::now();
    reader
        .until("the locks were read", |_| {
            prepared.elapsed() > Duration::from_millis(1_500)
        })
        .await;
    assert_eq!(
        reader.last.gaps_open, 1,
        "the prepared transaction still holds it"
    );
    run(&mut writer, &format!("commit prepared {name}")).await;
    reader.read(102).await;
    assert_eq!(reader.payloads()[101], "prepared");
    run(&mut foreign, "rollback").await;
}

/// The xid must be there before the seq, in a transaction that has none yet.
#[tokio::test]
async fn the_xid_is_taken_before_the_seq() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    for round in 0..40usize {
        run(&mut writer, "begin").await;
        enqueue(&mut writer, "late").await;
        let own: String = sqlx::query("select pg_current_xact_id_if_assigned()::text")
            .fetch_one(&mut writer)
            .await
            .expect("xid")
            .get(0);
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + 2 * round).await;
        let fences = "select min(fence::text::int8) from outbox.gap";
        let fence = stage.number(fences).await;
        let own: i64 = own.parse().expect("a number");
        assert!(
            own < fence,
            "xid {own} is not below the fence {fence} of its gap"
        );
        run(&mut writer, "commit").await;
        reader.read(102 + 2 * round).await;
    }
}

#[tokio::test]
async fn pages_read_ahead_of_settlements_survive_a_crash_of_the_reader() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    enqueue(&mut open, "late").await;
    stage.enqueue(messages("t", 5)).await;
    let small = PageLimit {
        rows: 2,
        ..PageLimit::default()
    };
    let first = session.page(small).await.expect("page");
    let second = session.page(small).await.expect("page");
    assert_eq!((first.messages.len(), second.messages.len()), (2, 2));
    run(&mut open, "commit").await;
    let late = loop {
        let page = session.page(small).await.expect("page");
        if page.messages.iter().any(|m| m.late) {
            break page;
        }
    };
    // Only the first page is settled: the late message was handed out, and is not accounted for.
    let settled = Settlement {
        through: first.through,
        ..Settlement::default()
    };
    session.settle(&settled).await.expect("settle");
    drop((session, second, late));
    let mut reader = Reader {
        session: lead(&stage.store, "d", "second").await,
        messages: Vec::new(),
        gaps_open_max: 0,
        last: Page::default(),
    };
    reader.read(4).await;
    let mut payloads = reader.payloads();
    payloads.sort();
    assert_eq!(payloads, ["2", "3", "4", "late"]);
    reader.no_gap_open().await;
}
