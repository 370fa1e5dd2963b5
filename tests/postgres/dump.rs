//! A dump restored into another cluster, as an operator would: `pg_dumpall` for the roles, `pg_dump`
//! and `psql` for the rest.

use std::process::Output;

use outbox_core::{Admin, Seq, Settlement, Store, StoreError};
use outbox_tests::conformance::stage::{claim, lead, messages, read, through};
use outbox_tests::postgres::{Binaries, Server, ServerOptions};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::incarnation::{enqueue, migrated};
use crate::stage::connect;

/// Runs one of the client programs to a good end, and answers what it printed.
async fn client(binaries: &Binaries, program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(binaries.program(program))
        .args(arguments)
        .output()
        .await;
    let Output {
        status,
        stdout,
        stderr,
    } = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8(stdout).expect("text")
}

/// `sql` into `url`, stopping at the first error.
async fn restore(binaries: &Binaries, url: &str, sql: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), sql).expect("written");
    let path = file.path().to_str().expect("a path");
    let stop = "--set=ON_ERROR_STOP=1";
    let arguments = ["--no-psqlrc", "--quiet", stop, "--file", path, url];
    client(binaries, "psql", &arguments).await;
}

#[tokio::test]
async fn a_dump_restored_elsewhere_publishes_nothing_until_it_is_adopted() {
    let clients = ["pg_dump", "pg_dumpall", "psql"];
    let Some(binaries) = Binaries::with_programs(&clients).expect("look for them") else {
        eprintln!("no pg_dump beside a server on this machine: the test of it did not run");
        return;
    };
    let start = || Server::start_from(&binaries, ServerOptions::default());
    let (original, elsewhere) = tokio::try_join!(start(), start()).expect("two clusters");
    let name = original.create_database().await.expect("database");
    let url = original.url(&name);
    let store = migrated(&url).await;
    let pool = sqlx::PgPool::connect(&url).await.expect("connect");
    let mut session = lead(&store, "d", "first").await;
    enqueue(&pool, messages("t", 12)).await;
    // A transaction of the original is open when the dump is taken: its gap is in it, its row not.
    let mut open = PgConnection::connect(&url).await.expect("connect");
    let mut held = open.begin().await.expect("begin");
    sqlx::query("select outbox.enqueue('t', '{}')")
        .execute(&mut *held)
        .await
        .expect("enqueue");
    enqueue(&pool, messages("t", 8)).await;
    let handed_out = read(&mut *session, 20).await;
    session.settle(&through(17)).await.expect("settle");
    assert_eq!(handed_out.len(), 20);

    let roles = client(&binaries, "pg_dumpall", &["--roles-only", "--dbname", &url]).await;
    let dump = client(&binaries, "pg_dump", &["--dbname", &url]).await;
    let copied = elsewhere.create_database().await.expect("database");
    let copy_url = elsewhere.url(&copied);
    // The superuser is there already.
    let ours = roles.lines().filter(|line| !line.contains("ROLE postgres"));
    restore(&binaries, &copy_url, &ours.collect::<Vec<_>>().join("\n")).await;
    restore(&binaries, &copy_url, &dump).await;

    let copy = connect(&copy_url, "outbox").await;
    copy.check().await.expect("a whole schema");
    let lease = claim(&copy, "d", "relay").await;
    let refused = copy.open(&lease).await.map(drop).expect_err("a copy");
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    assert!(refused.to_string().contains("outbox adopt"), "{refused}");
    assert_eq!(copy.adopt().await.expect("adopt"), ["d"]);

    let mut again = lead(&copy, "d", "relay").await;
    assert_eq!(again.opened().cursor, 17);
    let there = sqlx::PgPool::connect(&copy_url).await.expect("connect");
    enqueue(&there, messages("t", 1)).await;
    let rest = read(&mut *again, 5).await;
    let seqs: Vec<Seq> = rest.iter().map(|m| m.seq).collect();
    assert_eq!(
        seqs,
        [18, 19, 20, 21, 22],
        "it goes on where the copy stood"
    );
    let settled = Settlement {
        through: 22,
        ..Settlement::default()
    };
    again.settle(&settled).await.expect("settle");
    // The fence of the original's transaction means nothing here: the gap closes all the same.
    while again
        .page(outbox_core::PageLimit::default())
        .await
        .expect("page")
        .gaps_open
        > 0
    {
        again.settle(&settled).await.expect("settle");
    }
    held.commit().await.expect("the original goes on");
    there.close().await;
    pool.close().await;
}
