//! From record batches to records of an outbox: the same whether the log is in this process or not.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use outbox_core::{Headers, Record, SourceError, TopicPartition};
use outbox_log_broker::batch::{BatchHeader, RecordView, Records};
use uuid::Uuid;

use super::headers::{CONTENT_TYPE, ID, SOURCE, SOURCE_DEFAULT, SPEC_VERSION, TIME, TYPE};
/// Offset behind the last record of `batches`; 0 when there is none.
pub(super) fn next_offset(batches: &[u8]) -> i64 {
    let (mut rest, mut next) = (batches, 0);
    while let Ok(header) = BatchHeader::parse(rest) {
        next = header.next_offset();
        rest = rest.get(header.bytes..).unwrap_or_default();
    }
    next
}

/// The records of `batches` from `offset` on, until `max_bytes` of keys and payloads: without those
/// of aborted transactions, of which (producer id, first offset) are given.
pub(super) fn decode(
    from: &TopicPartition,
    offset: i64,
    max_bytes: usize,
    batches: Bytes,
    aborted: &[(i64, i64)],
) -> Result<Vec<Record>, SourceError> {
    let mut decoded = Vec::new();
    let mut aborted = Aborted::new(aborted);
    let (mut rest, mut bytes) = (&batches[..], 0);
    while !rest.is_empty() {
        let records = Records::new(rest).map_err(|e| SourceError::Permanent(e.to_string()))?;
        let header: BatchHeader = *records.header();
        rest = &rest[header.bytes..];
        if aborted.hides(&header) {
            continue;
        }
        for record in records {
            let record = record.map_err(|e| SourceError::Permanent(e.to_string()))?;
            if record.offset < offset {
                continue;
            }
            let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if !decoded.is_empty() && bytes + size > max_bytes {
                return Ok(decoded);
            }
            bytes += size;
            decoded.push(to_record(from, &record, &batches));
        }
    }
    Ok(decoded)
}

/// Which producers' batches are to be left out, at the batch that is being looked at: from the first
/// offset of an aborted transaction to the marker that ends it.
struct Aborted {
    /// To come, sorted by offset from last to first.
    later: Vec<(i64, i64)>,
    open: BTreeSet<i64>,
}

impl Aborted {
    fn new(aborted: &[(i64, i64)]) -> Self {
        let mut later = aborted.to_vec();
        later.sort_by_key(|&(_, first)| std::cmp::Reverse(first));
        Self {
            later,
            open: BTreeSet::new(),
        }
    }

    /// Whether a consumer is not shown this batch: a marker, or one of an aborted transaction.
    fn hides(&mut self, header: &BatchHeader) -> bool {
        while let Some(&(producer, first)) = self.later.last()
            && first <= header.base_offset
        {
            self.open.insert(producer);
            self.later.pop();
        }
        if header.is_control() {
            self.open.remove(&header.producer_id);
            return true;
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }
}

fn to_record(from: &TopicPartition, view: &RecordView<'_>, batches: &Bytes) -> Record {
    let mut record = Record {
        partition: from.clone(),
        offset: view.offset,
        id: None,
        key: view.key.map(|k| batches.slice_ref(k)),
        payload: view.value.map(|v| batches.slice_ref(v)).unwrap_or_default(),
        content_type: None,
        headers: Headers::new(),
        timestamp: DateTime::from_timestamp_millis(view.timestamp).unwrap_or_default(),
    };
    for header in view.headers.clone() {
        let name = String::from_utf8_lossy(header.name);
        let value = String::from_utf8_lossy(header.value.unwrap_or_default());
        take_header(&mut record, &name, &value);
    }
    record
}

/// Puts a header where it belongs. The attributes that a message does not have as headers are left
/// out, so that its headers come out as they went in.
fn take_header(record: &mut Record, name: &str, value: &str) {
    match name {
        ID if record.id.is_none() => {
            record.id = Uuid::parse_str(value).ok();
            if record.id.is_none() {
                record.headers.insert(name.to_owned(), value.to_owned());
            }
        }
        TIME => match value.parse::<DateTime<Utc>>() {
            Ok(time) => record.timestamp = time,
            Err(_) => {
                record.headers.insert(name.to_owned(), value.to_owned());
            }
        },
        CONTENT_TYPE if record.content_type.is_none() => {
            record.content_type = Some(value.to_owned());
        }
        SPEC_VERSION => {}
        TYPE if *value == *record.partition.topic => {}
        SOURCE if value == SOURCE_DEFAULT => {}
        _ => {
            record.headers.insert(name.to_owned(), value.to_owned());
        }
    }
}
