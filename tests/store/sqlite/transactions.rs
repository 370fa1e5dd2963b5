//! Enqueue belongs into a write transaction of the caller's.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use outbox_core::{Headers, Message, StoreError};
use outbox_sqlite::Outbox;
use outbox_tests::conformance::stage::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::{SqliteFixture, fixture};

const IMMEDIATE: &str = "BEGIN IMMEDIATE";

async fn connect(f: &SqliteFixture) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(f.path());
    let options = options.busy_timeout(Duration::from_millis(10));
    options.connect().await.expect("connect")
}

async fn enqueue(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    let message = Message::bytes("t", "x");
    Outbox::default().enqueue(tx, message).await.map(drop)
}

/// The error that names the cure.
fn assert_cure(result: Result<(), StoreError>, problem: &str) {
    let error = result.expect_err("refused");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(problem), "{text}");
    assert!(
        text.contains("pool.begin_with(\"BEGIN IMMEDIATE\")"),
        "{text}"
    );
}

#[tokio::test]
async fn a_deferred_transaction_is_refused_with_the_cure() {
    let f = fixture().await;
    let mut connection = connect(&f).await;
    let mut tx = connection.begin().await.expect("begin");
    assert_cure(enqueue(&mut tx).await, "deferred");
    sqlx::query("SELECT count(*) FROM outbox_message")
        .fetch_one(&mut *tx)
        .await
        .expect("read");
    assert_cure(enqueue(&mut tx).await, "deferred");
    tx.commit().await.expect("commit");
    assert_eq!(status(&f).await.last_seq, 0, "nothing was written");
}

#[tokio::test]
async fn a_deferred_transaction_is_refused_while_another_writes() {
    let f = fixture().await;
    let (mut connection, mut other) = (connect(&f).await, connect(&f).await);
    let mut tx = connection.begin().await.expect("begin");
    sqlx::query("SELECT count(*) FROM outbox_message")
        .fetch_one(&mut *tx)
        .await
        .expect("read");
    let mut writer = other.begin_with(IMMEDIATE).await.expect("begin");
    assert_cure(enqueue(&mut tx).await, "deferred");
    enqueue(&mut writer).await.expect("the writer enqueues");
    writer.commit().await.expect("commit");
    assert_cure(enqueue(&mut tx).await, "deferred");
}

#[tokio::test]
async fn a_refusal_leaves_the_lock_to_others() {
    let f = fixture().await;
    let mut connection = connect(&f).await;
    let mut tx = connection.begin().await.expect("begin");
    assert_cure(enqueue(&mut tx).await, "deferred");
    let mut other = connect(&f).await;
    let mut writer = other.begin_with(IMMEDIATE).await.expect("the lock is free");
    enqueue(&mut writer).await.expect("enqueue");
    writer.commit().await.expect("commit");
}

#[tokio::test]
async fn a_deferred_transaction_that_has_written_is_a_writer() {
    let f = fixture().await;
    let mut connection = connect(&f).await;
    sqlx::query("CREATE TABLE orders (id integer)")
        .execute(&mut connection)
        .await
        .expect("create");
    let mut tx = connection.begin().await.expect("begin");
    sqlx::query("INSERT INTO orders VALUES (1)")
        .execute(&mut *tx)
        .await
        .expect("insert");
    enqueue(&mut tx).await.expect("enqueue");
    tx.commit().await.expect("commit");
    assert_eq!(status(&f).await.last_seq, 1);
}

#[tokio::test]
async fn a_call_outside_of_a_transaction_is_refused_with_the_cure() {
    let f = fixture().await;
    let (mut connection, mut other) = (connect(&f).await, connect(&f).await);
    assert_cure(enqueue(&mut connection).await, "outside of a transaction");
    let writer = other.begin_with(IMMEDIATE).await.expect("begin");
    assert_cure(enqueue(&mut connection).await, "outside of a transaction");
    writer.rollback().await.expect("roll back");
    assert_eq!(status(&f).await.last_seq, 0);
}

#[tokio::test]
async fn a_transaction_begun_by_a_plain_statement_is_one_too() {
    let f = fixture().await;
    let mut connection = connect(&f).await;
    for (end, last_seq) in [("ROLLBACK", 0), ("COMMIT", 1)] {
        sqlx::query(IMMEDIATE)
            .execute(&mut connection)
            .await
            .expect("begin");
        enqueue(&mut connection).await.expect("enqueue");
        sqlx::query(end)
            .execute(&mut connection)
            .await
            .expect("end");
        assert_eq!(status(&f).await.last_seq, last_seq);
    }
}

#[tokio::test]
async fn a_savepoint_that_is_rolled_back_takes_its_messages_along() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    let mut connection = connect(&f).await;
    let mut tx = connection.begin_with(IMMEDIATE).await.expect("begin");
    let outbox = Outbox::default();
    for (n, keep) in [(0, true), (1, false), (2, true)] {
        let mut point = tx.begin().await.expect("savepoint");
        outbox
            .enqueue(&mut point, Message::bytes("t", n.to_string()))
            .await
            .expect("enqueue");
        match keep {
            true => point.commit().await.expect("release"),
            false => point.rollback().await.expect("roll back"),
        }
    }
    tx.commit().await.expect("commit");
    assert_eq!(payloads(&read(&mut *session, 2).await), ["0", "2"]);
    nothing_more(&mut *session).await;
}

#[tokio::test]
async fn a_connection_whose_commits_may_be_taken_back_is_refused() {
    let f = fixture().await;
    for mode in ["OFF", "NORMAL"] {
        let options = SqliteConnectOptions::new()
            .filename(f.path())
            .pragma("synchronous", mode);
        let mut connection = options.connect().await.expect("connect");
        let mut tx = connection.begin_with(IMMEDIATE).await.expect("begin");
        let error = enqueue(&mut tx).await.expect_err("refused").to_string();
        assert!(
            error.contains("power loss") && error.contains("synchronous = FULL"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_dropped_enqueue_and_its_transaction_leave_nothing_behind() {
    let f = fixture().await;
    let pool = outbox_sqlite::pool(f.path()).await.expect("pool");
    let outbox = Outbox::default();
    for polls in 0..40 {
        let mut tx = pool.begin_with(IMMEDIATE).await.expect("begin");
        let mut call = Box::pin(outbox.enqueue(&mut tx, Message::bytes("t", "x")));
        for _ in 0..polls {
            let polled = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready()));
            if polled.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        drop(tx);
        let mut next = pool
            .begin_with(IMMEDIATE)
            .await
            .expect("the lock is free again");
        outbox
            .enqueue(&mut next, Message::bytes("t", "y"))
            .await
            .expect("enqueue");
        next.rollback().await.expect("roll back");
    }
    assert_eq!(status(&f).await.last_seq, 0);
}

#[tokio::test]
async fn a_message_carries_the_trace_of_the_span_that_enqueued_it() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    let span = || Headers::from([("traceparent".to_owned(), "00-1-2-01".to_owned())]);
    let outbox = Outbox::default().with_trace_context(span);
    let mut connection = connect(&f).await;
    let mut tx = connection.begin_with(IMMEDIATE).await.expect("begin");
    let message = Message::bytes("t", "x");
    outbox.enqueue(&mut tx, message).await.expect("enqueue");
    tx.commit().await.expect("commit");
    let read = read(&mut *session, 1).await;
    let headers = read[0].headers.as_ref().expect("headers");
    assert_eq!(headers["traceparent"], "00-1-2-01");
}
