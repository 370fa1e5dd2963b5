//! The message a service enqueues.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::limits;
use crate::topic::check_topic;

/// Headers of a message: text names and values, unique by name, in name order.
pub type Headers = BTreeMap<String, String>;

/// Content type of a message when nothing else was said.
const JSON: &str = "application/json";

/// A message about to be enqueued.
///
/// The setters never fail; [`Message::validate`] runs inside `enqueue`, before anything is
/// written, and names the field, its size and the limit.
///
/// ```
/// use outbox_core::Message;
/// let message = Message::json("orders.placed", &serde_json::json!({"id": 42}))?.key(42);
/// assert_eq!(message.key.as_deref(), Some("42"));
/// message.validate()?;
/// # Ok::<(), outbox_core::InvalidMessage>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Identity of the message at every broker and in every inbox: a UUIDv7 unless set.
    pub id: Uuid,
    /// Where it belongs, e.g. `orders.placed`: 1 to 249 bytes of `[A-Za-z0-9._-]`.
    pub topic: String,
    /// Messages of one topic with one key keep their order. `None`: no order.
    pub key: Option<String>,
    /// The body, opaque to us: at most 1 MiB.
    pub payload: Bytes,
    /// Media type of the payload; `application/json` unless set.
    pub content_type: String,
    /// Carried to the broker's native headers. `traceparent` and `tracestate` are understood.
    pub headers: Headers,
    /// Not before this time. Scheduled messages go by due time, not by key order.
    pub deliver_after: Option<DateTime<Utc>>,
    /// Not after this time: past it the message is marked `expired` instead of sent.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Message {
    /// A message with a raw payload of type `application/octet-stream`.
    pub fn bytes(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            id: Uuid::now_v7(),
            topic: topic.into(),
            key: None,
            payload: payload.into(),
            content_type: "application/octet-stream".to_owned(),
            headers: Headers::new(),
            deliver_after: None,
            expires_at: None,
        }
    }

    /// A message whose payload is `body` as JSON.
    ///
    /// # Errors
    /// [`InvalidMessage::Json`] when `body` cannot be serialised.
    pub fn json<T: Serialize + ?Sized>(
        topic: impl Into<String>,
        body: &T,
    ) -> Result<Self, InvalidMessage> {
        let payload = serde_json::to_vec(body).map_err(|e| InvalidMessage::Json(e.to_string()))?;
        Ok(Self::bytes(topic, payload).content_type(JSON))
    }

    /// Sets the id, for callers that have one of their own (it must be unique for each message).
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// Sets the key: messages of one topic with one key keep their order.
    pub fn key(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Sets the payload's media type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Adds a header; a second one of the same name replaces the first.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Delivers not before `at`.
    pub fn deliver_after(mut self, at: DateTime<Utc>) -> Self {
        self.deliver_after = Some(at);
        self
    }

    /// Delivers not after `at`.
    pub fn expires_at(mut self, at: DateTime<Utc>) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// The first field that is out of bounds, with its size and the limit.
    pub fn validate(&self) -> Result<(), InvalidMessage> {
        check_topic(&self.topic)?;
        if let Some(key) = &self.key {
            text("key", key, limits::KEY_BYTES_MAX)?;
        }
        size("payload", self.payload.len(), limits::PAYLOAD_BYTES_MAX)?;
        text(
            "content_type",
            &self.content_type,
            limits::CONTENT_TYPE_BYTES_MAX,
        )?;
        check_headers(&self.headers)?;
        if let (Some(after), Some(expires)) = (self.deliver_after, self.expires_at)
            && expires <= after
        {
            return Err(InvalidMessage::ExpiresBeforeDelivery { after, expires });
        }
        Ok(())
    }
}

fn check_headers(headers: &Headers) -> Result<(), InvalidMessage> {
    if headers.len() > limits::HEADERS_MAX {
        return Err(InvalidMessage::TooManyHeaders {
            count: headers.len(),
            limit: limits::HEADERS_MAX,
        });
    }
    let mut total = 0;
    for (name, value) in headers {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidMessage::HeaderName { name: name.clone() });
        }
        if value.contains('\0') {
            return Err(InvalidMessage::Nul {
                field: "header value",
            });
        }
        total += name.len() + value.len();
    }
    size("headers", total, limits::HEADERS_BYTES_MAX)
}

