//! Twenty writers at random against one reader.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Reader, TIMEOUT, enqueue, run, warm_up};
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_writers_against_a_reader_skip_nothing_and_repeat_nothing() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..20)
        .map(|n| {
            tokio::spawn(write_at_random(
                stage.database.url().to_owned(),
                n,
                stop.clone(),
            ))
        })
        .collect();
    // For some seconds, and on a busy machine until enough was put to the test.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) || reader.messages.len() < 100 + 500 {
        assert!(begun.elapsed() < TIMEOUT, "hardly anything is written");
        reader.turn().await;
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut committed = HashSet::new();
    for writer in writers {
        committed.extend(writer.await.expect("writer"));
    }
    reader.read(100 + committed.len()).await;
    reader.no_gap_open().await;
    let read: HashSet<String> = reader.payloads().into_iter().skip(100).collect();
    assert_eq!(read.len(), committed.len(), "one came twice");
    assert_eq!(read, committed);
    assert_eq!(stage.number("select count(*) from outbox.gap").await, 0);
    in_order_for_each_writer(&reader);
}

/// Transactions of one to five messages, a third of them rolled back, some with savepoints; answers the
/// payloads that were committed.
async fn write_at_random(url: String, writer: usize, stop: CancellationToken) -> Vec<String> {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    let mut committed = Vec::new();
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        run(&mut connection, "begin").await;
        let mut own = Vec::new();
        for part in 0..rand::random_range(1..=5) {
            let payload = format!("{writer}/{n}/{part}");
            if rand::random_range(0..10) == 0 {
                run(&mut connection, "savepoint s").await;
                enqueue(&mut connection, &payload).await;
                run(&mut connection, "rollback to s").await;
            } else {
                enqueue(&mut connection, &payload).await;
                own.push(payload);
            }
            tokio::task::yield_now().await;
        }
        if rand::random_range(0..3) == 0 {
            run(&mut connection, "rollback").await;
        } else {
            run(&mut connection, "commit").await;
            committed.append(&mut own);
        }
    }
    committed
}

/// One writer's commits are in order, unless flagged late.
fn in_order_for_each_writer(reader: &Reader) {
    let mut last = [-1i64; 20];
    for message in reader.messages.iter().skip(100).filter(|m| !m.late) {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let mut parts = text
            .split('/')
            .map(|part| part.parse::<i64>().expect("a number"));
        let writer = parts
            .next()
            .and_then(|n| usize::try_from(n).ok())
            .expect("a writer");
        let place = parts.next().expect("a number") * 10 + parts.next().expect("a number");
        assert!(place > last[writer], "{text} came after {}", last[writer]);
        last[writer] = place;
    }
}
