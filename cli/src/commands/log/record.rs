//! A record of the log, for a person and for `--json`.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat};
use outbox_log_broker::batch::RecordView;
use serde::Serialize;

/// Bytes of a key or a value that are printed for a person.
const SHOWN_BYTES: usize = 200;

/// A record, copied out of the log.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, RFC 3339.
    pub timestamp: String,
    #[serde(skip)]
    pub timestamp_ms: i64,
    /// Its key; `null` when it has none.
    pub key: Option<Text>,
    /// Its value; `null` is a tombstone.
    pub value: Option<Text>,
    /// Its headers in order; names may repeat.
    pub headers: Vec<(String, Option<Text>)>,
}

/// Bytes: as text when they are, and in hexadecimal when not.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Text {
    /// Text.
    Utf8(String),
    /// Anything else.
    Bytes {
        /// In hexadecimal.
        hex: String,
    },
}

impl Record {
    /// A copy of `record`.
    pub fn of(topic: &str, partition: u32, record: &RecordView<'_>) -> Self {
        let time = DateTime::from_timestamp_millis(record.timestamp);
        let headers = record.headers.clone();
        Self {
            topic: topic.to_owned(),
            partition,
            offset: record.offset,
            timestamp: time.map_or_else(
                || record.timestamp.to_string(),
                |t| t.to_rfc3339_opts(SecondsFormat::Millis, true),
            ),
            timestamp_ms: record.timestamp,
            key: record.key.map(Text::of),
            value: record.value.map(Text::of),
            headers: headers
                .map(|h| {
                    let name = String::from_utf8_lossy(h.name).into_owned();
                    (name, h.value.map(Text::of))
                })
                .collect(),
        }
    }

    /// A few lines for a person.
    pub fn lines(&self) -> String {
        let mut lines = format!(
            "{}-{} offset {} at {}\n",
            self.topic, self.partition, self.offset, self.timestamp
        );
        let mut line = |name: &str, value: &Option<Text>| {
            let value = value.as_ref().map_or("null".to_owned(), Text::short);
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "  {name}: {value}");
        };
        line("key", &self.key);
        for (name, value) in &self.headers {
            line(name, value);
        }
        line("value", &self.value);
        lines
    }
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Bytes {
                hex: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            },
        }
    }

    /// At most [`SHOWN_BYTES`] of it, on one line.
    fn short(&self) -> String {
        let text = match self {
            Self::Utf8(text) => text.escape_debug().to_string(),
            Self::Bytes { hex } => format!("0x{hex}"),
        };
        match text.char_indices().nth(SHOWN_BYTES) {
            Some((at, _)) => format!("{}… ({} bytes)", &text[..at], self.bytes()),
            None => text,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Utf8(text) => text.len(),
            Self::Bytes { hex } => hex.len() / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_in_hexadecimal_and_what_is_long_is_cut() {
        let json = |bytes: &[u8]| serde_json::to_string(&Text::of(bytes)).expect("JSON");
        assert_eq!(json("ü".as_bytes()), r#""ü""#);
        assert_eq!(json(&[0xff, 0x0a]), r#"{"hex":"ff0a"}"#);
        let long = Text::of("ü".repeat(300).as_bytes()).short();
        assert!(long.ends_with("ü… (600 bytes)"), "{long}");
        assert_eq!(Text::of(b"a\nb").short(), "a\\nb");
    }
}
