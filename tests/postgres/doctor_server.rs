//! The doctor on servers that are ill themselves: settings, roles and horizons belong to the whole
//! cluster, so each of these tests has one of its own.

use outbox_core::{Admin, Finding, Severity};
use outbox_tests::postgres::{Server, ServerOptions, TestDb};
use sqlx::PgPool;

use crate::stage::connect;

/// A server with these settings, and a migrated database on it.
async fn server(settings: &[&str]) -> (Server, TestDb) {
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    let server = Server::start(ServerOptions { settings })
        .await
        .expect("start");
    let database = TestDb::on(&server).await.expect("database");
    connect(database.url(), "outbox")
        .await
        .migrate()
        .await
        .expect("migrate");
    (server, database)
}

/// What the doctor says about `check`, through a connection that is new: settings of a database
/// or a role show in new ones only.
async fn finding(url: &str, check: &str) -> Finding {
    let findings = connect(url, "outbox").await.doctor().await.expect("doctor");
    let found = findings.into_iter().find(|f| f.check == check);
    found.unwrap_or_else(|| panic!("no finding for {check}"))
}

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql)
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn a_server_that_would_lose_or_bloat_is_found() {
    let (server, database) = server(&["full_page_writes=off", "autovacuum=off"]).await;
    let durability = finding(database.url(), "durability").await;
    assert_eq!(durability.severity, Severity::Error, "{durability:?}");
    let autovacuum = finding(database.url(), "autovacuum").await;
    assert_eq!(autovacuum.severity, Severity::Warning, "{autovacuum:?}");
    assert!(
        autovacuum.cure.contains("autovacuum = on"),
        "{autovacuum:?}"
    );

    let standby = server.standby().await.expect("standby");
    let recovery = finding(&standby.url(database.name()), "recovery").await;
    assert_eq!(recovery.severity, Severity::Error, "{recovery:?}");
    assert!(recovery.cure.contains("primary"), "{recovery:?}");
}

#[tokio::test]
async fn commits_that_may_be_taken_back_and_roles_that_lost_something_are_found() {
    let (_server, database) = server(&[]).await;
    for (sql, check, word) in [
        (
            "do $$ begin execute format('alter database %I set synchronous_commit = off',
             current_database()); end $$",
            "durability",
            "synchronous_commit",
        ),
        (
            "alter role outbox_relay reset plan_cache_mode",
            "relay_settings",
            "plan_cache_mode",
        ),
        (
            "alter role outbox_reader rename to somebody_else",
            "roles",
            "outbox_reader",
        ),
    ] {
        let before = finding(database.url(), check).await;
        assert_eq!(before.severity, Severity::Ok, "{before:?}");
        run(database.pool(), sql).await;
        let found = finding(database.url(), check).await;
        assert_eq!(found.severity, Severity::Warning, "{sql}: {found:?}");
        assert!(found.text.contains(word), "{sql}: {found:?}");
        assert!(!found.cure.is_empty(), "{sql}");
    }
}

/// How old is too old is tested without a server; here, that each kind of holder is seen, however
/// many there are of another.
#[tokio::test]
async fn whoever_holds_the_horizon_is_seen() {
    let (_server, database) = server(&["wal_level=logical"]).await;
    let pool = database.pool();
    // A slot waits for all transactions that run: it comes first.
    run(
        pool,
        "select pg_create_logical_replication_slot('slow', 'pgoutput')",
    )
    .await;
    run(
        pool,
        "begin; create table held (); prepare transaction 'forgotten'",
    )
    .await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut session = pool.begin().await.expect("begin");
        sqlx::query("select pg_current_xact_id()")
            .execute(&mut *session)
            .await
            .expect("take an xid");
        sessions.push(session);
    }
    let found = finding(database.url(), "xmin_held").await;
    assert_eq!(found.severity, Severity::Ok, "young still: {found:?}");
    for holder in [
        "prepared transaction 'forgotten' for ",
        "replication slot slow, ",
        "session pid ",
    ] {
        assert!(found.text.contains(holder), "{found:?}");
    }
    // Neither lets the database be dropped.
    drop(sessions);
    run(pool, "rollback prepared 'forgotten'").await;
    run(pool, "select pg_drop_replication_slot('slow')").await;
}