fn text(field: &'static str, value: &str, limit: usize) -> Result<(), InvalidMessage> {
    if value.is_empty() {
        return Err(InvalidMessage::Empty { field });
    }
    // PostgreSQL's text cannot hold NUL, so no store accepts it.
    if value.contains('\0') {
        return Err(InvalidMessage::Nul { field });
    }
    size(field, value.len(), limit)
}

pub(crate) fn size(field: &'static str, bytes: usize, limit: usize) -> Result<(), InvalidMessage> {
    if bytes > limit {
        return Err(InvalidMessage::TooLong {
            field,
            bytes,
            limit,
        });
    }
    Ok(())
}

/// Why a message was refused. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// A field is longer than its limit.
    #[error("{field} is {bytes} bytes long, the limit is {limit}")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A field that must not be empty is.
    #[error("{field} is empty: give at least one character, or leave it out")]
    Empty {
        /// Name of the field.
        field: &'static str,
    },
    /// A text holds a NUL character, which PostgreSQL cannot store.
    #[error("{field} holds a NUL character, which no store accepts")]
    Nul {
        /// Name of the field.
        field: &'static str,
    },
    /// The topic has a character outside `[A-Za-z0-9._-]`.
    #[error("topic {topic:?} has {found:?} at byte {at}: allowed are A-Z a-z 0-9 . _ -")]
    TopicCharacter {
        /// The topic.
        topic: String,
        /// The character.
        found: char,
        /// Its byte position.
        at: usize,
    },
    /// A header's name is empty or not printable ASCII.
    #[error("header name {name:?} must be printable ASCII without spaces, and not empty")]
    HeaderName {
        /// The name.
        name: String,
    },
    /// More headers than allowed.
    #[error("headers: {count} of them, the limit is {limit}")]
    TooManyHeaders {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The message would expire before it may be delivered.
    #[error("expires_at {expires} is not after deliver_after {after}: it could never be delivered")]
    ExpiresBeforeDelivery {
        /// `deliver_after`.
        after: DateTime<Utc>,
        /// `expires_at`.
        expires: DateTime<Utc>,
    },
    /// The body could not be serialised.
    #[error("payload cannot be serialised as JSON: {0}")]
    Json(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_with_the_size_and_the_limit() {
        let topic = Message::bytes("t".repeat(250), "").validate().unwrap_err();
        assert_eq!(
            topic.to_string(),
            "topic is 250 bytes long, the limit is 249"
        );
        let key = Message::bytes("t", "")
            .key("k".repeat(513))
            .validate()
            .unwrap_err();
        assert_eq!(key.to_string(), "key is 513 bytes long, the limit is 512");
        let payload = Message::bytes("t", vec![0; (1 << 20) + 1])
            .validate()
            .unwrap_err();
        assert_eq!(
            payload.to_string(),
            "payload is 1048577 bytes long, the limit is 1048576"
        );
    }

    #[test]
    fn a_message_at_every_limit_is_accepted() {
        let message = Message::bytes("t".repeat(249), vec![0; 1 << 20]).key("k".repeat(512));
        assert_eq!(message.validate(), Ok(()));
    }

    #[test]
    fn a_topic_with_a_foreign_character_says_which_and_where() {
        let error = Message::bytes("orders/placed", "").validate().unwrap_err();
        assert!(error.to_string().contains("'/' at byte 6"), "{error}");
    }

    #[test]
    fn a_message_that_could_never_be_delivered_is_refused() {
        let now = Utc::now();
        let message = Message::bytes("t", "").deliver_after(now).expires_at(now);
        assert!(matches!(
            message.validate(),
            Err(InvalidMessage::ExpiresBeforeDelivery { .. })
        ));
    }

    #[test]
    fn nul_is_refused_wherever_text_is_due() {
        assert!(Message::bytes("t", "").key("a\0b").validate().is_err());
        assert!(
            Message::bytes("t", "")
                .header("h", "a\0b")
                .validate()
                .is_err()
        );
        assert!(
            Message::bytes("t", "")
                .header("bad name", "x")
                .validate()
                .is_err()
        );
    }
}
