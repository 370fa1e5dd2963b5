//! A copied file, and a moved one.

use outbox_core::{Admin, Store, StoreError};
use outbox_sqlite::SqliteStore;
use outbox_tests::conformance::Fixture;
use outbox_tests::conformance::stage::*;

use super::fixture;

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
        ..
    } = f;
    pool.close().await;
    drop(store);
    let copy = SqliteStore::open(folder.path().join("outbox.db"))
        .await
        .expect("open");
    drop(copy);
    // Closing the last connection would empty the log; it may still be there, and moves along.
    let moved = folder.path().join("moved.db");
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (format!("outbox.db{suffix}"), format!("moved.db{suffix}"));
        let result = std::fs::rename(folder.path().join(from), folder.path().join(to));
        assert!(result.is_ok() || !suffix.is_empty(), "{result:?}");
    }
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
