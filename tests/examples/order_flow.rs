//! order-service and order-consumer: from `POST /orders` to an account that adds up.

use std::collections::BTreeMap;

use outbox_broker::{Broker, BrokerOptions};
use outbox_log_broker::LogOptions;
use outbox_tests::condition::until;
use outbox_tests::postgres::TestDb;
use serde_json::json;
use sqlx::{PgPool, Row};

use crate::child::Example;
use crate::http::request;

/// How long everything may take to be applied.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// (orders, cents) by customer.
type Accounts = BTreeMap<String, (i64, i64)>;

pub async fn start_service(db: &TestDb) -> (Example, String) {
    let variables = [("DATABASE_URL", db.url()), ("LISTEN", "127.0.0.1:0")];
    let mut service = Example::start("order-service", &variables).await;
    let address = service.line("listening on ").await;
    (service, address)
}

pub async fn start_consumer(db: &TestDb, billing: &TestDb, log: &tempfile::TempDir) -> Example {
    let broker = format!("log:{}/log", log.path().display());
    start_consumer_of(db, billing, &broker).await
}

async fn start_consumer_of(db: &TestDb, billing: &TestDb, broker: &str) -> Example {
    let variables = [
        ("DATABASE_URL", db.url()),
        ("BILLING_DATABASE_URL", billing.url()),
        ("BROKER", broker),
    ];
    Example::start("order-consumer", &variables).await
}

async fn sums(pool: &PgPool, query: &'static str) -> Accounts {
    // While the consumer starts there is no table yet.
    let rows = sqlx::query(query).fetch_all(pool).await.unwrap_or_default();
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect()
}

async fn ordered(db: &TestDb) -> Accounts {
    let query = "select customer, count(*), sum(amount_cents)::bigint from orders group by 1";
    sums(db.pool(), query).await
}

async fn booked(billing: &TestDb) -> Accounts {
    sums(
        billing.pool(),
        "select customer, orders, total_cents from account",
    )
    .await
}

/// Waits until the accounts hold what was ordered.
pub async fn wait_until_booked(db: &TestDb, billing: &TestDb) {
    let expected = ordered(db).await;
    assert!(!expected.is_empty());
    let what = format!("booked what was ordered, {expected:?}");
    let holds = async || Ok(booked(billing).await == expected);
    until(&what, PATIENCE, holds).await.expect("in time");
}

async fn messages(db: &TestDb) -> i64 {
    let count = sqlx::query("select count(*) from outbox.message")
        .fetch_one(db.pool())
        .await;
    count.expect("counted").get(0)
}

#[tokio::test]
async fn an_order_and_its_message_are_written_together_or_not_at_all() {
    let db = TestDb::new().await;
    let (service, address) = start_service(&db).await;
    let order = json!({"customer": "ann", "amount_cents": 1200});
    let (status, placed) = request(&address, "POST", "/orders", Some(&order)).await;
    assert_eq!((status, &placed["customer"]), (201, &json!("ann")));
    let path = format!("/orders/{}", placed["id"]);
    assert_eq!(request(&address, "GET", &path, None).await, (200, placed));
    assert_eq!(request(&address, "GET", "/orders/999", None).await.0, 404);
    assert_eq!(messages(&db).await, 1);

    for amount in [-1, 99_000, 200_000] {
        let order = json!({"customer": "ann", "amount_cents": amount});
        let (status, problem) = request(&address, "POST", "/orders", Some(&order)).await;
        assert_eq!(status, 409, "{problem}");
    }
    // The key would be too long: refused by the outbox after the order was inserted.
    let order = json!({"customer": "a".repeat(600), "amount_cents": 1});
    let (status, problem) = request(&address, "POST", "/orders", Some(&order)).await;
    assert_eq!(status, 422, "{problem}");
    assert!(
        problem["error"]
            .as_str()
            .expect("text")
            .contains("key is 600 bytes long")
    );
    assert_eq!(messages(&db).await, 1);
    assert_eq!(
        ordered(&db).await,
        Accounts::from([("ann".to_owned(), (1, 1200))])
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_add_up_though_the_consumer_is_killed_while_orders_come_in() {
    let (db, billing) = (TestDb::new().await, TestDb::new().await);
    let log = tempfile::tempdir().expect("a folder");
    let (service, address) = start_service(&db).await;
    let mut consumer = start_consumer(&db, &billing, &log).await;
    for n in 0..120 {
        let order = json!({"customer": format!("c{}", n % 7), "amount_cents": n + 1});
        let (status, problem) = request(&address, "POST", "/orders", Some(&order)).await;
        assert_eq!(status, 201, "{problem}");
        if n % 40 == 20 {
            // Something was applied, and something is on its way.
            let some = async || Ok(!booked(&billing).await.is_empty());
            until("something is applied", PATIENCE, some)
                .await
                .expect("in time");
            consumer.kill9().await;
            consumer = start_consumer(&db, &billing, &log).await;
        }
    }
    wait_until_booked(&db, &billing).await;
    consumer.stop().await;
    let query = "select count(*) from outbox.inbox";
    let accepted = sqlx::query(query)
        .fetch_one(billing.pool())
        .await
        .expect("counted");
    assert_eq!(accepted.get::<i64, _>(0), 120);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_share_a_broker_and_one_takes_over_when_the_other_is_killed() {
    let (db, billing) = (TestDb::new().await, TestDb::new().await);
    let dir = tempfile::tempdir().expect("a folder");
    let log = LogOptions::new(dir.path().join("log"));
    let server = Broker::start(BrokerOptions::new(log, ([127, 0, 0, 1], 0).into())).await;
    let server = server.expect("the broker starts");
    let broker = format!("log://{}", server.local_addr());
    let (service, address) = start_service(&db).await;
    let killed = start_consumer_of(&db, &billing, &broker).await;
    let left = start_consumer_of(&db, &billing, &broker).await;
    for n in 0..60 {
        let order = json!({"customer": format!("c{}", n % 7), "amount_cents": n + 1});
        let (status, problem) = request(&address, "POST", "/orders", Some(&order)).await;
        assert_eq!(status, 201, "{problem}");
    }
    wait_until_booked(&db, &billing).await;
    killed.kill9().await;
    for n in 0..60 {
        let order = json!({"customer": format!("c{}", n % 7), "amount_cents": n + 1});
        let (status, problem) = request(&address, "POST", "/orders", Some(&order)).await;
        assert_eq!(status, 201, "{problem}");
    }
    wait_until_booked(&db, &billing).await;
    left.stop().await;
    service.stop().await;
    server.stop().await;
}
