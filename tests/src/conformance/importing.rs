//! Imports: a file's position moves with the messages that were read from it.

use outbox_core::{Message, StoreError};

use super::Fixture;
use super::stage::*;

/// Position and messages commit together.
pub async fn an_import_enqueues_and_moves_its_position(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let admin = f.admin();
    assert_eq!(
        admin
            .import_position("events.ndjson")
            .await
            .expect("position"),
        0
    );
    admin
        .import("events.ndjson", 0, 100, &messages("t", 3))
        .await
        .expect("import");
    admin
        .import("events.ndjson", 100, 250, &messages("t", 2))
        .await
        .expect("import");
    admin
        .import("events.ndjson", 250, 260, &[])
        .await
        .expect("import");
    assert_eq!(
        admin
            .import_position("events.ndjson")
            .await
            .expect("position"),
        260
    );
    assert_eq!(
        payloads(&read(&mut *session, 5).await),
        ["0", "1", "2", "0", "1"]
    );
}

/// A repeated batch must not be enqueued twice.
pub async fn an_import_from_a_wrong_position_writes_nothing(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let admin = f.admin();
    admin
        .import("s", 0, 10, &messages("t", 1))
        .await
        .expect("import");
    for from in [0, 5, 11] {
        let refused = admin
            .import("s", from, 20, &messages("u", 1))
            .await
            .expect_err("refused");
        assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    }
    assert_eq!(admin.import_position("s").await.expect("position"), 10);
    assert_eq!(&*read(&mut *session, 1).await[0].topic, "t");
    nothing_more(&mut *session).await;
}

/// Neither its valid messages nor its position.
pub async fn an_import_with_an_invalid_message_writes_nothing(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let batch = [
        messages("t", 1),
        vec![Message::bytes("bad topic", "")],
        messages("t", 1),
    ];
    let refused = f
        .admin()
        .import("s", 0, 10, &batch.concat())
        .await
        .expect_err("invalid");
    assert!(matches!(refused, StoreError::Invalid(_)), "{refused}");
    assert_eq!(f.admin().import_position("s").await.expect("position"), 0);
    nothing_more(&mut *session).await;
}

/// Each source has a position of its own.
pub async fn imports_of_two_sources_do_not_meet(f: &dyn Fixture) {
    let admin = f.admin();
    admin
        .import("a", 0, 10, &messages("t", 1))
        .await
        .expect("import");
    admin
        .import("b", 0, 20, &messages("t", 1))
        .await
        .expect("import");
    let a = admin.import_position("a").await.expect("position");
    assert_eq!(
        (a, admin.import_position("b").await.expect("position")),
        (10, 20)
    );
    assert_eq!(admin.import_position("c").await.expect("position"), 0);
}

/// The same file sent twice at once.
pub async fn of_two_importers_at_once_one_is_refused(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let (_, other) = f.another_process().await;
    let (here, batch) = (f.admin(), messages("t", 50));
    let (a, b) = tokio::join!(
        here.import("s", 0, 9, &batch),
        other.import("s", 0, 9, &batch)
    );
    let refused = match (a, b) {
        (Ok(()), Err(e)) | (Err(e), Ok(())) => e,
        both => panic!("one of them passes: {both:?}"),
    };
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    read(&mut *session, 50).await;
    nothing_more(&mut *session).await;
}
