//! The SQL contract: what every other language calls.

use outbox_core::{Headers, InvalidMessage, Message, StoreError, limits};
use outbox_postgres::Outbox;
use sqlx::{Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

use crate::stage::Stage;

/// `enqueue_bytes` with everything given.
const BYTES: &str = "select outbox.enqueue_bytes($1, $2, $3, $4, $5::jsonb, $6, $7)";

/// The library's own way in, with the same arguments.
const OUTGOING: &str = "insert into outbox.outgoing \
    (id, topic, payload, content_type, key, headers, deliver_after, expires_at) \
    values (gen_random_uuid(), $1, $2, $3, $4, $5::jsonb, $6, $7)";

/// Calls SQL with what `message` holds, unchecked by the library; answers what the server said.
async fn refusal(pool: &PgPool, message: &Message) -> String {
    let said = refusal_of(pool, BYTES, message).await;
    let outgoing = refusal_of(pool, OUTGOING, message).await;
    assert_eq!(said, outgoing, "both ways in say the same");
    said
}

async fn refusal_of(pool: &PgPool, sql: &'static str, message: &Message) -> String {
    let error = sqlx::query(sql)
        .bind(&message.topic)
        .bind(&message.payload[..])
        .bind(&message.content_type)
        .bind(&message.key)
        .bind(serde_json::json!(message.headers).to_string())
        .bind(message.deliver_after)
        .bind(message.expires_at)
        .execute(pool)
        .await
        .expect_err("it breaks a limit");
    let error = error.into_database_error().expect("the server said so");
    assert_eq!(error.code().as_deref(), Some("22023"), "{error}");
    error.message().to_owned()
}

fn of(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The numbers in the SQL are those of `outbox_core::limits`, and so are the words.
#[tokio::test]
async fn the_server_refuses_what_the_library_refuses_in_the_same_words() {
    let stage = Stage::new().await;
    let valid = || Message::bytes("t", "x");
    let headers = |count: usize, bytes: usize| -> Headers {
        (0..count).map(|n| (format!("{n:04}"), of(bytes))).collect()
    };
    let with_headers = |headers| Message { headers, ..valid() };
    let broken = [
        Message::bytes(of(limits::TOPIC_BYTES_MAX + 1), ""),
        Message::bytes("", ""),
        Message::bytes("orders/placed", ""),
        valid().key(of(limits::KEY_BYTES_MAX + 1)),
        valid().key(""),
        Message::bytes("t", of(limits::PAYLOAD_BYTES_MAX + 1)),
        valid().content_type(of(limits::CONTENT_TYPE_BYTES_MAX + 1)),
        valid().content_type(""),
        with_headers(headers(limits::HEADERS_MAX + 1, 1)),
        with_headers(headers(16, limits::HEADERS_BYTES_MAX / 16)),
        valid().header("a b", "x"),
        valid().header("", "x"),
    ];
    for message in broken {
        let said = refusal(stage.pool(), &message).await;
        let library = message.validate().expect_err("it breaks a limit");
        match &library {
            InvalidMessage::TopicCharacter { .. } => {
                assert!(said.contains("'/' at byte 6"), "{said}");
            }
            library => assert_eq!(said, library.to_string()),
        }
    }
    let now = chrono::Utc::now();
    let said = refusal(stage.pool(), &valid().deliver_after(now).expires_at(now)).await;
    assert!(said.contains("could never be delivered"), "{said}");
    assert_eq!(stage.number("select count(*) from outbox.message").await, 0);
}

#[tokio::test]
async fn a_message_at_every_limit_is_accepted() {
    let stage = Stage::new().await;
    let headers = (0..limits::HEADERS_MAX)
        .map(|n| (format!("{n:04}"), of(252)))
        .collect();
    let message = Message {
        headers,
        ..Message::bytes(
            of(limits::TOPIC_BYTES_MAX),
            vec![0; limits::PAYLOAD_BYTES_MAX],
        )
        .key(of(limits::KEY_BYTES_MAX))
        .content_type(of(limits::CONTENT_TYPE_BYTES_MAX))
    };
    stage.enqueue(vec![message]).await;
    assert_eq!(stage.number("select count(*) from outbox.message").await, 1);
}

/// Several rows at once, from anything that can be selected: each is checked and locked for itself.
#[tokio::test]
async fn what_is_inserted_into_outgoing_is_checked_row_by_row() {
    let stage = Stage::new().await;
    stage
        .run("insert into outbox.topic (name, strict) values ('strict', true)")
        .await;
    let rows = |topic: &str| {
        format!(
            "insert into outbox.outgoing (id, topic, key, payload, content_type, headers) \
             select gen_random_uuid(), case n when 3 then '{topic}' else 'strict' end, n::text, \
                    'x', 'application/json', '{{}}' from generate_series(1, 4) n"
        )
    };
    let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(rows("a/b")))
        .execute(stage.pool())
        .await
        .expect_err("the third topic is none");
    assert!(refused.to_string().contains("'/' at byte 1"), "{refused}");
    assert_eq!(stage.number("select count(*) from outbox.message").await, 0);
    let mut tx = stage.pool().begin().await.expect("begin");
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows("lax")))
        .execute(&mut *tx)
        .await
        .expect("insert");
    let locks: i64 = sqlx::query_scalar(
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    )
    .fetch_one(&mut *tx)
    .await
    .expect("count");
    assert_eq!(locks, 3, "one for each key of the strict topic");
    tx.commit().await.expect("commit");
    let usual =
        "select count(*) from outbox.message where content_type is null and headers is null";
    assert_eq!(stage.number(usual).await, 4, "what is usual is not written");
}

