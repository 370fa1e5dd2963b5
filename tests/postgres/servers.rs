//! The test servers themselves: they can be killed, started again, copied and promoted, and they
//! are gone when their owner is.

use std::process::Command;

use outbox_tests::postgres::{Server, ServerOptions, TestDb};
use sqlx::Connection;

#[tokio::test]
async fn a_test_database_is_dropped_with_its_owner() {
    let database = TestDb::new().await;
    let name = database.name().to_owned();
    let exists = "select count(*) from pg_database where datname = $1";
    let keeper = TestDb::new().await;
    let count = |name: String| sqlx::query_scalar::<_, i64>(exists).bind(name);
    assert_eq!(
        count(name.clone()).fetch_one(keeper.pool()).await.unwrap(),
        1
    );
    drop(database);
    assert_eq!(count(name).fetch_one(keeper.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_killed_server_keeps_what_was_committed_and_a_standby_follows_and_is_promoted() {
    let server = Server::start(ServerOptions::default()).await.unwrap();
    let mut session = server.connect("postgres").await.unwrap();
    sqlx::query("create table kept (n int)")
        .execute(&mut session)
        .await
        .unwrap();
    sqlx::query("insert into kept values (1)")
        .execute(&mut session)
        .await
        .unwrap();
    server.kill9().await.unwrap();
    // A backend notices the postmaster's end when it waits next: until then it may answer.
    let cut_off = async { while sqlx::query("select 1").execute(&mut session).await.is_ok() {} };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, cut_off).await.expect("cut off");
    server.restart().await.unwrap();

    let standby = server.standby().await.unwrap();
    let mut session = standby.connect("postgres").await.unwrap();
    let (recovering, kept): (bool, i64) =
        sqlx::query_as("select pg_is_in_recovery(), (select count(*) from kept)")
            .fetch_one(&mut session)
            .await
            .unwrap();
    assert_eq!((recovering, kept), (true, 1));

    server.kill9().await.unwrap();
    standby.promote().await.unwrap();
    sqlx::query("insert into kept values (2)")
        .execute(&mut session)
        .await
        .unwrap();
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_server_leaves_neither_process_nor_files() {
    let server = Server::start(ServerOptions::default()).await.unwrap();
    let mut session = server.connect("postgres").await.unwrap();
    let folder: String = sqlx::query_scalar("show data_directory")
        .fetch_one(&mut session)
        .await
        .unwrap();
    drop(server);
    assert!(!std::path::Path::new(&folder).exists());
    sqlx::query("select 1")
        .execute(&mut session)
        .await
        .unwrap_err();
}

#[test]
fn with_postgres_passes_the_exit_status_on_and_stops_the_server() {
    let output = Command::new(env!("CARGO_BIN_EXE_with_postgres"))
        .args(["sh", "-c", "echo $OUTBOX_TEST_POSTGRES_URL; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("postgres"));
}

#[test]
fn with_postgres_without_a_command_says_how_it_is_used() {
    let output = Command::new(env!("CARGO_BIN_EXE_with_postgres"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: with_postgres"));
}
