//! What each role can do, and what it cannot.

use outbox_core::{Admin, ExceptionFilter, RequestAction, Selection, Store};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::{
    claim, destination, keep_nothing, lead, messages, read, through,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::stage::{Stage, connect};

/// SQLSTATE insufficient_privilege.
const DENIED: &str = "42501";

/// SQLSTATE of the error, or `ok`.
async fn outcome(connection: &mut PgConnection, sql: &str) -> String {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
    {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let code = error
                .as_database_error()
                .and_then(|e| e.code().map(String::from));
            code.unwrap_or_else(|| error.to_string())
        }
    }
}

async fn login(stage: &Stage, group: &str) -> PgConnection {
    let url = stage.database.login(group).await.expect("create a login");
    PgConnection::connect(&url).await.expect("connect")
}

async fn denied(connection: &mut PgConnection, statements: &[&str]) {
    for sql in statements {
        assert_eq!(outcome(connection, sql).await, DENIED, "{sql}");
    }
}

#[tokio::test]
async fn a_writer_can_enqueue_and_accept_and_nothing_else() {
    let stage = Stage::new().await;
    let mut writer = login(&stage, "outbox_writer").await;
    let mut tx = writer.begin().await.expect("begin");
    let id = Outbox::default()
        .enqueue(&mut tx, messages("t", 1).remove(0))
        .await;
    id.expect("enqueue");
    tx.commit().await.expect("commit");
    for sql in [
        "select outbox.enqueue('t', '{}')",
        "select outbox.enqueue_bytes('t', '', 'text/plain', key => 'k')",
        "select outbox.enqueue_many('[{\"topic\": \"t\", \"payload\": 1}]')",
        "select outbox.accept('billing', gen_random_uuid())",
        "insert into outbox.outgoing (id, topic, payload) values (gen_random_uuid(), 't', '')",
    ] {
        assert_eq!(outcome(&mut writer, sql).await, "ok", "{sql}");
    }
    denied(
        &mut writer,
        &[
            "select * from outbox.message",
            "select * from outbox.outgoing",
            "select * from outbox.inbox",
            "insert into outbox.message (id, topic, payload) values (gen_random_uuid(), 't', '')",
            "insert into outbox.message overriding system value select * from outbox.message",
            "insert into outbox.inbox values ('c', gen_random_uuid())",
            "delete from outbox.inbox",
            "select nextval('outbox.message_seq')",
            "select setval('outbox.message_seq', 1)",
            "truncate outbox.message_p1",
            "insert into outbox.message_p1 (id, topic, payload) values (gen_random_uuid(), 't', '')",
            "insert into outbox.topic values ('t', true)",
            "update outbox.destination set paused = true",
            "select outbox.maintain_empty('0')",
            "select outbox.default_rows()",
            "create table outbox.mine ()",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_relay_can_do_all_of_its_work_and_nothing_to_messages() {
    let stage = Stage::new().await;
    stage
        .store
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    stage.enqueue(messages("t", 3)).await;
    let url = stage
        .database
        .login("outbox_relay")
        .await
        .expect("create a login");
    let store = connect(&url, "outbox").await;
    store.check().await.expect("check");
    let lease = claim(&store, "d", "relay").await;
    let mut session = store.open(&lease).await.expect("open");
    let all = read(&mut *session, 3).await;
    session.settle(&through(all[2].seq)).await.expect("settle");
    assert!(session.requests().await.expect("requests").is_empty());
    drop(session);
    store.release(&lease).await.expect("release");
    stage.skip_to(3_000_000).await;
    let round = store.maintain(&keep_nothing()).await.expect("maintain");
    assert!(round.partitions_attached > 0, "{round:?}");
    assert_eq!(
        store.status().await.expect("status").destinations[0].cursor,
        3
    );

    let mut relay = PgConnection::connect(&url).await.expect("connect");
    denied(
        &mut relay,
        &[
            "select outbox.enqueue('t', '{}')",
            "select outbox.accept('billing', gen_random_uuid())",
            "insert into outbox.message (id, topic, payload) values (gen_random_uuid(), 't', '')",
            "update outbox.message set topic = 'x'",
            "delete from outbox.message",
            "truncate outbox.message",
            "truncate outbox.message_p1",
            "drop table outbox.message_p1",
            "delete from outbox.kept",
            "delete from outbox.request",
            "update outbox.destination set config = '{}'",
            "delete from outbox.progress_0",
            "truncate outbox.progress_0",
            "select setval('outbox.message_seq', 1)",
            "create table outbox.mine ()",
            "alter table outbox.message disable row level security",
        ],
    )
    .await;
}

#[tokio::test]
async fn an_operator_can_decide_everything_and_touch_no_message() {
    let stage = Stage::new().await;
    let url = stage.database.login("outbox_operator").await;
    let url = url.expect("create a login");
    let store = connect(&url, "outbox").await;
    store
        .declare(&[destination("d", &["*"]), destination("e", &["a.*"])])
        .await
        .expect("declare new ones");
    store
        .declare(&[destination("d", &["*"]), destination("e", &["b.*"])])
        .await
        .expect("declare a change");
    store
        .import("events.ndjson", 0, 10, &messages("t", 2))
        .await
        .expect("import");
    store
        .import("events.ndjson", 10, 20, &messages("t", 1))
        .await
        .expect("import more");
    assert_eq!(store.status().await.expect("status").last_seq, 3);
    assert!(!store.doctor().await.expect("doctor").is_empty());

    let mut session = lead(&stage.store, "d", "leader").await;
    let all = read(&mut *session, 3).await;
    session.settle(&through(3)).await.expect("settle");
    for action in [
        RequestAction::Resend,
        RequestAction::Discard,
        RequestAction::Unblock,
    ] {
        let ids = Selection::Ids(vec![all[0].id]);
        store.request("d", action, &ids).await.expect("request");
    }
    drop(session);
    // As on a copy: progress and fences of another cluster.
    stage
        .run(
            "insert into outbox.gap values ('d', 1, 1, '1', now());
             update outbox.progress_0 set incarnation = 'pg-1-1-1';
             update outbox.progress_1 set incarnation = 'pg-1-1-1'",
        )
        .await;
    assert_eq!(store.adopt().await.expect("adopt"), ["d", "e"]);

    let mut operator = PgConnection::connect(&url).await.expect("connect");
    let outgoing =
        "insert into outbox.outgoing (id, topic, payload) values (gen_random_uuid(), 't', '')";
    assert_eq!(outcome(&mut operator, outgoing).await, "ok");
    assert_eq!(store.status().await.expect("status").last_seq, 4);
    denied(
        &mut operator,
        &[
            "select * from outbox.outgoing",
            "insert into outbox.message (id, topic, payload) values (gen_random_uuid(), 't', '')",
            "update outbox.message set topic = 'x'",
            "delete from outbox.message",
            "truncate outbox.message",
            "delete from outbox.destination",
            "delete from outbox.request",
            "update outbox.request set applied_at = now()",
            "update outbox.lease set epoch = 7",
            "update outbox.progress_0 set cursor = 7",
            "delete from outbox.progress_0",
            "delete from outbox.delivery",
            "update outbox.delivery set state = 'retrying'",
            "select outbox.accept('billing', gen_random_uuid())",
            "select outbox.maintain_empty('0')",
            "select setval('outbox.message_seq', 1)",
            "create table outbox.mine ()",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_relay_alone_starts_with_what_is_declared_and_is_told_who_may_declare_more() {
    let stage = Stage::new().await;
    let declared = [destination("d", &["*"])];
    stage.store.declare(&declared).await.expect("declare");
    let url = stage.database.login("outbox_relay").await;
    let store = connect(&url.expect("create a login"), "outbox").await;
    store.declare(&declared).await.expect("nothing is new");
    let more = [destination("d", &["*"]), destination("e", &["*"])];
    let refused = store.declare(&more).await.expect_err("refused").to_string();
    assert!(refused.contains("outbox_operator"), "{refused}");
    let url = stage.database.login("outbox_relay, outbox_operator").await;
    let store = connect(&url.expect("create a login"), "outbox").await;
    store.declare(&more).await.expect("declare");
    assert!(claim(&store, "e", "relay").await.epoch > 0);
}

#[tokio::test]
async fn a_reader_sees_everything_and_changes_nothing() {
    let stage = Stage::new().await;
    stage
        .store
        .declare(&[destination("d", &["*"])])
        .await
        .expect("declare");
    let message = messages("t", 1).remove(0);
    stage.enqueue(vec![message.clone()]).await;
    let url = stage
        .database
        .login("outbox_reader")
        .await
        .expect("create a login");
    let store = connect(&url, "outbox").await;
    assert_eq!(store.status().await.expect("status").last_seq, 1);
    assert!(store.message(message.id).await.expect("message").is_some());
    let all = ExceptionFilter::default();
    assert!(store.exceptions(&all).await.expect("exceptions").is_empty());
    let findings = store.doctor().await.expect("doctor");
    assert!(
        findings.iter().any(|f| f.check == "progress"),
        "{findings:?}"
    );

    let mut reader = PgConnection::connect(&url).await.expect("connect");
    denied(
        &mut reader,
        &[
            "select outbox.enqueue('t', '{}')",
            "select outbox.accept('billing', gen_random_uuid())",
            "update outbox.lease set owner = 'me'",
            "insert into outbox.relay values ('me', 1)",
            "delete from outbox.delivery",
            "insert into outbox.request (destination, action, seqs) values ('d', 'resend', '{1}')",
            "select outbox.maintain_attach()",
            "select outbox.maintain_empty('0')",
            "truncate outbox.message",
        ],
    )
    .await;
    let one = Selection::Ids(vec![message.id]);
    let refused = store
        .request("d", RequestAction::Resend, &one)
        .await
        .expect_err("refused");
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_login_without_a_role_of_ours_is_told_which_to_grant() {
    let stage = Stage::new().await;
    let url = stage.database.login("").await.expect("create a login");
    let refused = connect(&url, "outbox")
        .await
        .status()
        .await
        .expect_err("refused");
    assert!(
        refused
            .to_string()
            .contains("may not use schema \"outbox\""),
        "{refused}"
    );
    assert!(refused.to_string().contains("outbox_reader"), "{refused}");
}

#[tokio::test]
async fn everything_that_runs_with_anothers_rights_pins_its_path_and_is_closed_to_the_public() {
    let stage = Stage::new().await;
    let loose: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p join pg_roles o on o.oid = p.proowner
          where p.pronamespace = 'outbox'::regnamespace and p.prosecdef
            and (o.rolcanlogin or not p.proconfig @> array['search_path=pg_catalog, pg_temp']
                 or has_function_privilege('public', p.oid, 'execute'))",
    )
    .fetch_all(stage.pool())
    .await
    .expect("read");
    assert_eq!(loose, Vec::<String>::new());
    let open: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p
          where p.pronamespace = 'outbox'::regnamespace
            and has_function_privilege('public', p.oid, 'execute')",
    )
    .fetch_all(stage.pool())
    .await
    .expect("read");
    assert_eq!(open, Vec::<String>::new());
}

#[tokio::test]
async fn a_writers_own_schema_cannot_take_over_a_function_that_runs_with_more_rights() {
    let stage = Stage::new().await;
    let mut writer = login(&stage, "outbox_writer").await;
    stage
        .run(
            "create schema evil; grant all on schema evil to public;
             create table evil.log (who text); grant all on evil.log to public",
        )
        .await;
    // Whatever the functions call, a better match of the same name waits in the caller's path, and in its
    // temporary schema.
    for shadow in [
        "create function evil.octet_length(text) returns int language plpgsql as $$
             begin insert into evil.log values (current_user); return 1; end $$",
        "create function evil.clock_timestamp() returns timestamptz language plpgsql as $$
             begin insert into evil.log values (current_user); return now(); end $$",
        "create function evil.convert_to(text, text) returns bytea language plpgsql as $$
             begin insert into evil.log values (current_user); return ''; end $$",
        "create function evil.gen_random_uuid() returns uuid language plpgsql as $$
             begin insert into evil.log values (current_user);
             return '00000000-0000-0000-0000-000000000000'; end $$",
        "create function evil.eq(text, text) returns boolean language plpgsql as $$
             begin insert into evil.log values (current_user); return true; end $$",
        "create operator evil.= (leftarg = text, rightarg = text, function = evil.eq)",
        "create temp table message (xid xid8, seq bigint, id uuid, topic text)",
        "create temp table topic (name text, strict boolean)",
        "create temp table inbox (consumer text, message_id uuid)",
        "set search_path = evil, pg_temp, pg_catalog, outbox",
    ] {
        assert_eq!(outcome(&mut writer, shadow).await, "ok", "{shadow}");
    }
    for call in [
        "select outbox.enqueue('t', '{}', key => 'k', headers => '{\"a\": \"b\"}')",
        "select outbox.enqueue_bytes('t', 'x', 'text/plain', key => 'k')",
        "select outbox.enqueue_many('[{\"topic\": \"t\", \"payload\": 1, \"key\": \"k\"}]')",
        "select outbox.accept('billing', pg_catalog.gen_random_uuid())",
        "insert into outbox.outgoing (id, topic, key, payload, headers)
         values (pg_catalog.gen_random_uuid(), 't', 'k', 'x', '{\"a\": \"b\"}')",
    ] {
        assert_eq!(outcome(&mut writer, call).await, "ok", "{call}");
    }
    assert_eq!(
        stage.number("select count(*) from evil.log").await,
        0,
        "nothing was taken over"
    );
    assert_eq!(stage.number("select count(*) from outbox.message").await, 4);
    assert_eq!(stage.number("select count(*) from outbox.inbox").await, 1);
}