#[tokio::test]
async fn enqueue_takes_json_and_says_nothing_of_what_is_usual() {
    let stage = Stage::new().await;
    stage
        .run("select outbox.enqueue('orders.placed', '{\"id\": 42}', key => '42')")
        .await;
    let row = sqlx::query(
        "select topic, key, payload, content_type, headers::text, deliver_after, id, created_at \
           from outbox.message",
    )
    .fetch_one(stage.pool())
    .await
    .expect("row");
    assert_eq!(row.get::<&str, _>(0), "orders.placed");
    assert_eq!(row.get::<Option<&str>, _>(1), Some("42"));
    assert_eq!(row.get::<&[u8], _>(2), b"{\"id\": 42}");
    assert_eq!(
        row.get::<Option<&str>, _>(3),
        None,
        "application/json goes without saying"
    );
    assert_eq!(row.get::<Option<&str>, _>(4), None, "so do no headers");
    assert_eq!(row.get::<Option<chrono::DateTime<chrono::Utc>>, _>(5), None);
    let id: Uuid = row.get(6);
    assert_eq!(id.get_version_num(), 7);
    let (seconds, _) = id.get_timestamp().expect("version 7").to_unix();
    let created: chrono::DateTime<chrono::Utc> = row.get(7);
    assert!(created.timestamp().abs_diff(seconds.cast_signed()) <= 1);
}

#[tokio::test]
async fn an_id_that_was_given_is_kept_and_answered() {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    let answered: Uuid = sqlx::query_scalar("select outbox.enqueue('t', '1', id => $1)")
        .bind(id)
        .fetch_one(stage.pool())
        .await
        .expect("enqueue");
    assert_eq!(answered, id);
}

#[tokio::test]
async fn enqueue_many_keeps_the_order_and_answers_the_ids() {
    let stage = Stage::new().await;
    let many = "select outbox.enqueue_many(jsonb_agg(jsonb_build_object( \
        'topic', 't', 'payload', n, 'key', 'k', 'headers', jsonb_build_object('n', n::text)) \
        order by n)) from generate_series(1, 500) n";
    let ids: Vec<Uuid> = sqlx::query_scalar(many)
        .fetch_one(stage.pool())
        .await
        .expect("enqueue");
    let stored: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("select id, payload from outbox.message order by seq")
            .fetch_all(stage.pool())
            .await
            .expect("rows");
    assert_eq!(stored.len(), 500);
    for (n, ((id, payload), answered)) in stored.into_iter().zip(ids).enumerate() {
        assert_eq!((id, payload), (answered, (n + 1).to_string().into_bytes()));
    }
}

