//! SQL arguments that break a limit: an error that names the field, its size and the limit, and
//! nothing written.

use sqlx::AssertSqlSafe;

use crate::stage::Stage;

/// SQLSTATE invalid_parameter_value.
const INVALID: &str = "22023";

/// Statement, and what its error says.
const CASES: &[(&str, &[&str])] = &[
    ("select outbox.enqueue(null, '{}')", &["topic is null"]),
    ("select outbox.enqueue('', '{}')", &["topic is empty"]),
    (
        "select outbox.enqueue(repeat('t', 250), '{}')",
        &["topic is 250 bytes long", "limit is 249"],
    ),
    (
        "select outbox.enqueue('orders/placed', '{}')",
        &["topic", "'/' at byte 6"],
    ),
    ("select outbox.enqueue('é', '{}')", &["topic", "at byte 0"]),
    (
        "select outbox.enqueue('t', '{}', key => '')",
        &["key is empty"],
    ),
    (
        "select outbox.enqueue('t', '{}', key => repeat('k', 513))",
        &["key is 513 bytes long", "limit is 512"],
    ),
    ("select outbox.enqueue('t', null)", &["payload is null"]),
    (
        "select outbox.enqueue('t', to_jsonb(repeat('p', 1048576)))",
        &["payload is 1048578 bytes long", "limit is 1048576"],
    ),
    (
        "select outbox.enqueue_bytes('t', convert_to(repeat('p', 1048577), 'UTF8'), 'text/plain')",
        &["payload is 1048577 bytes long", "limit is 1048576"],
    ),
    (
        "select outbox.enqueue_bytes('t', 'x', repeat('c', 128))",
        &["content_type is 128 bytes long", "limit is 127"],
    ),
    (
        "select outbox.enqueue('t', '{}', headers => '[]')",
        &["headers is a JSON array"],
    ),
    (
        "select outbox.enqueue('t', '{}', headers => '{\"a\": 1}')",
        &["header \"a\" is a JSON number"],
    ),
    (
        "select outbox.enqueue('t', '{}', headers => '{\"a b\": \"x\"}')",
        &["header name \"a b\""],
    ),
    (
        "select outbox.enqueue('t', '{}', headers => (select jsonb_object_agg('h' || n, 'x')
             from generate_series(1, 65) n))",
        &["headers: 65 of them", "limit is 64"],
    ),
    (
        "select outbox.enqueue('t', '{}', headers => jsonb_build_object('h', repeat('x', 16384)))",
        &["headers is 16385 bytes long", "limit is 16384"],
    ),
    (
        "select outbox.enqueue('t', '{}', deliver_after => '2030-01-02', expires_at => '2030-01-01')",
        &["expires_at", "not after deliver_after"],
    ),
    (
        "select outbox.enqueue('t', '{}', deliver_after => 'infinity')",
        &["deliver_after is infinity"],
    ),
    (
        "select outbox.enqueue_many('{}')",
        &["messages is a JSON object"],
    ),
    ("select outbox.enqueue_many(null)", &["messages is null"]),
    (
        "select outbox.enqueue_many('[1]')",
        &["message 1", "is a JSON number"],
    ),
    (
        "select outbox.enqueue_many('[{\"topic\": \"t\", \"payload\": 1}, {\"topik\": \"t\"}]')",
        &["message 2", "unknown field \"topik\""],
    ),
    (
        "select outbox.enqueue_many('[{\"topic\": \"t\", \"payload\": 1}, {\"topic\": \"t\"}]')",
        &["message 2", "payload is null"],
    ),
    (
        "select outbox.enqueue_many_bytes(array['t', 'u'], array['x'::bytea])",
        &["2 topics, 1 payloads"],
    ),
    (
        "select outbox.enqueue_many_bytes(array['t', 'a b'], array['x'::bytea, 'x'])",
        &["message 2", "topic"],
    ),
    (
        "select outbox.accept('', gen_random_uuid())",
        &["consumer is 0 bytes long", "63"],
    ),
    (
        "select outbox.accept(repeat('c', 64), gen_random_uuid())",
        &["consumer is 64 bytes long", "63"],
    ),
    ("select outbox.accept('c', null)", &["message_id is null"]),
    (
        "select outbox.maintain_empty(null)",
        &["retention is null", "at least 0"],
    ),
    (
        "select outbox.maintain_empty('-1 day')",
        &["retention is -1 days", "at least 0"],
    ),
];

#[tokio::test]
async fn an_argument_that_breaks_a_limit_is_named_and_changes_nothing() {
    let stage = Stage::new().await;
    for (sql, parts) in CASES {
        let error = sqlx::raw_sql(AssertSqlSafe(*sql))
            .execute(stage.pool())
            .await
            .expect_err(sql);
        let error = error.as_database_error().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(error.code().as_deref(), Some(INVALID), "{sql}: {error}");
        for part in *parts {
            assert!(error.message().contains(part), "{sql}: {error}");
        }
    }
    for table in ["message", "message_default", "inbox", "kept"] {
        let count = format!("select count(*) from outbox.{table}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(stage.pool())
            .await
            .expect("count");
        assert_eq!(count, 0, "{table}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused_by_the_server() {
    let stage = Stage::new().await;
    for sql in [
        "select outbox.enqueue(E't\\xff', '{}')",
        "select outbox.enqueue('t', '{}', key => E'\\xc3\\x28')",
        "select outbox.enqueue('t', '{}', headers => jsonb_build_object('h', E'\\xff'))",
        "select outbox.enqueue('t', '{\"nul\": \"\\u0000\"}')",
    ] {
        let error = sqlx::raw_sql(sql)
            .execute(stage.pool())
            .await
            .expect_err(sql);
        let code = error
            .as_database_error()
            .and_then(|e| e.code().map(String::from));
        assert!(
            matches!(code.as_deref(), Some("22021" | "22P05")),
            "{sql}: {error}"
        );
    }
    assert_eq!(stage.number("select count(*) from outbox.message").await, 0);
}

#[tokio::test]
async fn messages_at_every_limit_are_accepted() {
    let stage = Stage::new().await;
    for sql in [
        "select outbox.enqueue(repeat('t', 249), '{}', key => repeat('k', 512))",
        "select outbox.enqueue('t', to_jsonb(repeat('p', 1048574)))",
        "select outbox.enqueue_bytes('t', '', repeat('c', 127))",
        "select outbox.enqueue('t', '{}', headers => (select jsonb_object_agg('h' || n, 'x')
             from generate_series(1, 64) n))",
        "select outbox.enqueue('t', '{}', headers => null, deliver_after => null, id => null)",
        "select outbox.enqueue_many('[]')",
    ] {
        sqlx::raw_sql(sql)
            .execute(stage.pool())
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    assert_eq!(stage.number("select count(*) from outbox.message").await, 5);
}
