//! The consumer's side: an inbox in the consumer's own SQLite file.
//!
//! Transactions are BEGIN IMMEDIATE: one at a time, so that an `accept` never meets a concurrent
//! one. More than one worker therefore gains nothing, and a pool of a single connection makes
//! waiting writers queue up fairly.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use outbox_core::limits::ERROR_TEXT_BYTES_MAX;
use outbox_core::{Inbox, InboxError, Record};
use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{Row, Transaction};
use uuid::Uuid;

/// Rows that one statement of [`SqliteInbox::prune`] removes: it must not keep writers waiting.
const PRUNE_ROWS: i64 = 10_000;

const ACCEPT: &str = "insert into outbox_inbox (consumer, message_id, accepted_at)
     values (?1, ?2, ?3) on conflict do nothing";

/// `where true`: without it the parser takes ON for a join's.
const ACCEPT_MANY: &str = "insert into outbox_inbox (consumer, message_id, accepted_at)
     select ?1, unhex(value), ?3 from json_each(?2) where true
     on conflict do nothing returning message_id";

/// A record that is delivered and given up again replaces its row.
const DEAD_LETTER: &str = r#"insert into outbox_inbox_dead (consumer, message_id, topic,
            "partition", "offset", key, payload, content_type, headers, attempts, error, dead_at)
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
     on conflict (consumer, topic, "partition", "offset") do update set
         message_id = excluded.message_id, key = excluded.key, payload = excluded.payload,
         content_type = excluded.content_type, headers = excluded.headers,
         attempts = excluded.attempts, error = excluded.error, dead_at = excluded.dead_at"#;

const PRUNE: &str = "delete from outbox_inbox where (consumer, message_id) in (
         select consumer, message_id from outbox_inbox where accepted_at < ?1 limit ?2)";

/// An inbox in SQLite: two tables in the consumer's own file. Clones share the pool.
///
/// The tables are those that the outbox' migration makes; where there is no outbox,
/// [`SqliteInbox::migrate`] makes them alone.
#[derive(Clone, Debug)]
pub struct SqliteInbox {
    pool: SqlitePool,
}

impl SqliteInbox {
    /// An inbox in the file of `pool`, which `pool` opens with the right settings.
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Makes the inbox' tables where they are missing. Needs no outbox; one that is migrated later
    /// keeps them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate(&self) -> Result<(), InboxError> {
        let mut tx = self.begin().await?;
        sqlx::raw_sql(outbox_migrations::SQLITE_INBOX)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Forgets ids that were accepted longer ago than `age`, in small steps; answers how many.
    /// It reads the whole table: once a day is enough.
    ///
    /// A message that is delivered again after that is applied again, so `age` must be longer
    /// than whatever can deliver again: the broker's retention, and resends by operators.
    ///
    /// # Errors
    /// What the database says; what was removed before stays removed.
    pub async fn prune(&self, age: Duration) -> Result<u64, InboxError> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let before = now().saturating_sub(age);
        let mut pruned = 0;
        loop {
            let mut tx = self.begin().await?;
            let step = sqlx::query(PRUNE)
                .bind(before)
                .bind(PRUNE_ROWS)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            tx.commit().await.map_err(failed)?;
            pruned += step.rows_affected();
            if step.rows_affected() < PRUNE_ROWS as u64 {
                return Ok(pruned);
            }
        }
    }
}

#[async_trait]
impl Inbox for SqliteInbox {
    type Tx = Transaction<'static, Sqlite>;

    async fn begin(&self) -> Result<Self::Tx, InboxError> {
        self.pool
            .begin_with("begin immediate")
            .await
            .map_err(failed)
    }