#[tokio::test]
async fn a_batch_with_a_problem_names_its_place_and_writes_nothing() {
    let stage = Stage::new().await;
    for (messages, problem) in [
        (
            r#"[{"topic": "t", "payload": 1}, {"topic": "t", "payload": 1, "kye": "k"}]"#,
            "message 2: unknown field \"kye\"",
        ),
        (
            r#"[{"topic": "t", "payload": 1}, {"topic": "a b", "payload": 1}]"#,
            "message 2: topic \"a b\" has ' ' at byte 1",
        ),
        (r#"[{"topic": "t"}]"#, "message 1: payload is null"),
        (
            r#"[{"topic": "t", "payload": 1}, 7]"#,
            "message 2: is a JSON number: give an object",
        ),
        (
            r#"{"topic": "t"}"#,
            "messages is a JSON object: give a JSON array",
        ),
        (
            r#"[{"topic": "t", "payload": 1, "headers": [1]}]"#,
            "message 1: headers is a JSON array",
        ),
        (
            r#"[{"topic": "t", "payload": 1, "headers": {"n": 1}}]"#,
            "message 1: header \"n\" is a JSON number: give a text",
        ),
        (
            r#"[{"topic": "t", "payload": 1, "expires_at": "infinity"}]"#,
            "message 1: expires_at is infinity",
        ),
    ] {
        let error = sqlx::query("select outbox.enqueue_many($1::jsonb)")
            .bind(messages)
            .execute(stage.pool())
            .await
            .expect_err(problem);
        let said = error.into_database_error().expect("the server said so");
        assert!(
            said.message().starts_with(problem),
            "{said} is not {problem}"
        );
    }
    let uneven = "select outbox.enqueue_many_bytes(array['t', 't'], array[''::bytea])";
    let error = sqlx::query(uneven)
        .execute(stage.pool())
        .await
        .expect_err("uneven");
    assert!(
        error.to_string().contains("2 topics, 1 payloads"),
        "{error}"
    );
    assert_eq!(stage.number("select count(*) from outbox.message").await, 0);
}

async fn connect(stage: &Stage) -> PgConnection {
    let mut connection = PgConnection::connect(stage.database.url())
        .await
        .expect("connect");
    let settings = "set lock_timeout = '100ms'";
    sqlx::query(settings)
        .execute(&mut connection)
        .await
        .expect("set");
    connection
}

/// A later writer of the key takes its seq only once the earlier one has committed.
#[tokio::test]
async fn a_strict_topic_orders_the_writers_of_a_key_and_no_others() {
    let stage = Stage::new().await;
    stage
        .run("insert into outbox.topic (name, strict) values ('strict', true), ('lax', false)")
        .await;
    let outbox = Outbox::default();
    let (mut first, mut second) = (connect(&stage).await, connect(&stage).await);
    let mut tx = first.begin().await.expect("begin");
    outbox
        .enqueue(&mut tx, Message::bytes("strict", "1").key("k"))
        .await
        .expect("enqueue");
    outbox
        .enqueue(&mut tx, Message::bytes("lax", "1").key("k"))
        .await
        .expect("enqueue");
    for free in [
        Message::bytes("strict", "2").key("other"),
        Message::bytes("strict", "2"),
        Message::bytes("lax", "2").key("k"),
    ] {
        outbox
            .enqueue(&mut second, free)
            .await
            .expect("nothing to wait for");
    }
    let held = outbox
        .enqueue(&mut second, Message::bytes("strict", "2").key("k"))
        .await;
    assert!(
        held.expect_err("it waits")
            .to_string()
            .contains("lock timeout")
    );
    let batch = vec![
        Message::bytes("lax", "x"),
        Message::bytes("strict", "3").key("k"),
    ];
    let held = outbox.enqueue_all(&mut second, batch).await;
    assert!(
        held.expect_err("it waits")
            .to_string()
            .contains("lock timeout")
    );
    tx.commit().await.expect("commit");
    outbox
        .enqueue(&mut second, Message::bytes("strict", "2").key("k"))
        .await
        .expect("free");
}

/// Two batches with the same keys in opposite order: unsorted locks would deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_a_strict_topic_do_not_deadlock() {
    let stage = Stage::new().await;
    stage
        .run("insert into outbox.topic (name, strict) values ('strict', true)")
        .await;
    let keyed = |n: usize| Message::bytes("strict", "x").key(n);
    let write = |reverse: bool| {
        let pool = stage.pool().clone();
        tokio::spawn(async move {
            for _ in 0..30 {
                let mut batch: Vec<Message> = (0..50).map(keyed).collect();
                if reverse {
                    batch.reverse();
                }
                let mut tx = pool.begin().await.expect("begin");
                Outbox::default()
                    .enqueue_all(&mut tx, batch)
                    .await
                    .expect("no deadlock");
                tx.commit().await.expect("commit");
            }
        })
    };
    let (a, b) = tokio::join!(write(false), write(true));
    a.expect("writer");
    b.expect("writer");
    assert_eq!(
        stage.number("select count(*) from outbox.message").await,
        3_000
    );
}

