//! What a consumer's inbox keeps of the records that no handler could apply.

use chrono::DateTime;
use outbox_core::{DeadLetter, DeadLetterContent, DeadLetterFilter, InboxError};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::inbox::{SqliteInbox, failed};

const LIST: &str = r#"select id, consumer, message_id, topic, "partition", "offset", attempts, error,
            dead_at
       from outbox_inbox_dead d
      where (?1 is null or consumer = ?1) and id > ?2
        and (?3 or not exists (select 1 from outbox_inbox i
                                where (i.consumer, i.message_id) = (d.consumer, d.message_id)))
      order by id limit ?4"#;

const SHOW: &str = r#"select id, consumer, message_id, topic, "partition", "offset", attempts, error,
            dead_at, key, content_type, headers, payload
       from outbox_inbox_dead where id = ?1"#;

const REMOVE: &str = "delete from outbox_inbox_dead where id = ?1";

impl SqliteInbox {
    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, InboxError> {
        let rows = sqlx::query(LIST)
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
        let row = sqlx::query(SHOW).bind(id).fetch_optional(self.pool()).await;
        let row = row.map_err(failed)?;
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
    /// id.
    ///
    /// # Errors
    /// What the database says.
    pub async fn remove_dead_letter(&self, id: i64) -> Result<bool, InboxError> {
        let removed = sqlx::query(REMOVE).bind(id).execute(self.pool()).await;
        Ok(removed.map_err(failed)?.rows_affected() > 0)
    }
}

fn letter(row: &SqliteRow) -> Result<DeadLetter, InboxError> {
    let read = || {
        let message_id: Option<Vec<u8>> = row.try_get(2)?;
        Ok(DeadLetter {
            id: row.try_get(0)?,
            consumer: row.try_get(1)?,
            message_id: message_id.and_then(|id| Uuid::from_slice(&id).ok()),
            topic: row.try_get(3)?,
            partition: row.try_get(4)?,
            offset: row.try_get(5)?,
            attempts: row.try_get(6)?,
            error: row.try_get(7)?,
            dead_at: DateTime::from_timestamp_millis(row.try_get(8)?).unwrap_or_default(),
        })
    };
    read().map_err(failed)
}
