//! A consumer whose handlers write rows in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use outbox_consumer::testing::{MemorySource, record};
use outbox_consumer::{Consumer, HandlerError};
use outbox_core::{Record, Source, SourceError, TopicPartition, TopicPattern};
use outbox_postgres::PostgresInbox;
use outbox_tests::postgres::{Server, ServerOptions, TestDb};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Executor, Row};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, check, eager, filled, settled};

/// No constraint forbids a second application: only the inbox does.
pub const TABLE: &str = "create table applied (
    n bigint generated always as identity primary key, key text, payload text)";
pub const INSERT: &str = "insert into applied (key, payload) values ($1, $2)";
pub const APPLIED: &str = "select key, payload from applied order by n";

async fn fresh() -> TestDb {
    let db = TestDb::new().await;
    prepare(db.pool()).await;
    db
}

async fn prepare(pool: &PgPool) {
    PostgresInbox::new(pool.clone())
        .migrate()
        .await
        .expect("migrated");
    pool.execute(TABLE).await.expect("created");
}

async fn applied(pool: &PgPool) -> Vec<(String, String)> {
    let rows = sqlx::query(APPLIED).fetch_all(pool).await.expect("read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn key_of(record: &Record) -> String {
    record.key.as_deref().map(text).unwrap_or_default()
}

/// A consumer that inserts each record, but for payloads that `refuse` refuses after the insert.
fn keeper<R>(source: Arc<dyn Source>, pool: PgPool, refuse: R) -> Consumer<PostgresInbox>
where
    R: Fn(&str) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    Consumer::new(source, PostgresInbox::new(pool))
        .name("billing")
        .retry(eager(None))
        .on("orders", move |record, mut tx| {
            let refused = refuse(&text(&record.payload));
            async move {
                sqlx::query(INSERT)
                    .bind(key_of(&record))
                    .bind(text(&record.payload))
                    .execute(&mut **tx)
                    .await?;
                refused
            }
        })
}

/// Fails a call in about a hundred, of every kind there is.
fn at_random(seed: u64) -> impl Fn(&str) -> Result<(), HandlerError> + Send + Sync {
    let calls = AtomicU64::new(seed);
    move |_| {
        let mut rng = StdRng::seed_from_u64(calls.fetch_add(1, Ordering::Relaxed));
        match rng.random_range(0..300) {
            0 => Err(HandlerError::transient("at random")),
            1 => Err(HandlerError::outage("at random")),
            2 => panic!("at random"),
            _ => Ok(()),
        }
    }
}

/// Runs `consumer` until everything is settled, and stops it.
pub async fn run_to_the_end(consumer: Consumer<PostgresInbox>, source: &MemorySource) {
    let stop = CancellationToken::new();
    let run = tokio::spawn(consumer.run(stop.clone()));
    settled(source, "billing").await;
    stop.cancel();
    run.await.expect("no panic").expect("clean");
}

