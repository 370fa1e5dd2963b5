//! CloudEvents attributes and headers of a message, as record headers.
//!
//! | header | value |
//! |---|---|
//! | `ce_specversion` | `1.0` |
//! | `ce_type` | the topic, unless the message has a header `ce_type` |
//! | `ce_source` | `outbox`, unless the message has a header `ce_source` |
//! | `content-type` | the content type |
//! | `ce_id` | the message's id |
//! | `ce_time` | when it was enqueued, RFC 3339 in UTC with microseconds |
//! | `ce_expirytime` | when it expires, RFC 3339, if it does: the log may remove it then |
//! | others | the message's own, `traceparent` and `tracestate` among them |

use std::sync::Arc;

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use outbox_core::{Headers, Pending};
use outbox_log_broker::EXPIRY_HEADER;
use outbox_log_broker::batch::HeaderBlock;

pub(super) const ID: &str = "ce_id";
pub(super) const TYPE: &str = "ce_type";
pub(super) const SOURCE: &str = "ce_source";
pub(super) const TIME: &str = "ce_time";
pub(super) const SPEC_VERSION: &str = "ce_specversion";
pub(super) const CONTENT_TYPE: &str = "content-type";
pub(super) const SPEC_VERSION_1: &str = "1.0";
/// Value of `ce_source` unless a message brings its own.
pub(super) const SOURCE_DEFAULT: &str = "outbox";

/// Headers of this name are ours alone: a message's own of that name are left out.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        ID | TIME | SPEC_VERSION | CONTENT_TYPE | EXPIRY_HEADER
    )
}

/// Writes the headers of one message after another, with as little work for each as possible.
#[derive(Debug, Default)]
pub(super) struct HeaderWriter {
    /// What messages of one topic and content type share.
    shared: HeaderBlock,
    shared_for: Option<(Arc<str>, Arc<str>)>,
    own: HeaderBlock,
    time: TimeText,
}

impl HeaderWriter {
    /// The shared and the own headers of `message`.
    pub fn write(&mut self, message: &Pending) -> (&HeaderBlock, &HeaderBlock) {
        let own_headers = message.headers.as_deref().filter(|h| !h.is_empty());
        match own_headers {
            None => self.share(&message.topic, &message.content_type),
            Some(headers) => self.unshared(message, headers),
        }
        self.own.clear();
        let mut id = uuid::Uuid::encode_buffer();
        let id = message.id.hyphenated().encode_lower(&mut id);
        self.own.push(ID, id.as_bytes());
        self.own.push(TIME, self.time.of(message.created_at));
        if let Some(at) = message.expires_at {
            let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
            self.own.push(EXPIRY_HEADER, at.as_bytes());
        }
        for (name, value) in own_headers.into_iter().flatten() {
            if !is_ours(name) && name != TYPE && name != SOURCE {
                self.own.push(name, value.as_bytes());
            }
        }
        (&self.shared, &self.own)
    }

    fn share(&mut self, topic: &Arc<str>, content_type: &Arc<str>) {
        if let Some((t, c)) = &self.shared_for
            && (Arc::ptr_eq(t, topic) || t == topic)
            && (Arc::ptr_eq(c, content_type) || c == content_type)
        {
            return;
        }
        self.fill(topic, SOURCE_DEFAULT, content_type);
        self.shared_for = Some((topic.clone(), content_type.clone()));
    }

    fn unshared(&mut self, message: &Pending, headers: &Headers) {
        let event_type = headers.get(TYPE).map_or(&*message.topic, String::as_str);
        let source = headers.get(SOURCE).map_or(SOURCE_DEFAULT, String::as_str);
        self.fill(event_type, source, &message.content_type);
        self.shared_for = None;
    }

    fn fill(&mut self, event_type: &str, source: &str, content_type: &str) {
        self.shared.clear();
        self.shared.push(SPEC_VERSION, SPEC_VERSION_1.as_bytes());
        self.shared.push(TYPE, event_type.as_bytes());
        self.shared.push(SOURCE, source.as_bytes());
        self.shared.push(CONTENT_TYPE, content_type.as_bytes());
    }
}

/// Timestamps as text. Messages of one batch mostly fall into the same second, whose text is kept.
#[derive(Debug)]
struct TimeText {
    second: i64,
    text: [u8; 27],
}

impl Default for TimeText {
    fn default() -> Self {
        let mut time = Self {
            second: i64::MIN,
            text: *b"0000-00-00T00:00:00.000000Z",
        };
        time.of(DateTime::UNIX_EPOCH);
        time
    }
}

impl TimeText {
    fn of(&mut self, at: DateTime<Utc>) -> &[u8] {
        if at.timestamp() != self.second {
            self.second = at.timestamp();
            digits(&mut self.text[0..4], at.year().clamp(0, 9999) as u32);
            digits(&mut self.text[5..7], at.month());
            digits(&mut self.text[8..10], at.day());
            digits(&mut self.text[11..13], at.hour());
            digits(&mut self.text[14..16], at.minute());
            digits(&mut self.text[17..19], at.second());
        }
        // A leap second counts on beyond 999,999.
        digits(
            &mut self.text[20..26],
            at.timestamp_subsec_micros().min(999_999),
        );
        &self.text
    }
}

fn digits(text: &mut [u8], mut number: u32) {
    for place in text.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_to_the_microsecond() {
        let mut text = TimeText::default();
        for micros in [0, 1, 999_999, 1_700_000_000_123_456, 1_700_000_000_123_457] {
            let at = DateTime::from_timestamp_micros(micros).expect("in range");
            let text = std::str::from_utf8(text.of(at)).expect("ASCII");
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
    }
}
