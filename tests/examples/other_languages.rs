//! The SQL contract from Python and Node.

use std::path::PathBuf;

use outbox_tests::postgres::TestDb;
use serde::Deserialize;
use sqlx::Row;
use tokio::process::Command;
use uuid::Uuid;

use crate::child::{install, kept_dir, script, sources};
use crate::order_flow::{start_consumer, start_service, wait_until_booked};

/// What the scripts print.
#[derive(Deserialize)]
struct Printed {
    committed: Uuid,
    rolled_back: Uuid,
}

/// A command that must be on the machine.
fn tool(name: &str, cure: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(
        found,
        "this test runs an example with {name}, which is not on the PATH: {cure}"
    );
    Command::new(name)
}

/// A Python with the example's packages.
async fn python() -> PathBuf {
    let dir = kept_dir("python");
    let python = dir.join("bin/python");
    let cure = "install Python 3.9 or newer with its venv module (Debian: python3-venv)";
    let mut venv = tool("python3", cure);
    venv.args(["-m", "venv"]).arg(&dir);
    install(
        venv,
        "make a Python environment (Debian: install python3-venv)",
    )
    .await;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ])
    .arg(sources().join("python/requirements.txt"));
    install(pip, "install psycopg from PyPI").await;
    python
}

/// The example's script beside its packages: Node looks for them from there.
async fn node_script() -> PathBuf {
    let dir = kept_dir("node");
    for file in ["package.json", "enqueue.mjs"] {
        std::fs::copy(sources().join("node").join(file), dir.join(file)).expect("copied");
    }
    let mut npm = tool("npm", "install Node.js 18 or newer with npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund"])
        .current_dir(&dir);
    install(npm, "install pg from npm").await;
    dir.join("enqueue.mjs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_enqueues_in_its_own_transaction() {
    let mut command = Command::new(python().await);
    command.arg(sources().join("python/enqueue.py"));
    enqueued_by(command, "python", 1200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_enqueues_in_its_own_transaction() {
    let script = node_script().await;
    let mut command = tool("node", "install Node.js 18 or newer");
    command.arg(script);
    enqueued_by(command, "node", 3400).await;
}

/// Runs the script; checks its rows, its messages, and that the committed one is applied once.
async fn enqueued_by(mut command: Command, customer: &str, cents: i64) {
    let (db, billing) = (TestDb::new().await, TestDb::new().await);
    // It makes the tables.
    let (service, _) = start_service(&db).await;
    command.env("DATABASE_URL", db.url());
    let printed = script(command, "run the example").await;
    let printed: Printed = serde_json::from_str(&printed).expect("two ids");

    let messages = sqlx::query(
        "select id, topic, key, convert_from(payload, 'UTF8')::jsonb
                                from outbox.message",
    );
    let messages = messages.fetch_all(db.pool()).await.expect("read");
    let [message] = &messages[..] else {
        panic!("one message, there are {}", messages.len())
    };
    assert_eq!(message.get::<Uuid, _>(0), printed.committed);
    assert_ne!(printed.committed, printed.rolled_back);
    assert_eq!(message.get::<String, _>(1), "orders.placed");
    assert_eq!(message.get::<String, _>(2), customer);
    let body: serde_json::Value = message.get(3);
    assert_eq!(body["amount_cents"], cents);
    let orders = sqlx::query("select count(*) from orders")
        .fetch_one(db.pool())
        .await;
    assert_eq!(orders.expect("read").get::<i64, _>(0), 1);

    let log = tempfile::tempdir().expect("a folder");
    let consumer = start_consumer(&db, &billing, &log).await;
    wait_until_booked(&db, &billing).await;
    consumer.stop().await;
    service.stop().await;
}