    async fn accept(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        id: Uuid,
    ) -> Result<bool, InboxError> {
        let inserted = sqlx::query(ACCEPT)
            .bind(consumer)
            .bind(&id.as_bytes()[..])
            .bind(now())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn accept_many(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        ids: &[Uuid],
    ) -> Result<Vec<bool>, InboxError> {
        if let [id] = ids {
            return Ok(vec![self.accept(tx, consumer, *id).await?]);
        }
        let hex: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
        let list = serde_json::Value::from(hex).to_string();
        let rows = sqlx::query(ACCEPT_MANY)
            .bind(consumer)
            .bind(list)
            .bind(now())
            .fetch_all(&mut **tx)
            .await
            .map_err(failed)?;
        let accepted: Result<HashSet<Vec<u8>>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let mut accepted = accepted.map_err(failed)?;
        // Taken out at its first place, an id that stands there twice is not found again.
        Ok(ids
            .iter()
            .map(|id| accepted.remove(&id.as_bytes()[..]))
            .collect())
    }

    async fn dead_letter(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        record: &Record,
        attempts: u32,
        error: &str,
    ) -> Result<(), InboxError> {
        let headers = serde_json::to_string(&record.headers)
            .map_err(|error| InboxError::Other(error.into()))?;
        sqlx::query(DEAD_LETTER)
            .bind(consumer)
            .bind(record.id.map(|id| id.as_bytes().to_vec()))
            .bind(&*record.partition.topic)
            .bind(record.partition.partition)
            .bind(record.offset)
            .bind(record.key.as_deref())
            .bind(&*record.payload)
            .bind(record.content_type.as_deref())
            .bind(headers)
            .bind(i64::from(attempts))
            .bind(&error[..error.floor_char_boundary(ERROR_TEXT_BYTES_MAX)])
            .bind(now())
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn commit(&self, tx: Self::Tx) -> Result<(), InboxError> {
        // A failed statement leaves the rest of the transaction in force; where SQLite rolls all
        // of it back by itself (disk full, I/O error), COMMIT fails: nothing is lost unseen.
        tx.commit().await.map_err(failed)
    }

    fn is_outage(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.filter_map(|cause| cause.downcast_ref()).any(away)
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    Utc::now().timestamp_millis()
}

pub(crate) fn failed(error: sqlx::Error) -> InboxError {
    match away(&error) {
        true => InboxError::Outage(error.into()),
        false => InboxError::Other(error.into()),
    }
}

/// Whether the file, rather than what was asked of it, is the trouble: held by another writer for
/// longer than the busy timeout, unreadable, or its disk is full.
fn away(error: &sqlx::Error) -> bool {
    /// Primary result codes: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
    const AWAY: [i32; 6] = [5, 6, 8, 10, 13, 14];
    use sqlx::Error;
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<i32>().ok());
            code.is_some_and(|code| AWAY.contains(&(code & 0xff)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{Headers, TopicPartition};
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    /// A fresh file with the inbox' tables in it.
    async fn fresh() -> (tempfile::TempDir, SqliteInbox) {
        let dir = tempfile::tempdir().expect("a folder");
        let inbox = open(&dir).await;
        inbox.migrate().await.expect("migrated");
        (dir, inbox)
    }

    async fn open(dir: &tempfile::TempDir) -> SqliteInbox {
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("consumer.db"))
            .busy_timeout(Duration::from_millis(200))
            .create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(2);
        SqliteInbox::new(pool.connect_with(options).await.expect("opened"))
    }

    async fn count(inbox: &SqliteInbox, table: &'static str) -> i64 {
        let row = sqlx::query(table)
            .fetch_one(&inbox.pool)
            .await
            .expect("counted");
        row.get(0)
    }

    const ACCEPTED: &str = "select count(*) from outbox_inbox";

    #[tokio::test]
    async fn an_id_is_accepted_once_for_each_consumer() {
        let (_dir, inbox) = fresh().await;
        let id = Uuid::now_v7();
        for (consumer, expected) in [("a", true), ("a", false), ("b", true)] {
            let mut tx = inbox.begin().await.expect("begun");
            let accepted = inbox.accept(&mut tx, consumer, id).await.expect("asked");
            assert_eq!(accepted, expected);
            inbox.commit(tx).await.expect("committed");
        }
    }

    #[tokio::test]
    async fn many_ids_are_answered_in_their_order_and_a_repeated_one_once() {
        let (_dir, inbox) = fresh().await;
        let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
        let mut tx = inbox.begin().await.expect("begun");
        assert!(inbox.accept(&mut tx, "a", ids[2]).await.expect("asked"));
        let asked = [ids[3], ids[2], ids[0], ids[3], ids[1]];
        let accepted = inbox
            .accept_many(&mut tx, "a", &asked)
            .await
            .expect("asked");
        assert_eq!(accepted, [true, false, true, false, true]);
        let none = inbox.accept_many(&mut tx, "a", &[]).await.expect("asked");
        assert!(none.is_empty());
        inbox.commit(tx).await.expect("committed");
        assert_eq!(count(&inbox, ACCEPTED).await, 4);
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_accepts_nothing() {
        let (_dir, inbox) = fresh().await;
        let id = Uuid::now_v7();
        let mut tx = inbox.begin().await.expect("begun");
        assert!(inbox.accept(&mut tx, "a", id).await.expect("asked"));
        drop(tx);
        let mut tx = inbox.begin().await.expect("begun");
        assert!(inbox.accept(&mut tx, "a", id).await.expect("asked"));
    }

    #[tokio::test]
    async fn a_second_writer_waits_and_gives_up_with_an_outage() {
        let (_dir, inbox) = fresh().await;
        let first = inbox.begin().await.expect("begun");
        let second = inbox.begin().await.expect_err("the file is held");
        assert!(matches!(second, InboxError::Outage(_)), "{second}");
        drop(first);
        inbox.begin().await.expect("free again");
    }

    #[tokio::test]
    async fn a_dead_letter_is_kept_whole_and_a_second_time_replaces_it() {
        let (_dir, inbox) = fresh().await;
        let record = Record {
            partition: TopicPartition {
                topic: "orders".into(),
                partition: 3,
            },
            offset: 7,
            id: None,
            key: Some("k".into()),
            payload: vec![0, 255].into(),
            content_type: None,
            headers: Headers::from([("a".to_owned(), "b\0".to_owned())]),
            timestamp: Utc::now(),
        };
        for attempts in [1, 2] {
            let mut tx = inbox.begin().await.expect("begun");
            let error = "long ".repeat(1_000);
            let kept = inbox
                .dead_letter(&mut tx, "a", &record, attempts, &error)
                .await;
            kept.expect("kept");
            inbox.commit(tx).await.expect("committed");
        }
        let all = r#"select topic, "partition", "offset", payload, headers, attempts, length(error)
                     from outbox_inbox_dead"#;
        let rows = sqlx::query(all).fetch_all(&inbox.pool).await.expect("read");
        let [row] = &rows[..] else { panic!("one row") };
        let place: (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(place, ("orders".to_owned(), 3, 7));
        assert_eq!(row.get::<Vec<u8>, _>(3), [0, 255]);
        assert_eq!(row.get::<String, _>(4), r#"{"a":"b\u0000"}"#);
        assert_eq!((row.get::<i64, _>(5), row.get::<i64, _>(6)), (2, 1_024));
    }

    #[tokio::test]
    async fn pruning_forgets_old_ids_only_and_migrating_again_keeps_them() {
        let (_dir, inbox) = fresh().await;
        let mut tx = inbox.begin().await.expect("begun");
        inbox
            .accept(&mut tx, "a", Uuid::now_v7())
            .await
            .expect("asked");
        inbox
            .accept(&mut tx, "a", Uuid::now_v7())
            .await
            .expect("asked");
        let one = "update outbox_inbox set accepted_at = 0
                    where message_id = (select min(message_id) from outbox_inbox)";
        sqlx::query(one).execute(&mut *tx).await.expect("aged");
        inbox.commit(tx).await.expect("committed");
        inbox.migrate().await.expect("migrated again");
        assert_eq!(
            inbox.prune(Duration::from_secs(60)).await.expect("pruned"),
            1
        );
        assert_eq!(count(&inbox, ACCEPTED).await, 1);
    }
}
