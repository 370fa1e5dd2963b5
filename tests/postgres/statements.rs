//! Every statement against the migrated schema.

use outbox_core::Admin;
use outbox_postgres::STATEMENTS;
use outbox_tests::postgres::TestDb;
use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

use crate::stage::connect;

/// A schema whose name needs its quotes everywhere.
const SCHEMA: &str = "My \"Outbox's\"";

#[tokio::test]
async fn every_statement_can_be_prepared_in_a_schema_of_any_name() {
    let database = TestDb::new().await;
    connect(database.url(), SCHEMA)
        .await
        .migrate()
        .await
        .expect("migrate");
    let mut connection = database.pool().acquire().await.expect("connect");
    for (name, text) in STATEMENTS {
        let text = AssertSqlSafe(outbox_migrations::in_schema(text, SCHEMA)).into_sql_str();
        let prepared = (&mut *connection).prepare(text).await;
        assert!(prepared.is_ok(), "{name}: {:?}", prepared.err());
    }
}

#[tokio::test]
async fn two_schemas_live_side_by_side() {
    let database = TestDb::new().await;
    for schema in ["outbox", SCHEMA, "outbox"] {
        let store = connect(database.url(), schema).await;
        store.migrate().await.expect("migrate");
        outbox_core::Store::check(&store).await.expect("check");
    }
    let mut tx = database.pool().begin().await.expect("begin");
    let outbox = outbox_postgres::Outbox::with_schema(SCHEMA);
    outbox
        .enqueue(&mut tx, outbox_core::Message::bytes("t", "x"))
        .await
        .expect("enqueue");
    tx.commit().await.expect("commit");
    let count = "select (select count(*) from outbox.message), \
         (select count(*) from \"My \"\"Outbox's\"\"\".message)";
    let counts: (i64, i64) = sqlx::query_as(count)
        .fetch_one(database.pool())
        .await
        .expect("count");
    assert_eq!(counts, (0, 1));
}
