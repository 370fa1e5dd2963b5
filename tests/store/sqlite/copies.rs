//! A copied file, and a moved one.

use std::path::Path;
use std::time::Duration;

use outbox_core::{Admin, Store, StoreError};
use outbox_sqlite::SqliteStore;
use outbox_tests::condition::until;
use outbox_tests::conformance::Fixture;
use outbox_tests::conformance::stage::*;

use super::fixture;

/// Waits until the last connection, that of a dropped session, is closed and the log is removed.
///
/// Two connections that close at the same moment each see the other, and neither removes the log.
/// So a connection of our own comes last.
async fn closed(path: &Path) {
    let log = path.with_extension("db-wal");
    let patience = Duration::from_secs(30);
    until("the file is closed", patience, async || {
        let last = outbox_sqlite::pool(path).await?;
        sqlx::query("select count(*) from sqlite_schema")
            .execute(&last)
            .await?;
        last.close().await;
        Ok(!log.exists())
    })
    .await
    .expect("closed");
}

#[tokio::test]
async fn a_file_copied_byte_by_byte_does_not_open() {
    let f = fixture().await;
    let session = lead_all(&f, "d").await;
    f.enqueue(messages("t", 3)).await.expect("enqueue");
    drop(session);
    let copy = f.folder.path().join("copy.db");
    // With the write-ahead log beside it, as a copied folder has it.
    std::fs::copy(f.path(), &copy).expect("copy");
    std::fs::copy(
        f.folder.path().join("outbox.db-wal"),
        f.folder.path().join("copy.db-wal"),
    )
    .expect("copy");
    let store = SqliteStore::open(&copy).await.expect("open");
    let lease = claim(&store, "d", "copy").await;
    let error = store.open(&lease).await.map(drop).expect_err("foreign");
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    let found = store.doctor().await.expect("doctor");
    assert!(
        found
            .iter()
            .any(|x| x.check == "file" && x.cure.contains("outbox adopt"))
    );
    store.adopt().await.expect("adopt");
    let mut session = lead(&store, "d", "copy").await;
    read(&mut *session, 3).await;
}

#[tokio::test]
async fn a_moved_file_goes_on() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    f.enqueue(messages("t", 3)).await.expect("enqueue");
    let all = read(&mut *session, 3).await;
    session.settle(&through(all[0].seq)).await.expect("settle");
    let incarnation = session.opened().incarnation.clone();
    drop(session);
    let super::SqliteFixture {
        folder,
        store,
        pool,
        outbox,
    } = f;
    drop(outbox);
    pool.close().await;
    drop(store);
    let copy = SqliteStore::open(folder.path().join("outbox.db"))
        .await
        .expect("open");
    drop(copy);
    let (path, moved) = (
        folder.path().join("outbox.db"),
        folder.path().join("moved.db"),
    );
    closed(&path).await;
    std::fs::rename(&path, &moved).expect("move");
    let store = SqliteStore::open(&moved).await.expect("open");
    let mut session = lead(&store, "d", "second").await;
    assert_eq!(session.opened().incarnation, incarnation);
    assert_eq!(payloads(&read(&mut *session, 2).await), ["1", "2"]);
}

#[tokio::test]
async fn a_leader_that_runs_while_its_copy_is_adopted_loses_its_lease() {
    let f = fixture().await;
    f.admin()
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    let copy = f.copied().await;
    copy.admin().adopt().await.expect("adopt");
    let mut session = lead(&*copy.store(), "d", "copy").await;
    copy.enqueue(messages("t", 1)).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    // The copy is copied again, in place of itself: its leader must not go on under the old name.
    let again = copy.copied().await;
    again.admin().adopt().await.expect("adopt");
    let row = lease_row(&*again.store(), "d").await;
    assert_eq!(row.owner, None);
    session
        .settle(&through(all[0].seq))
        .await
        .expect("the other file is not concerned");
}

#[tokio::test]
async fn a_backup_written_back_in_place_stops_until_it_is_adopted() {
    let f = fixture().await;
    let mut session = lead_all(&f, "d").await;
    let incarnation = session.opened().incarnation.clone();
    f.enqueue(messages("t", 5)).await.expect("enqueue");
    read(&mut *session, 5).await;
    let backup = f.folder.path().join("backup.db");
    super::copy_file(&f.path(), &backup).await;
    f.enqueue(messages("t", 4)).await.expect("enqueue");
    read(&mut *session, 4).await;
    drop(session);
    let super::SqliteFixture {
        folder,
        store,
        pool,
        outbox,
    } = f;
    drop(outbox);
    pool.close().await;
    store.close().await;
    let path = folder.path().join("outbox.db");
    closed(&path).await;
    std::fs::copy(&backup, &path).expect("write the backup back");

    let store = SqliteStore::open(&path).await.expect("open");
    let lease = claim(&store, "d", "second").await;
    let error = store.open(&lease).await.map(drop).expect_err("set back");
    let behind = matches!(
        error,
        StoreError::SequenceBehind {
            last: 5,
            high_water: 9,
            ..
        }
    );
    assert!(behind, "{error}");
    assert_eq!(store.adopt().await.expect("adopt"), ["d"]);
    let mut session = lead(&store, "d", "second").await;
    assert_ne!(session.opened().incarnation, incarnation);
    store
        .import("s", 0, 1, &messages("new", 1))
        .await
        .expect("import");
    let all = read(&mut *session, 6).await;
    assert_eq!(
        (&*all[5].topic, all[5].seq),
        ("new", 10),
        "no seq is used again"
    );
}
