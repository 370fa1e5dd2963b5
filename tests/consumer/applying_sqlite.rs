//! A consumer whose handlers write rows in SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outbox_consumer::testing::MemorySource;
use outbox_consumer::{Consumer, HandlerError};
use outbox_sqlite::SqliteInbox;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Executor, Row};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, check, eager, filled, settled};

const TABLE: &str = "create table applied (n integer primary key, key text, payload text)";
const INSERT: &str = "insert into applied (key, payload) values (?, ?)";

async fn open(dir: &std::path::Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("consumer.db"))
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5))
        .create_if_missing(true);
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .expect("opened")
}

fn keeper(
    source: MemorySource,
    pool: SqlitePool,
    seed: u64,
    calls: Arc<AtomicU64>,
) -> Consumer<SqliteInbox> {
    Consumer::new(Arc::new(source), SqliteInbox::new(pool))
        .name("billing")
        .retry(eager(None))
        .batch(16)
        .on("orders", move |record, mut tx| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            let fails = StdRng::seed_from_u64(seed ^ call).random_bool(0.005);
            async move {
                let key = record.key.as_deref().unwrap_or_default();
                sqlx::query(INSERT)
                    .bind(String::from_utf8_lossy(key).into_owned())
                    .bind(String::from_utf8_lossy(&record.payload).into_owned())
                    .execute(&mut **tx)
                    .await?;
                match fails {
                    true => Err(HandlerError::transient("at random")),
                    false => Ok(()),
                }
            }
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_redelivery_and_failing_handlers_apply_each_record_once_and_in_order() {
    const MESSAGES: usize = 1_500;
    let seed = rand::random::<u64>();
    let dir = tempfile::tempdir().expect("a folder");
    let pool = open(dir.path()).await;
    SqliteInbox::new(pool.clone())
        .migrate()
        .await
        .expect("migrated");
    pool.execute(TABLE).await.expect("created");
    let source = filled(MESSAGES, 40, seed);
    for crash in 0..5 {
        let (dir, source) = (dir.path().to_owned(), source.clone());
        let crashed = move || run_and_crash(&dir, source, seed.wrapping_add(crash));
        tokio::task::spawn_blocking(crashed)
            .await
            .expect("crashed as told");
    }
    let stop = CancellationToken::new();
    let consumer = keeper(source.clone(), pool.clone(), seed, Arc::default());
    let run = tokio::spawn(consumer.run(stop.clone()));
    settled(&source, "billing").await;
    stop.cancel();
    run.await.expect("no panic").expect("clean");
    let rows = sqlx::query("select key, payload from applied order by n");
    let rows = rows.fetch_all(&pool).await.expect("read");
    let applied: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    check(&applied, MESSAGES, &format!("seed {seed}"));
}

/// Drops the runtime in the middle of whatever it is doing.
fn run_and_crash(dir: &std::path::Path, source: MemorySource, seed: u64) {
    let runtime = Runtime::new().expect("a runtime");
    let calls = Arc::new(AtomicU64::new(0));
    let (counted, dir) = (calls.clone(), dir.to_owned());
    runtime.spawn(async move {
        let pool = open(&dir).await;
        keeper(source, pool, seed, counted)
            .run(CancellationToken::new())
            .await
    });
    let limit = std::time::Instant::now() + PATIENCE;
    let after = StdRng::seed_from_u64(seed).random_range(1..100);
    while calls.load(Ordering::Relaxed) < after {
        assert!(std::time::Instant::now() < limit, "it never got that far");
        std::thread::yield_now();
    }
    runtime.shutdown_background();
}
