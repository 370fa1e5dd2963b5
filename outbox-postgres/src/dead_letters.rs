//! What a consumer's inbox keeps of the records that no handler could apply.

use outbox_core::{DeadLetter, DeadLetterContent, DeadLetterFilter, InboxError};
use outbox_migrations::in_schema;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use crate::inbox::{PostgresInbox, failed};

/// Without what the records say: readers have no right to that.
const LIST: &str = r#"select id, consumer, message_id, topic, "partition", "offset", attempts::bigint,
            error, dead_at
       from {schema}.inbox_dead d
      where ($1::text is null or consumer = $1) and id > $2
        and ($3 or not exists (select from {schema}.inbox i
                                where (i.consumer, i.message_id) = (d.consumer, d.message_id)))
      order by id limit $4"#;

const SHOW: &str = r#"select id, consumer, message_id, topic, "partition", "offset", attempts::bigint,
            error, dead_at, key, content_type, headers::text, payload
       from {schema}.inbox_dead where id = $1"#;

const REMOVE: &str = "delete from {schema}.inbox_dead where id = $1";

impl PostgresInbox {
    /// Dead letters, oldest first. The role needs `select` on `inbox` and on the columns of
    /// `inbox_dead` that are answered.
    ///
    /// # Errors
    /// What the database says.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, InboxError> {
        let rows = sqlx::query(AssertSqlSafe(in_schema(LIST, self.schema())))
            .persistent(false)
            .bind(filter.consumer.as_deref())
            .bind(filter.after)
            .bind(filter.applied_since)
            .bind(i64::from(filter.limit))
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        rows.iter().map(letter).collect()
    }

    /// One dead letter with what it says; `None` when there is none of that id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn dead_letter_content(
        &self,
        id: i64,
    ) -> Result<Option<DeadLetterContent>, InboxError> {
        let row = sqlx::query(AssertSqlSafe(in_schema(SHOW, self.schema())))
            .persistent(false)
            .bind(id)
            .fetch_optional(self.pool())
            .await
            .map_err(failed)?;
        row.map(|row| {
            Ok(DeadLetterContent {
                letter: letter(&row)?,
                key: row.try_get(9).map_err(failed)?,
                content_type: row.try_get(10).map_err(failed)?,
                headers: row.try_get(11).map_err(failed)?,
                payload: row.try_get(12).map_err(failed)?,
            })
        })
        .transpose()
    }

    /// Forgets a dead letter, whose record is in the log again; `false` when there is none of that
    /// id. The role needs `delete` on `inbox_dead`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_dead_letter(&self, id: i64) -> Result<bool, InboxError> {
        let removed = sqlx::query(AssertSqlSafe(in_schema(REMOVE, self.schema())))
            .persistent(false)
            .bind(id)
            .execute(self.pool())
            .await
            .map_err(failed)?;
        Ok(removed.rows_affected() > 0)
    }
}

fn letter(row: &PgRow) -> Result<DeadLetter, InboxError> {
    let read = || {
        Ok(DeadLetter {
            id: row.try_get(0)?,
            consumer: row.try_get(1)?,
            message_id: row.try_get(2)?,
            topic: row.try_get(3)?,
            partition: row.try_get(4)?,
            offset: row.try_get(5)?,
            attempts: row.try_get(6)?,
            error: row.try_get(7)?,
            dead_at: row.try_get(8)?,
        })
    };
    read().map_err(failed)
}
