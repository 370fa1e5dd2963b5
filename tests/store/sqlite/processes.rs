//! Several processes that write to one file, while a relay reads it.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};

use outbox_core::{Message, PageLimit};
use outbox_sqlite::Outbox;
use outbox_tests::conformance::stage::*;

use super::fixture;

/// Set in the processes that this test starts: the path of the file, and the writer's name.
const WRITER: &str = "OUTBOX_TEST_WRITER";
const WRITERS: usize = 4;
/// Transactions of each writer; every third rolls back.
const TRANSACTIONS: usize = 150;

/// This test starts its own program again, once for each writer.
fn start_writer(path: &std::path::Path, name: usize) -> Child {
    let test = "sqlite::processes::nothing_is_skipped_while_processes_write";
    Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", test, "--nocapture"])
        .env(WRITER, format!("{name}:{}", path.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("start a writer")
}

/// One writer: numbered messages under its own key.
async fn write(name: &str, path: &str) {
    let pool = outbox_sqlite::pool(path).await.expect("pool");
    let outbox = Outbox::default();
    let mut number = 0;
    for n in 0..TRANSACTIONS {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.expect("begin");
        let commits = n % 3 != 0;
        for offset in 0..2 {
            let body = if commits {
                (number + offset).to_string()
            } else {
                "gone".to_owned()
            };
            let message = Message::bytes("t", body).key(name);
            outbox.enqueue(&mut tx, message).await.expect("enqueue");
        }
        if commits {
            tx.commit().await.expect("commit");
            number += 2;
        } else {
            tx.rollback().await.expect("roll back");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_skipped_while_processes_write() {
    if let Ok(writer) = std::env::var(WRITER) {
        let (name, path) = writer.split_once(':').expect("name:path");
        return write(name, path).await;
    }
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    let mut writers: Vec<_> = (0..WRITERS).map(|n| start_writer(&f.path(), n)).collect();
    let mut next: HashMap<String, usize> = HashMap::new();
    let (mut last, mut running) = (0, true);
    loop {
        // The writers are looked at before the page, so that the last page sees all they wrote.
        let ended = writers
            .iter_mut()
            .all(|w| w.try_wait().expect("wait").is_some());
        let page = session
            .page(PageLimit {
                rows: 37,
                bytes: 1 << 20,
            })
            .await
            .expect("page");
        for message in &page.messages {
            assert!(message.seq > last, "order by seq");
            last = message.seq;
            let count = next
                .entry(message.key.as_deref().expect("a key").to_owned())
                .or_default();
            assert_eq!(
                message.payload,
                count.to_string().as_bytes(),
                "order of a key"
            );
            *count += 1;
        }
        session
            .settle(&through(page.through))
            .await
            .expect("settle");
        if !running && page.messages.is_empty() {
            break;
        }
        running = !ended;
        tokio::task::yield_now().await;
    }
    for mut writer in writers {
        assert!(writer.wait().expect("wait").success(), "a writer failed");
    }
    let committed = (0..TRANSACTIONS).filter(|n| n % 3 != 0).count() * 2;
    let expected = (0..WRITERS).map(|n| (n.to_string(), committed)).collect();
    assert_eq!(next, expected);
}
