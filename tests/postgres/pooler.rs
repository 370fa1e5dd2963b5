//! PgBouncer in transaction mode: every transaction may meet another server process.

use std::time::Duration;

use outbox_core::{Admin, PageLimit, RequestAction, Selection, Settlement, Store};
use outbox_postgres::{Outbox, PostgresOptions, PostgresStore};
use outbox_tests::conformance::stage::{claim, destination, keep_nothing, messages};
use outbox_tests::postgres::PgBouncer;
use sqlx::{Connection, PgConnection};

use crate::stage::Stage;

/// Server connections of the pooler: fewer than its clients, so that they must share.
const CONNECTIONS: u32 = 3;

const WRITERS: usize = 8;
const MESSAGES_EACH: usize = 50;

/// `None`, with a word on standard error, on a machine that has no PgBouncer.
async fn pooled() -> Option<(Stage, PgBouncer, PostgresStore)> {
    let Some(program) = PgBouncer::program() else {
        eprintln!("no pgbouncer on this machine: the test of it did not run");
        return None;
    };
    let stage = Stage::new().await;
    let pooler = PgBouncer::start(&program, stage.database.url(), CONNECTIONS).await;
    let pooler = pooler.expect("start pgbouncer");
    let options = PostgresOptions {
        url: pooler.url(stage.database.name()),
        pooled: true,
        ..PostgresOptions::default()
    };
    let store = PostgresStore::connect(options).await.expect("connect");
    Some((stage, pooler, store))
}

/// Enqueues one message for each transaction.
async fn write(url: String, writer: usize) {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    for n in 0..MESSAGES_EACH {
        let mut tx = connection.begin().await.expect("begin");
        let message = messages("t", 1)
            .remove(0)
            .key(writer)
            .header("n", n.to_string());
        Outbox::default()
            .pooled()
            .enqueue(&mut tx, message)
            .await
            .expect("enqueue");
        tx.commit().await.expect("commit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_behind_a_pooler_delivers_what_writers_behind_it_enqueue() {
    let Some((stage, pooler, store)) = pooled().await else {
        return;
    };
    store
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    store.check().await.expect("check");
    let lease = claim(&store, "d", "relay").await;
    let mut session = store.open(&lease).await.expect("open");
    let url = pooler.url(stage.database.name());
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(url.clone(), n)))
        .collect();

    let mut next = [0; WRITERS];
    let reading = async {
        while next.iter().any(|n| *n < MESSAGES_EACH) {
            if !session.poll().await.expect("poll") {
                continue;
            }
            let page = session.page(PageLimit::default()).await.expect("page");
            for message in &page.messages {
                let writer: usize = message
                    .key
                    .as_deref()
                    .expect("a key")
                    .parse()
                    .expect("a number");
                let header = message.headers.as_ref().expect("headers")["n"].clone();
                assert_eq!(header, next[writer].to_string(), "in order");
                next[writer] += 1;
            }
            let late = page
                .messages
                .iter()
                .filter(|m| m.late)
                .map(|m| m.seq)
                .collect();
            let settlement = Settlement {
                through: page.through,
                late,
                ..Settlement::default()
            };
            session.settle(&settlement).await.expect("settle");
            store.beat("relay").await.expect("beat");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("all is read");
    for writer in writers {
        writer.await.expect("writer");
    }
    drop(session);
    store.release(&lease).await.expect("release");
}

#[tokio::test]
async fn an_operator_behind_a_pooler_can_do_everything() {
    let Some((stage, _pooler, store)) = pooled().await else {
        return;
    };
    store
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    store
        .import("events", 0, 10, &messages("t", 3))
        .await
        .expect("import");
    assert_eq!(store.import_position("events").await.expect("position"), 10);
    assert_eq!(store.status().await.expect("status").last_seq, 3);
    let one = messages("t", 1).remove(0);
    stage.enqueue(vec![one.clone()]).await;
    assert!(store.message(one.id).await.expect("message").is_some());
    let ids = Selection::Ids(vec![one.id]);
    assert_eq!(
        store
            .request("d", RequestAction::Resend, &ids)
            .await
            .expect("request"),
        1
    );
    assert_eq!(store.adopt().await.expect("adopt"), Vec::<String>::new());
    assert!(!store.doctor().await.expect("doctor").is_empty());
    stage.skip_to(3_000_000).await;
    let round = store.maintain(&keep_nothing()).await.expect("maintain");
    assert!(round.partitions_attached > 0, "{round:?}");
    store.check().await.expect("check");
}
