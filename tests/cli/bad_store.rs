//! A store that is away, wrong, or of another version: the cure is named, passwords are not.

use outbox_tests::postgres::TestDb;
use sqlx::AssertSqlSafe;

use crate::harness::Place;

const UNREACHABLE: i32 = 5;
const SCHEMA: i32 = 6;
const REFUSED: i32 = 7;

#[test]
fn an_unreachable_store_is_told_without_its_password() {
    let place = Place::new();
    // Nobody listens on port 1.
    let url = "postgres://app:hunter2@127.0.0.1:1/shop";
    for arguments in [["status", "--store", url], ["migrate", "--store", url]] {
        let ran = place.run(&arguments);
        ran.ended_with(UNREACHABLE)
            .complained("failed to reach the store: 127.0.0.1:1: ")
            .complained("refused");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
    let ran = place.run(&["status", "--json", "--store", url]);
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect("JSON on stderr");
    assert_eq!(error["kind"], "unreachable");
    assert_eq!(error["exit_code"], UNREACHABLE);
    assert_eq!(ran.stdout, "", "stdout stays empty");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named_with_the_cure() {
    let (place, database) = (Place::new(), TestDb::new().await);
    let url = database.url().replace(database.name(), "no_such_database");
    place
        .run(&["status", "--store", &url])
        .ended_with(REFUSED)
        .complained("database \"no_such_database\" does not exist")
        .complained("create the database");
}

#[tokio::test]
async fn a_missing_schema_is_told_with_the_command_that_makes_it() {
    let (place, database) = (Place::new(), TestDb::new().await);
    for command in ["status", "relay", "adopt"] {
        let ran = place.run(&[command, "--store", database.url()]);
        ran.ended_with(SCHEMA).complained("run `outbox migrate`");
    }
    let doctor = place.run(&["doctor", "--store", database.url()]);
    assert!(
        doctor.ended_with(1).stdout.contains("run `outbox migrate`"),
        "{doctor:?}"
    );
    let events = place.write("events.ndjson", "{\"a\":1}\n");
    let send = [
        "send",
        "--file",
        &events,
        "--topic",
        "t",
        "--store",
        database.url(),
    ];
    place
        .run(&send)
        .ended_with(SCHEMA)
        .complained("run `outbox migrate`");
    place
        .run(&["migrate", "--store", database.url()])
        .ended_with(0);
    place
        .run(&["status", "--store", database.url()])
        .ended_with(0);
    place.run(&send).ended_with(0);
}

#[tokio::test]
async fn an_older_and_a_newer_schema_are_told_with_the_exact_cure() {
    let (place, database) = (Place::new(), TestDb::new().await);
    let json = place
        .run(&["migrate", "--json", "--store", database.url()])
        .ended_with(0)
        .json();
    let version = json["schema_version"].as_i64().expect("a version");
    let newer = format!(
        "insert into outbox._migrations (version, description, success, checksum, execution_time) \
         values ({}, 'of the future', true, '', 0)",
        version + 1
    );
    change(&database, newer).await;
    for command in ["status", "relay", "migrate"] {
        place
            .run(&[command, "--store", database.url()])
            .ended_with(SCHEMA)
            .complained(&format!(
                "is at version {}, newer than the {version}",
                version + 1
            ))
            .complained("use a newer outbox");
    }
    change(
        &database,
        format!("delete from outbox._migrations where version >= {version}"),
    )
    .await;
    place
        .run(&["status", "--store", database.url()])
        .ended_with(SCHEMA)
        .complained("run `outbox migrate`");
}

async fn change(database: &TestDb, sql: String) {
    let changed = sqlx::query(AssertSqlSafe(sql))
        .execute(database.pool())
        .await
        .expect("changed");
    assert!(changed.rows_affected() > 0);
}

#[test]
fn an_operators_question_does_not_create_a_store() {
    let place = Place::new();
    for command in [&["status"][..], &["doctor"], &["dead", "list"], &["adopt"]] {
        place
            .run(command)
            .ended_with(SCHEMA)
            .complained("./outbox-data/outbox.db does not exist")
            .complained("outbox migrate");
    }
    assert!(!place.path().join("outbox-data").exists());
}

#[test]
fn a_newer_schema_and_a_foreign_file_are_told_on_sqlite() {
    let place = Place::new();
    place.write(
        "notes.db",
        "this is not a database, and it is long enough to be looked at".repeat(99),
    );
    place
        .run(&["status", "--store", "sqlite:notes.db"])
        .ended_with(REFUSED)
        .complained("not an SQLite database");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    place
        .run(&["migrate", "--store", "sqlite:new.db"])
        .ended_with(0);
    runtime.block_on(async {
        let pool = outbox_sqlite::pool(place.path().join("new.db"))
            .await
            .expect("opened");
        let newer =
            "insert into outbox_migrations (version, description, run_at) values (99, 'x', 0)";
        sqlx::query(newer).execute(&pool).await.expect("changed");
        pool.close().await;
    });
    place
        .run(&["status", "--store", "sqlite:new.db"])
        .ended_with(SCHEMA)
        .complained("99")
        .complained("newer");
}
