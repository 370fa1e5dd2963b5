//! When a record expires: its producer says so in a header.

use chrono::DateTime;

use crate::batch::RecordView;

/// The header that says when a record expires, RFC 3339: the name of CloudEvents' extension in
/// Kafka's binding.
pub const EXPIRY_HEADER: &str = "ce_expirytime";

/// When the record expires, in ms of wall time. A header that is no time is none.
pub(crate) fn expires_ms(record: &RecordView<'_>) -> Option<i64> {
    let mut headers = record.headers.clone();
    let header = headers.find(|h| h.name == EXPIRY_HEADER.as_bytes())?;
    let text = std::str::from_utf8(header.value?).ok()?;
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp_millis())
}
