//! The consumer's side: an inbox in the consumer's own database.
//!
//! Everything happens in the consumer's transaction, which is READ COMMITTED: an `accept` that
//! meets a concurrent transaction with the same id waits for it, and then sees what it did.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outbox_core::limits::ERROR_TEXT_BYTES_MAX;
use outbox_core::{Inbox, InboxError, Record};
use outbox_migrations::{POSTGRES_INBOX, in_schema, quote_literal};
use sqlx::postgres::{PgArguments, PgPool, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Row, SqlSafeStr, SqlStr, Transaction};
use uuid::Uuid;

/// Rows that one statement of [`PostgresInbox::prune`] removes: it must not hold locks for long.
const PRUNE_ROWS: i64 = 10_000;

/// Ids in a fixed order, so that two transactions with the same ids wait for each other instead of
/// deadlocking. The conflict of an id that stands there twice is with the row just inserted.
const ACCEPT_MANY: &str = "insert into {schema}.inbox (consumer, message_id)
     select $1, id from unnest($2::uuid[]) as ids (id) order by id
     on conflict on constraint inbox_pkey do nothing
     returning message_id";

const ACCEPT: &str = "insert into {schema}.inbox (consumer, message_id) values ($1, $2)
     on conflict on constraint inbox_pkey do nothing";

/// A record that is delivered and given up again replaces its row.
const DEAD_LETTER: &str = r#"insert into {schema}.inbox_dead (consumer, message_id, topic,
            "partition", "offset", key, payload, content_type, headers, attempts, error)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     on conflict on constraint inbox_dead_record do update set
         message_id = excluded.message_id, key = excluded.key, payload = excluded.payload,
         content_type = excluded.content_type, headers = excluded.headers,
         attempts = excluded.attempts, error = excluded.error, dead_at = clock_timestamp()"#;

const PRUNE: &str = "delete from {schema}.inbox where ctid = any (array(
         select ctid from {schema}.inbox
          where accepted_at < clock_timestamp() - $1 * interval '1 second' limit $2))";

/// An inbox in PostgreSQL: two tables in the schema `outbox` of the consumer's own database.
/// Clones share the pool.
///
/// The tables are those that the outbox' migration makes; where there is no outbox,
/// [`PostgresInbox::migrate`] makes them alone. The role needs `usage` on the schema, `select` and
/// `insert` on `inbox`, `select`, `insert` and `update` on `inbox_dead`, and to prune, `delete`.
#[derive(Clone, Debug)]
pub struct PostgresInbox {
    pool: PgPool,
    sql: Arc<Statements>,
    /// Connections may keep the statements prepared.
    prepared: bool,
}

/// The statements, with the schema's name in them.
#[derive(Debug)]
struct Statements {
    schema: String,
    accept: SqlStr,
    accept_many: SqlStr,
    dead_letter: SqlStr,
    prune: SqlStr,
}