#[tokio::test]
async fn accept_is_true_once_and_only_in_a_transaction_that_commits() {
    let stage = Stage::new().await;
    let id = Uuid::now_v7();
    let accept = async |tx: &mut PgConnection, consumer: &str| -> bool {
        sqlx::query_scalar("select outbox.accept($1, $2)")
            .bind(consumer)
            .bind(id)
            .fetch_one(tx)
            .await
            .expect("accept")
    };
    let mut tx = stage.pool().begin().await.expect("begin");
    assert!(accept(&mut tx, "billing").await);
    assert!(!accept(&mut tx, "billing").await);
    tx.rollback().await.expect("roll back");
    let mut tx = stage.pool().begin().await.expect("begin");
    assert!(
        accept(&mut tx, "billing").await,
        "the first time was rolled back"
    );
    assert!(accept(&mut tx, "shipping").await, "another consumer");
    tx.commit().await.expect("commit");
    let mut connection = stage.pool().acquire().await.expect("connect");
    assert!(!accept(&mut connection, "billing").await);
    for (call, problem) in [
        (
            "select outbox.accept('', gen_random_uuid())",
            "consumer is 0 bytes long",
        ),
        (
            "select outbox.accept(repeat('x', 64), gen_random_uuid())",
            "consumer is 64 bytes long",
        ),
        ("select outbox.accept('c', null)", "message_id is null"),
    ] {
        let error = sqlx::query(call)
            .execute(stage.pool())
            .await
            .expect_err(problem);
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// Writers hold no right on the tables, and so cannot name xid or seq.
#[tokio::test]
async fn a_login_of_the_writer_role_can_enqueue_and_nothing_else() {
    let stage = Stage::new().await;
    let url = stage.database.login("outbox_writer").await.expect("login");
    let pool = PgPool::connect(&url).await.expect("connect");
    let mut tx = pool.begin().await.expect("begin");
    let outbox = Outbox::default();
    outbox
        .enqueue(&mut tx, Message::bytes("t", "1"))
        .await
        .expect("enqueue");
    let batch = vec![
        Message::bytes("t", "2").header("a", "b"),
        Message::bytes("t", "3").key("k"),
    ];
    assert_eq!(
        outbox
            .enqueue_all(&mut tx, batch)
            .await
            .expect("enqueue")
            .len(),
        2
    );
    tx.commit().await.expect("commit");
    for allowed in [
        "select outbox.enqueue('t', '1')",
        "select outbox.accept('c', gen_random_uuid())",
    ] {
        sqlx::query(allowed).execute(&pool).await.expect(allowed);
    }
    for forbidden in [
        "select * from outbox.message",
        "insert into outbox.message (id, topic, payload) values (gen_random_uuid(), 't', '')",
        "select setval('outbox.message_seq', 1)",
        "select nextval('outbox.message_seq')",
        "select outbox.refuse('x')",
        "update outbox.lease set epoch = 9",
    ] {
        let refused = sqlx::query(forbidden)
            .execute(&pool)
            .await
            .expect_err(forbidden);
        assert!(
            refused.to_string().contains("permission denied"),
            "{forbidden}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_stranger_can_call_nothing() {
    let stage = Stage::new().await;
    let url = stage.database.login("").await.expect("login");
    let pool = PgPool::connect(&url).await.expect("connect");
    stage.run("grant usage on schema outbox to public").await;
    for call in [
        "select outbox.enqueue('t', '1')",
        "select outbox.enqueue_bytes('t', '', 'x')",
        "select outbox.enqueue_many('[]')",
        "select outbox.enqueue_many_bytes('{}', '{}')",
        "select outbox.accept('c', gen_random_uuid())",
        "insert into outbox.outgoing (id, topic, payload) values (gen_random_uuid(), 't', '')",
    ] {
        let refused = sqlx::query(call).execute(&pool).await.expect_err(call);
        assert!(
            refused.to_string().contains("permission denied"),
            "{call}: {refused}"
        );
    }
}

/// An unpinned search path was hijacked in a test: a caller's own function took the place of one
/// of the server's.
#[tokio::test]
async fn a_callers_search_path_changes_nothing() {
    let stage = Stage::new().await;
    let url = stage.database.login("outbox_writer").await.expect("login");
    stage
        .run(
            "create schema evil; grant all on schema evil to public; \
        create function evil.octet_length(text) returns int language sql as 'select 1/0'; \
        create function evil.octet_length(bytea) returns int language sql as 'select 1/0'",
        )
        .await;
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    sqlx::query("set search_path = evil, pg_catalog")
        .execute(&mut connection)
        .await
        .expect("set");
    Outbox::default()
        .enqueue(&mut connection, Message::bytes("t", "1"))
        .await
        .expect("enqueue");
}

#[tokio::test]
async fn an_invalid_message_leaves_the_transaction_usable() {
    let stage = Stage::new().await;
    let mut tx = stage.pool().begin().await.expect("begin");
    let outbox = Outbox::default();
    let invalid = outbox
        .enqueue(&mut tx, Message::bytes("", ""))
        .await
        .expect_err("empty topic");
    assert!(matches!(invalid, StoreError::Invalid(_)), "{invalid}");
    outbox
        .enqueue(&mut tx, Message::bytes("t", ""))
        .await
        .expect("enqueue");
    tx.commit().await.expect("commit");
    assert_eq!(stage.number("select count(*) from outbox.message").await, 1);
}
