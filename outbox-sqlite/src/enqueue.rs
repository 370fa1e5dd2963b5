//! Enqueue: a message becomes a row of the caller's own transaction.

use std::sync::{Arc, LazyLock};

use outbox_core::{Headers, Message, StoreError, TraceContext};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::error::{failed, is_busy, other};
use crate::limits::INSERT_ROWS;
use crate::row::{USUAL_CONTENT_TYPE, now, to_micros};
use crate::transaction::{TransactionCheck, not_a_writer};

/// Columns of one insert, and its parameters.
const INSERT: &str = "INSERT INTO outbox_message \
    (id, topic, key, content_type, headers, created_at, deliver_after, expires_at, payload) VALUES ";
const PARAMETERS: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?)";

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| format!("{INSERT}{PARAMETERS}"));
static INSERT_MANY: LazyLock<String> =
    LazyLock::new(|| format!("{INSERT}{}", [PARAMETERS; INSERT_ROWS].join(", ")));

/// Enqueues messages inside the caller's own transaction: they are sent if it commits, and never if
/// it does not.
///
/// The transaction must have begun as a writer, `pool.begin_with("BEGIN IMMEDIATE")`. A plain
/// `BEGIN` that has read fails with `SQLITE_BUSY_SNAPSHOT` as soon as another writer commits,
/// whatever its timeout, so it is refused at once instead of under load.
///
/// Cheap to clone; keep one for the process.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    check: Arc<TransactionCheck>,
    trace_context: TraceContext,
}

impl Outbox {
    /// Calls `current` for each message without a `traceparent` header, and adds the headers it answers
    /// (`traceparent` and `tracestate` of the current span; none when there is no span).
    #[must_use]
    pub fn with_trace_context(
        mut self,
        current: impl Fn() -> Headers + Send + Sync + 'static,
    ) -> Self {
        self.trace_context = TraceContext::new(current);
        self
    }

    /// Enqueues one message; answers its id.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it breaks a limit, [`StoreError::Refused`] outside of a write
    /// transaction, [`StoreError::Schema`] when the file has no outbox. Nothing was written then.
    ///
    /// # Cancellation
    /// Dropping the future leaves it unknown whether the message is part of the transaction: roll
    /// it back.
    pub async fn enqueue(
        &self,
        tx: &mut SqliteConnection,
        message: Message,
    ) -> Result<Uuid, StoreError> {
        let ids = self.enqueue_all(tx, [message]).await?;
        Ok(ids[0])
    }

    /// Enqueues messages in their order; answers their ids. All are checked before the first is
    /// written.
    ///
    /// # Errors
    /// As [`Outbox::enqueue`]. After an error from the database, roll the transaction back: some
    /// of the messages may be part of it.
    pub async fn enqueue_all(
        &self,
        tx: &mut SqliteConnection,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut all = Vec::new();
        for message in messages {
            message.validate()?;
            all.push(self.trace_context.add_to(message)?);
        }
        self.check.check(tx).await?;
        insert(tx, &all).await?;
        Ok(all.iter().map(|m| m.id).collect())
    }
}

/// Inserts validated messages, many to a statement.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    messages: &[Message],
) -> Result<(), StoreError> {
    let (whole, rest) = messages.as_chunks::<INSERT_ROWS>();
    for chunk in whole {
        execute(tx, &INSERT_MANY, chunk).await?;
    }
    for message in rest {
        execute(tx, &INSERT_ONE, std::slice::from_ref(message)).await?;
    }
    Ok(())
}

async fn execute(
    tx: &mut SqliteConnection,
    sql: &'static str,
    messages: &[Message],
) -> Result<(), StoreError> {
    let created_at = now();
    let mut query = sqlx::query(sql);
    for message in messages {
        query = bind(query, message, created_at)?;
    }
    match query.execute(tx).await {
        Ok(_) => Ok(()),
        // A writer already holds the lock and never meets this.
        Err(e) if is_busy(&e) => Err(not_a_writer()),
        Err(e) => Err(failed("enqueue", e)),
    }
}

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

fn bind(query: Query, message: &Message, created_at: i64) -> Result<Query, StoreError> {
    let content_type = message.content_type.as_str();
    let headers = match message.headers.is_empty() {
        true => None,
        false => {
            let text = serde_json::to_string(&message.headers);
            Some(text.map_err(|e| other("write the headers", e))?)
        }
    };
    Ok(query
        .bind(message.id.as_bytes().to_vec())
        .bind(message.topic.clone())
        .bind(message.key.clone())
        .bind((content_type != USUAL_CONTENT_TYPE).then(|| content_type.to_owned()))
        .bind(headers)
        .bind(created_at)
        .bind(message.deliver_after.map(to_micros))
        .bind(message.expires_at.map(to_micros))
        .bind(message.payload.to_vec()))
}