impl PostgresInbox {
    /// An inbox in the schema `outbox`. Each worker of a consumer uses one connection of `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self::with_schema(pool, "outbox")
    }

    /// An inbox in another schema.
    pub fn with_schema(pool: PgPool, schema: &str) -> Self {
        let sql = |text| {
            let text: Arc<str> = in_schema(text, schema).into();
            AssertSqlSafe(text).into_sql_str()
        };
        let sql = Arc::new(Statements {
            schema: schema.to_owned(),
            accept: sql(ACCEPT),
            accept_many: sql(ACCEPT_MANY),
            dead_letter: sql(DEAD_LETTER),
            prune: sql(PRUNE),
        });
        Self {
            pool,
            sql,
            prepared: true,
        }
    }

    /// For a pool that connects through a pooler in transaction mode (PgBouncer): prepares nothing
    /// that outlives the transaction. One round trip more for each statement.
    ///
    /// A handler's own statements must do the same: `sqlx::query(…).persistent(false)`.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        self.prepared = false;
        self
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn schema(&self) -> &str {
        &self.sql.schema
    }

    /// One statement, ready for its arguments.
    fn query(&self, sql: &SqlStr) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql.clone()).persistent(self.prepared)
    }

    /// Makes the schema and the inbox' tables where they are missing. Needs no outbox; one that is
    /// migrated later keeps them. May be run at any time, by many at once.
    ///
    /// # Errors
    /// What the database says, a missing right to create for one.
    pub async fn migrate(&self) -> Result<(), InboxError> {
        let schema = quote_literal(&self.sql.schema);
        let lock =
            format!("select pg_advisory_xact_lock(hashtextextended('inbox:' || {schema}, 0))");
        let there = format!(
            "select count(*) = 2 from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where n.nspname = {schema} and c.relname in ('inbox', 'inbox_dead')"
        );
        let mut tx = self.begin().await?;
        // Two CREATE … IF NOT EXISTS at a time can collide in the catalogue.
        tx.execute(AssertSqlSafe(lock)).await.map_err(failed)?;
        // Without this look a role that may use the tables would need the right to create them.
        let row = tx.fetch_one(AssertSqlSafe(there)).await.map_err(failed)?;
        if !row.try_get::<bool, _>(0).map_err(failed)? {
            let tables = format!("create schema if not exists {{schema}};\n{POSTGRES_INBOX}");
            sqlx::raw_sql(AssertSqlSafe(in_schema(&tables, &self.sql.schema)))
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
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
        let mut pruned = 0;
        loop {
            // In a transaction, for a pooler may give each round trip another connection.
            let mut tx = self.begin().await?;
            let step = self
                .query(&self.sql.prune)
                .bind(age.as_secs_f64())
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
impl Inbox for PostgresInbox {
    type Tx = Transaction<'static, Postgres>;

    async fn begin(&self) -> Result<Self::Tx, InboxError> {
        let begin = "begin isolation level read committed";
        self.pool.begin_with(begin).await.map_err(failed)
    }

    async fn accept(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        id: Uuid,
    ) -> Result<bool, InboxError> {
        let inserted = self
            .query(&self.sql.accept)
            .bind(consumer)
            .bind(id)
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
        let rows = self
            .query(&self.sql.accept_many)
            .bind(consumer)
            .bind(ids)
            .fetch_all(&mut **tx)
            .await
            .map_err(failed)?;
        let accepted: Result<HashSet<Uuid>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let mut accepted = accepted.map_err(failed)?;
        // Taken out at its first place, an id that stands there twice is not found again.
        Ok(ids.iter().map(|id| accepted.remove(id)).collect())
    }

    async fn dead_letter(
        &self,
        tx: &mut Self::Tx,
        consumer: &str,
        record: &Record,
        attempts: u32,
        error: &str,
    ) -> Result<(), InboxError> {
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (text(name), text(value).into()));
        let headers: serde_json::Map<String, serde_json::Value> = headers.collect();
        self.query(&self.sql.dead_letter)
            .bind(consumer)
            .bind(record.id)
            .bind(&*record.partition.topic)
            .bind(record.partition.partition)
            .bind(record.offset)
            .bind(record.key.as_deref())
            .bind(&*record.payload)
            .bind(record.content_type.as_deref().map(text))
            .bind(serde_json::Value::Object(headers))
            .bind(i32::try_from(attempts).unwrap_or(i32::MAX))
            .bind(text(cut(error)))
            .execute(&mut **tx)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn commit(&self, mut tx: Self::Tx) -> Result<(), InboxError> {
        // COMMIT of a transaction in which a statement failed is a ROLLBACK that reports success:
        // a handler that swallowed the error would lose the record. Any other statement says so.
        tx.execute("select 1").await.map_err(aborted)?;
        tx.commit().await.map_err(failed)
    }

    fn is_outage(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.filter_map(|cause| cause.downcast_ref()).any(away)
    }
}

pub(crate) fn failed(error: sqlx::Error) -> InboxError {
    match away(&error) {
        true => InboxError::Outage(error.into()),
        false => InboxError::Other(error.into()),
    }
}

fn aborted(error: sqlx::Error) -> InboxError {
    match code(&error).as_deref() {
        Some("25P02") => InboxError::Other(
            "a statement failed in this transaction and the handler answered Ok all the same, so \
             that nothing can be committed: return the error, or use a savepoint"
                .into(),
        ),
        _ => failed(error),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()?
        .code()
        .map(|code| code.into_owned())
}

/// Whether the database, rather than what was asked of it, is the trouble: not reached, starting
/// or stopping, out of connections, memory or disk, or a standby since a switch-over.
fn away(error: &sqlx::Error) -> bool {
    use sqlx::Error;
    match error {
        Error::Io(_) | Error::Tls(_) => true,
        Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        error => code(error).is_some_and(|code| {
            ["08", "53"].iter().any(|class| code.starts_with(class))
                || ["57P01", "57P02", "57P03", "57P05", "25006"].contains(&code.as_str())
        }),
    }
}

/// PostgreSQL's text and jsonb cannot hold NUL, and a dead letter must never be refused.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// At most [`ERROR_TEXT_BYTES_MAX`] bytes of `error`.
fn cut(error: &str) -> &str {
    &error[..error.floor_char_boundary(ERROR_TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outage_is_found_among_the_causes_of_an_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("apply the order")]
        struct Wrapped(#[source] sqlx::Error);
        let pool = PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("lazy");
        let inbox = PostgresInbox::new(pool);
        assert!(inbox.is_outage(&Wrapped(sqlx::Error::PoolTimedOut)));
        assert!(!inbox.is_outage(&Wrapped(sqlx::Error::RowNotFound)));
    }

    #[test]
    fn an_error_text_is_cut_at_a_character() {
        let long = "é".repeat(ERROR_TEXT_BYTES_MAX);
        assert_eq!(cut(&long).len(), ERROR_TEXT_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), ERROR_TEXT_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