/// Runs a consumer in a runtime of its own, and drops the runtime in the middle of whatever it is
/// doing: nothing gets to finish, as after `kill -9`.
fn run_and_crash(url: &str, source: MemorySource, seed: u64, after: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let url = url.to_owned();
    runtime.spawn(async move {
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy(&url)
            .expect("lazy");
        let fails = at_random(seed);
        let consumer = keeper(Arc::new(source), pool, move |payload| {
            counted.fetch_add(1, Ordering::Relaxed);
            fails(payload)
        });
        consumer.batch(16).run(CancellationToken::new()).await
    });
    let limit = std::time::Instant::now() + PATIENCE;
    while calls.load(Ordering::Relaxed) < after as u64 {
        assert!(std::time::Instant::now() < limit, "it never got that far");
        std::thread::yield_now();
    }
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_redelivery_and_failing_handlers_apply_each_record_once_and_in_order() {
    const MESSAGES: usize = 2_000;
    let seed = rand::random::<u64>();
    let db = fresh().await;
    let source = filled(MESSAGES, 50, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    for crash in 0..10 {
        let (url, source) = (db.url().to_owned(), source.clone());
        let after = rng.random_range(1..150);
        let crashed = move || run_and_crash(&url, source, seed ^ crash, after);
        tokio::task::spawn_blocking(crashed)
            .await
            .expect("crashed as told");
    }
    let consumer = keeper(Arc::new(source.clone()), db.pool().clone(), at_random(seed));
    run_to_the_end(consumer.batch(64), &source).await;
    check(&applied(db.pool()).await, MESSAGES, &format!("seed {seed}"));
}

/// A source that takes no offsets, as if it crashed before each commit.
struct Forgetful(MemorySource);

#[async_trait]
impl Source for Forgetful {
    async fn partitions(
        &self,
        topics: &[TopicPattern],
    ) -> Result<Vec<TopicPartition>, SourceError> {
        self.0.partitions(topics).await
    }
    async fn committed(&self, group: &str, of: &TopicPartition) -> Result<i64, SourceError> {
        self.0.committed(group, of).await
    }
    async fn fetch(
        &self,
        from: &TopicPartition,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Vec<Record>, SourceError> {
        self.0.fetch(from, offset, max_bytes).await
    }
    async fn changed(&self) {
        self.0.changed().await;
    }
    async fn commit(&self, _: &str, _: &[(TopicPartition, i64)]) -> Result<(), SourceError> {
        Err(SourceError::Outage("told to forget".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_transaction_and_the_offset_applies_nothing_twice() {
    const MESSAGES: usize = 500;
    let db = fresh().await;
    let source = filled(MESSAGES, 20, 1);
    for _ in 0..3 {
        let forgetful = Arc::new(Forgetful(source.clone()));
        let consumer = keeper(forgetful, db.pool().clone(), |_| Ok(()));
        let run = tokio::spawn(consumer.run(CancellationToken::new()));
        let limit = std::time::Instant::now() + PATIENCE;
        while applied(db.pool()).await.len() < MESSAGES {
            assert!(std::time::Instant::now() < limit, "not all were applied");
        }
        run.abort();
        assert!(run.await.is_err_and(|error| error.is_cancelled()));
        assert!(!source.is_settled("billing"));
    }
    let consumer = keeper(Arc::new(source.clone()), db.pool().clone(), |_| Ok(()));
    run_to_the_end(consumer, &source).await;
    check(&applied(db.pool()).await, MESSAGES, "after three crashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_of_one_consumer_apply_each_record_once() {
    const MESSAGES: usize = 1_000;
    let db = fresh().await;
    let (source, other) = (filled(MESSAGES, 30, 2), filled(0, 1, 0));
    for partition in 0..3 {
        // The same records at a second source: each instance reads all of them.
        let of = TopicPartition {
            topic: "orders".into(),
            partition,
        };
        let records = source.fetch(&of, 0, usize::MAX).await.unwrap_or_default();
        for record in records {
            other.append(record);
        }
    }
    let one = keeper(Arc::new(source.clone()), db.pool().clone(), |_| Ok(()));
    let two = keeper(Arc::new(other.clone()), db.pool().clone(), |_| Ok(()));
    tokio::join!(run_to_the_end(one, &source), run_to_the_end(two, &other));
    let mut applied = applied(db.pool()).await;
    applied.sort();
    let all = applied.len();
    applied.dedup();
    assert_eq!((all, applied.len()), (MESSAGES, MESSAGES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_burns_no_attempt_and_breaks_nothing() {
    const MESSAGES: usize = 2_000;
    let server = Server::start(ServerOptions::default())
        .await
        .expect("a server");
    let db = TestDb::on(&server).await.expect("a database");
    prepare(db.pool()).await;
    let source = filled(MESSAGES, 50, 3);
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
    let pool = pool.connect(db.url()).await.expect("connected");
    let (counted, mut calls) = watch::channel(0);
    let consumer = keeper(Arc::new(source.clone()), pool, move |_| {
        counted.send_modify(|calls| *calls += 1);
        Ok(())
    });
    let stop = CancellationToken::new();
    // A single attempt: any that the outage burnt would make a dead letter.
    let run = tokio::spawn(consumer.retry(eager(Some(1))).batch(8).run(stop.clone()));
    for kill in 1..=3 {
        let mark = *calls.borrow() + 50 * kill;
        tokio::select! {
            more = calls.wait_for(|calls| *calls >= mark) => drop(more.expect("it runs")),
            () = settled(&source, "billing") => {}
        }
        server.kill9().await.expect("killed");
        server.restart().await.expect("restarted");
    }
    settled(&source, "billing").await;
    stop.cancel();
    run.await.expect("no panic").expect("clean");
    let pool = PgPool::connect(db.url()).await.expect("connected");
    let dead = pool
        .fetch_one("select count(*) from outbox.inbox_dead")
        .await
        .expect("read");
    assert_eq!(dead.get::<i64, _>(0), 0);
    check(&applied(&pool).await, MESSAGES, "after three kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_database_refuses_is_a_dead_letter_and_the_rest_of_its_batch_is_not() {
    let db = fresh().await;
    let constraint = "alter table applied add constraint odd check (payload <> 'odd'),
                      add constraint unique_late unique (payload) deferrable initially deferred";
    db.pool().execute(constraint).await.expect("altered");
    let source = MemorySource::new();
    for n in 0..60 {
        let payload = match n {
            20 => "odd".to_owned(),
            // Refused at commit, where nobody says which record it was.
            40 => "39".to_owned(),
            n => n.to_string(),
        };
        source.append(record("orders", "k", payload));
    }
    let consumer = keeper(Arc::new(source.clone()), db.pool().clone(), |_| Ok(()));
    run_to_the_end(consumer.retry(eager(Some(3))), &source).await;
    let payloads: Vec<_> = applied(db.pool())
        .await
        .into_iter()
        .map(|(_, p)| p)
        .collect();
    let expected = (0..60)
        .filter(|n| ![20, 40].contains(n))
        .map(|n| n.to_string());
    assert_eq!(payloads, expected.collect::<Vec<_>>());
    let dead = r#"select "offset", attempts, error from outbox.inbox_dead order by 1"#;
    let dead = sqlx::query(dead).fetch_all(db.pool()).await.expect("read");
    let dead: Vec<(i64, i32, String)> = dead
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!((dead.len(), dead[0].0, dead[1].0), (2, 20, 40));
    assert!(
        dead.iter().all(|(_, attempts, _)| *attempts == 3),
        "{dead:?}"
    );
    assert!(
        dead[0].2.contains("odd") && dead[1].2.contains("unique_late"),
        "{dead:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_swallows_a_database_error_loses_nothing() {
    let db = fresh().await;
    let source = MemorySource::new();
    source.append(record("orders", "k", "a"));
    let inbox = PostgresInbox::new(db.pool().clone());
    let consumer = Consumer::new(Arc::new(source.clone()), inbox)
        .name("billing")
        .retry(eager(Some(2)))
        .on("orders", |_, mut tx| async move {
            let _ = tx.execute("insert into no_such_table values (1)").await;
            Ok(())
        });
    run_to_the_end(consumer, &source).await;
    let dead = db
        .pool()
        .fetch_one("select error from outbox.inbox_dead")
        .await
        .expect("kept");
    assert!(
        dead.get::<String, _>(0)
            .contains("the handler answered Ok all the same")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_handlers_that_deadlock_with_each_other_lose_nothing_and_bury_nothing() {
    let db = fresh().await;
    let table = "create table account (id int primary key, total int not null default 0);
                 insert into account select n from generate_series(0, 9) n";
    sqlx::raw_sql(table)
        .execute(db.pool())
        .await
        .expect("created");
    let source = MemorySource::new();
    for n in 0..400 {
        // Different keys, so different workers, touch the same accounts in different order.
        source.append(record(
            "orders",
            &format!("k{}", n % 16),
            (n * 7 % 10).to_string(),
        ));
    }
    let consumer = Consumer::new(
        Arc::new(source.clone()),
        PostgresInbox::new(db.pool().clone()),
    )
    .name("billing")
    .retry(eager(Some(50)))
    .batch(10)
    .on("orders", |record, mut tx| async move {
        sqlx::query("update account set total = total + 1 where id = $1")
            .bind(text(&record.payload).parse::<i32>()?)
            .execute(&mut **tx)
            .await?;
        Ok(())
    });
    run_to_the_end(consumer, &source).await;
    let totals = db
        .pool()
        .fetch_one("select sum(total) from account")
        .await
        .expect("read");
    assert_eq!(totals.get::<i64, _>(0), 400);
}
