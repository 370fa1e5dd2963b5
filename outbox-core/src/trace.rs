//! The W3C trace context of whoever enqueues.

use std::fmt;
use std::sync::Arc;

use crate::{Headers, InvalidMessage, Message};

/// Header of the W3C trace context: a message that has one keeps it.
const TRACEPARENT: &str = "traceparent";

/// Adds the trace context of the current span to messages. The default adds nothing.
#[derive(Clone, Default)]
pub struct TraceContext(Option<Arc<dyn Fn() -> Headers + Send + Sync>>);

impl TraceContext {
    /// `current` answers `traceparent` and `tracestate` of the current span; none when there is no
    /// span. It is called once for each message without a `traceparent`.
    pub fn new(current: impl Fn() -> Headers + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(current)))
    }

    /// The message with the current trace context, unless it has one.
    ///
    /// # Errors
    /// When the headers break a limit with it.
    pub fn add_to(&self, mut message: Message) -> Result<Message, InvalidMessage> {
        let Some(current) = &self.0 else {
            return Ok(message);
        };
        if message.headers.contains_key(TRACEPARENT) {
            return Ok(message);
        }
        let context = current();
        if !context.is_empty() {
            message.headers.extend(context);
            message.validate()?;
        }
        Ok(message)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext")
            .field(&self.0.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEADERS_MAX;

    fn current() -> TraceContext {
        TraceContext::new(|| Headers::from([("traceparent".to_owned(), "current".to_owned())]))
    }

    #[test]
    fn a_message_keeps_its_own_trace_context() {
        let bare = current().add_to(Message::bytes("t", "")).expect("valid");
        assert_eq!(bare.headers["traceparent"], "current");
        let own = Message::bytes("t", "").header("traceparent", "own");
        let own = current().add_to(own).expect("valid");
        assert_eq!(own.headers["traceparent"], "own");
        let none = TraceContext::default().add_to(Message::bytes("t", ""));
        assert!(none.expect("valid").headers.is_empty());
    }

    #[test]
    fn a_message_whose_headers_are_full_is_refused_and_not_sent_without_its_trace() {
        let full = (0..HEADERS_MAX).fold(Message::bytes("t", ""), |message, n| {
            message.header(format!("h{n}"), "")
        });
        full.validate().expect("at the limit");
        current().add_to(full).expect_err("one too many");
    }
}
