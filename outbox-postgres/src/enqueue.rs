//! Enqueue: the service's side, inside its own transaction.

use std::fmt;
use std::sync::Arc;

use outbox_core::{Headers, Message, StoreError, TraceContext};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::OrStoreError;
use crate::sql::{ENQUEUE, ENQUEUE_MANY, Statements};

/// Most messages of one call to the server; `enqueue_all` sends longer lists in several.
const BATCH_MESSAGES_MAX: usize = 10_000;

/// Most payload of one call to the server, in bytes (16 MiB): what the server holds twice while it
/// inserts.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Enqueues messages inside the caller's transaction: they are committed with it, or not at all.
///
/// Cheap to clone. Needs only the rights of `outbox_writer`.
#[derive(Clone)]
pub struct Outbox {
    statements: Arc<Statements>,
    trace_context: TraceContext,
}

impl Default for Outbox {
    /// The outbox in the schema `outbox`.
    fn default() -> Self {
        Self::with_schema("outbox")
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// The outbox in another schema.
    pub fn with_schema(schema: impl AsRef<str>) -> Self {
        Self {
            statements: Arc::new(Statements::new(schema.as_ref())),
            trace_context: TraceContext::default(),
        }
    }

    /// For connections through a pooler in transaction mode (PgBouncer): prepares nothing that
    /// outlives the transaction. One round trip more for each call.
    pub fn pooled(mut self) -> Self {
        self.statements = Arc::new(Statements::clone(&self.statements).unprepared());
        self
    }

    /// Calls `current` for each message without a `traceparent` header, and adds the headers it answers
    /// (`traceparent` and `tracestate` of the current span; none when there is no span).
    pub fn with_trace_context(
        mut self,
        current: impl Fn() -> Headers + Send + Sync + 'static,
    ) -> Self {
        self.trace_context = TraceContext::new(current);
        self
    }

    /// Enqueues one message; answers its id. One round trip.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the message breaks a limit: nothing was sent, and the
    /// transaction can go on. Any other error has aborted the transaction.
    ///
    /// # Cancellation
    /// When the future is dropped the message may or may not be in the transaction: roll back.
    pub async fn enqueue(
        &self,
        tx: &mut PgConnection,
        message: Message,
    ) -> Result<Uuid, StoreError> {
        message.validate()?;
        let message = self.trace_context.add_to(message)?;
        self.statements
            .query(ENQUEUE)
            .bind(message.id)
            .bind(&message.topic)
            .bind(&message.key)
            .bind(&message.payload[..])
            .bind(&message.content_type)
            .bind(headers(&message).map(sqlx::types::Json))
            .bind(message.deliver_after)
            .bind(message.expires_at)
            .execute(tx)
            .await
            .or_store("enqueue")?;
        Ok(message.id)
    }

    /// Enqueues many messages in their order; answers their ids. One round trip for each
    /// 10,000 messages or 16 MiB.
    ///
    /// # Errors
    /// As [`Outbox::enqueue`]; [`StoreError::Invalid`] comes before anything was sent.
    pub async fn enqueue_all(
        &self,
        tx: &mut PgConnection,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut all = Vec::new();
        for message in messages {
            message.validate()?;
            all.push(self.trace_context.add_to(message)?);
        }
        let mut ids = Vec::with_capacity(all.len());
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(batch_len(rest));
            ids.append(&mut self.enqueue_batch(tx, batch).await?);
            rest = behind;
        }
        Ok(ids)
    }

    async fn enqueue_batch(
        &self,
        tx: &mut PgConnection,
        batch: &[Message],
    ) -> Result<Vec<Uuid>, StoreError> {
        let row = self
            .statements
            .query(ENQUEUE_MANY)
            .bind(batch.iter().map(|m| m.topic.as_str()).collect::<Vec<_>>())
            .bind(batch.iter().map(|m| &m.payload[..]).collect::<Vec<_>>())
            .bind(
                batch
                    .iter()
                    .map(|m| m.content_type.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(batch.iter().map(|m| m.key.as_deref()).collect::<Vec<_>>())
            .bind(
                batch
                    .iter()
                    .map(|m| headers(m).map(as_json))
                    .collect::<Vec<_>>(),
            )
            .bind(batch.iter().map(|m| m.deliver_after).collect::<Vec<_>>())
            .bind(batch.iter().map(|m| m.expires_at).collect::<Vec<_>>())
            .bind(batch.iter().map(|m| m.id).collect::<Vec<_>>())
            .fetch_one(tx)
            .await
            .or_store("enqueue")?;
        row.try_get(0).or_store("enqueue")
    }
}

/// `None` stands for no headers.
fn headers(message: &Message) -> Option<&Headers> {
    (!message.headers.is_empty()).then_some(&message.headers)
}

fn as_json(headers: &Headers) -> String {
    serde_json::json!(headers).to_string()
}

/// How many of the first messages go into one call: at least one.
fn batch_len(messages: &[Message]) -> usize {
    let mut bytes = 0;
    let fit = messages
        .iter()
        .take(BATCH_MESSAGES_MAX)
        .take_while(|message| {
            bytes += message.payload.len();
            bytes <= BATCH_BYTES_MAX
        });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_at_its_bytes_or_its_messages_and_holds_at_least_one() {
        let of = |count: usize, bytes: usize| vec![Message::bytes("t", vec![0; bytes]); count];
        assert_eq!(batch_len(&of(10_001, 0)), BATCH_MESSAGES_MAX);
        assert_eq!(batch_len(&of(17, 1 << 20)), 16);
        assert_eq!(batch_len(&of(1, 17 << 20)), 1);
    }
}
