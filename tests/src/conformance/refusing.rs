//! Bad input: an error that names the field and the limit, and nothing written.

use outbox_core::{Message, StoreError, limits};

use super::Fixture;
use super::stage::*;

/// Enqueues `bad` and expects an error with every one of `words`, and an untouched store.
async fn refused(f: &dyn Fixture, bad: Message, words: &[&str]) {
    let error = f.enqueue(vec![bad]).await.expect_err("refused");
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} in {text:?}");
    }
    assert_eq!(status(f).await.last_seq, 0);
}

/// 249 bytes.
pub async fn a_topic_that_is_too_long_is_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t".repeat(limits::TOPIC_BYTES_MAX + 1), "");
    refused(f, bad, &["topic", "250", "249"]).await;
}

/// `[A-Za-z0-9._-]`.
pub async fn a_topic_with_a_foreign_character_is_refused(f: &dyn Fixture) {
    refused(
        f,
        Message::bytes("a/b", ""),
        &["topic", "a/b", "'/'", "byte 1"],
    )
    .await;
    refused(f, Message::bytes("bücher", ""), &["topic", "'ü'"]).await;
}

/// At least one byte.
pub async fn an_empty_topic_is_refused(f: &dyn Fixture) {
    refused(f, Message::bytes("", ""), &["topic", "empty"]).await;
}

/// 512 bytes, not characters.
pub async fn a_key_that_is_too_long_is_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t", "").key("ä".repeat(limits::KEY_BYTES_MAX / 2) + "x");
    refused(f, bad, &["key", "513", "512"]).await;
}

/// No key is `None`.
pub async fn an_empty_key_is_refused(f: &dyn Fixture) {
    refused(f, Message::bytes("t", "").key(""), &["key", "empty"]).await;
}

/// 1 MiB.
pub async fn a_payload_that_is_too_long_is_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t", vec![0; limits::PAYLOAD_BYTES_MAX + 1]);
    refused(f, bad, &["payload", "1048577", "1048576"]).await;
}

/// 127 bytes.
pub async fn a_content_type_that_is_too_long_is_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t", "").content_type("c".repeat(128));
    refused(f, bad, &["content_type", "128", "127"]).await;
}

/// 64.
pub async fn too_many_headers_are_refused(f: &dyn Fixture) {
    let bad = (0..65).fold(Message::bytes("t", ""), |m, n| {
        m.header(format!("h{n}"), "")
    });
    refused(f, bad, &["headers", "65", "64"]).await;
}

/// 16 KiB in all.
pub async fn headers_that_are_too_long_are_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t", "").header("h", "v".repeat(limits::HEADERS_BYTES_MAX));
    refused(f, bad, &["headers", "16385", "16384"]).await;
}

/// Header names go to brokers as they are.
pub async fn a_header_name_with_a_space_is_refused(f: &dyn Fixture) {
    refused(
        f,
        Message::bytes("t", "").header("a b", "c"),
        &["header", "\"a b\""],
    )
    .await;
}

/// One store cannot hold it, so none takes it.
pub async fn a_nul_is_refused_wherever_text_is_due(f: &dyn Fixture) {
    refused(f, Message::bytes("t", "").key("a\0b"), &["key", "NUL"]).await;
    refused(
        f,
        Message::bytes("t", "").content_type("a\0b"),
        &["content_type", "NUL"],
    )
    .await;
    refused(
        f,
        Message::bytes("t", "").header("h", "a\0b"),
        &["header", "NUL"],
    )
    .await;
}

/// It could never be sent.
pub async fn a_message_that_expires_before_delivery_is_refused(f: &dyn Fixture) {
    let bad = Message::bytes("t", "")
        .deliver_after(now())
        .expires_at(now() - chrono::TimeDelta::days(1));
    refused(f, bad, &["expires_at", "deliver_after"]).await;
}

/// Wherever in the batch it stands.
pub async fn a_batch_with_one_invalid_message_writes_nothing(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let batch = [messages("t", 200), vec![Message::bytes("", "")]];
    let error = f.enqueue(batch.concat()).await.expect_err("refused");
    assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    nothing_more(&mut *session).await;
}

/// The limits themselves are allowed.
pub async fn messages_at_every_limit_are_accepted(f: &dyn Fixture) {
    let mut session = lead_all(f, "d").await;
    let headers = (0..limits::HEADERS_MAX).map(|n| format!("h{n:03}"));
    let largest = headers.fold(
        Message::bytes(
            "t".repeat(limits::TOPIC_BYTES_MAX),
            vec![7; limits::PAYLOAD_BYTES_MAX],
        )
        .key("k".repeat(limits::KEY_BYTES_MAX))
        .content_type("c".repeat(limits::CONTENT_TYPE_BYTES_MAX)),
        |m, name| {
            m.header(
                name,
                "v".repeat(limits::HEADERS_BYTES_MAX / limits::HEADERS_MAX - 4),
            )
        },
    );
    f.enqueue(vec![largest.clone()]).await.expect("enqueue");
    let all = read(&mut *session, 1).await;
    assert_eq!(
        (&*all[0].topic, &all[0].payload),
        (&*largest.topic, &largest.payload)
    );
    assert_eq!(all[0].headers.as_deref(), Some(&largest.headers));
}
