//! Rows of the log as they come out of `COPY … TO STDOUT (FORMAT binary)`, and of prepared statements.
//!
//! COPY because it is one round trip without a prepared statement (so it passes through a pooler)
//! and because a row costs one message and no description. Payloads are slices of the buffer they
//! arrived in: nothing is copied but keys and what the header needs. A short page is read by a
//! prepared statement instead, whose plan the server keeps; its rows are brought into the same form.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use outbox_core::{Headers, Pending, Seq, StoreError};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr};
use uuid::Uuid;

use crate::error::{OrStoreError, damaged};
use crate::page_statement::Prepared;

/// Columns of each row, in the order [`LogRow::read`] expects, for the table alias `m`. `{kind}`,
/// `{payload}` and `{headers}` are put in by the statement.
pub(crate) const COLUMNS: &str = "{kind}::int2, m.seq, m.id, m.topic, m.key, {payload}, \
     m.content_type, {headers}, m.created_at, m.deliver_after, m.expires_at";

/// How many columns that is.
const COLUMN_COUNT: i16 = 11;

/// What every binary COPY begins with: signature, flags, length of the header's extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const PREAMBLE_BYTES: usize = SIGNATURE.len() + 8;

/// Seconds from 1970 to 2000, where PostgreSQL's timestamps start.
const EPOCH_2000_SECONDS: i64 = 946_684_800;

/// Most topics and content types remembered to be shared between messages.
const INTERNED_MAX: usize = 4_096;

/// What the statement marks a row as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Facts about the snapshot, as words in the topic's column.
    Header,
    /// A message that was looked up by seq.
    LookedUp,
    /// A message of the stretch.
    Stretch,
}

/// One row.
#[derive(Debug)]
pub(crate) struct LogRow {
    pub(crate) kind: Kind,
    pub(crate) seq: Seq,
    id: Uuid,
    pub(crate) topic: Arc<str>,
    key: Option<Arc<str>>,
    /// `None` when no route of ours covers the topic.
    payload: Option<Bytes>,
    content_type: Arc<str>,
    headers: Option<Arc<Headers>>,
    created_at: DateTime<Utc>,
    deliver_after: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
}

impl LogRow {
    /// Reads one row, or answers `None` at the trailer.
    fn read(reader: &mut Reader, interner: &mut Interner) -> Result<Option<Self>, Broken> {
        match reader.take(2)?.get_i16() {
            -1 => return Ok(None),
            COLUMN_COUNT => {}
            _ => return Err(Broken::Malformed("the number of columns")),
        }
        let kind = match reader.number(2, |mut b| b.get_i16())? {
            Some(0) => Kind::Header,
            Some(1) => Kind::LookedUp,
            Some(2) => Kind::Stretch,
            _ => return Err(Broken::Malformed("kind")),
        };
        let seq = reader.number(8, |mut b| b.get_i64())?.unwrap_or_default();
        let id = reader.field()?.map_or(Ok(Uuid::nil()), Uuid::from_slice);
        let topic = interner.topic(reader.field()?.unwrap_or_default())?;
        let key = reader
            .field()?
            .map(|key| text(key).map(Arc::from))
            .transpose()?;
        let payload = reader.shared_field()?;
        let content_type = interner.content_type(reader.field()?)?;
        let headers = reader.field()?.map(read_headers).transpose()?;
        Ok(Some(Self {
            kind,
            seq,
            id: id.map_err(|_| Broken::Malformed("id"))?,
            topic,
            key,
            payload,
            content_type,
            headers,
            created_at: reader.timestamp()?.unwrap_or_default(),
            deliver_after: reader.timestamp()?,
            expires_at: reader.timestamp()?,
        }))
    }

    /// The message, or `None` when the payload was left out because it is not ours.
    pub(crate) fn into_pending(self, late: bool) -> Option<Pending> {
        Some(Pending {
            seq: self.seq,
            id: self.id,
            topic: self.topic,
            key: self.key,
            payload: self.payload?,
            content_type: self.content_type,
            headers: self.headers,
            created_at: self.created_at,
            deliver_after: self.deliver_after,
            expires_at: self.expires_at,
            late,
            attempts: 0,
            redelivery: 0,
        })
    }
}

/// Why bytes are no row.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    /// The rest has not arrived yet.
    Short,
    Malformed(&'static str),
}

/// Walks through the fields of rows without taking references to the buffer but for payloads.
struct Reader<'a> {
    data: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Broken> {
        let end = self
            .at
            .checked_add(len)
            .ok_or(Broken::Malformed("a length"))?;
        let taken = self.data.get(self.at..end).ok_or(Broken::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<&'a [u8]>, Broken> {
        match usize::try_from(self.take(4)?.get_i32()) {
            Ok(len) => self.take(len).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn shared_field(&mut self) -> Result<Option<Bytes>, Broken> {
        let field = self.field()?;
        Ok(field.map(|field| self.data.slice_ref(field)))
    }

    fn number<T>(&mut self, len: usize, read: fn(&[u8]) -> T) -> Result<Option<T>, Broken> {
        match self.field()? {
            Some(bytes) if bytes.len() == len => Ok(Some(read(bytes))),
            None => Ok(None),
            Some(_) => Err(Broken::Malformed("the width of a number")),
        }
    }

    /// Microseconds since 2000, or the infinities, which become the ends of what can be written.
    fn timestamp(&mut self) -> Result<Option<DateTime<Utc>>, Broken> {
        let micros = self.number(8, |mut b| b.get_i64())?;
        Ok(micros.map(|micros| {
            let since_1970 = micros.checked_add(EPOCH_2000_SECONDS * 1_000_000);
            let far = if micros > 0 {
                DateTime::<Utc>::MAX_UTC
            } else {
                DateTime::<Utc>::MIN_UTC
            };
            since_1970
                .and_then(DateTime::from_timestamp_micros)
                .unwrap_or(far)
        }))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken::Malformed("a text"))
}

/// jsonb's binary form: a version byte, then the text.
fn read_headers(bytes: &[u8]) -> Result<Arc<Headers>, Broken> {
    let json = bytes
        .strip_prefix(&[1])
        .ok_or(Broken::Malformed("headers"))?;
    serde_json::from_slice(json)
        .map(Arc::new)
        .map_err(|_| Broken::Malformed("headers"))
}

/// Shares topics and content types between messages: both repeat all the time.
#[derive(Debug)]
pub(crate) struct Interner {
    json: Arc<str>,
    last: Arc<str>,
    known: HashSet<Arc<str>>,
}

impl Default for Interner {
    fn default() -> Self {
        let (json, last) = (Arc::from("application/json"), Arc::from(""));
        Self {
            json,
            last,
            known: HashSet::new(),
        }
    }
}

impl Interner {
    fn topic(&mut self, bytes: &[u8]) -> Result<Arc<str>, Broken> {
        if self.last.as_bytes() != bytes {
            self.last = self.intern(bytes)?;
        }
        Ok(self.last.clone())
    }

    fn content_type(&mut self, bytes: Option<&[u8]>) -> Result<Arc<str>, Broken> {
        match bytes {
            None => Ok(self.json.clone()),
            Some(bytes) => self.intern(bytes),
        }
    }

    fn intern(&mut self, bytes: &[u8]) -> Result<Arc<str>, Broken> {
        let text = text(bytes)?;
        if let Some(known) = self.known.get(text) {
            return Ok(known.clone());
        }
        if self.known.len() >= INTERNED_MAX {
            self.known.clear();
        }
        let new: Arc<str> = Arc::from(text);
        self.known.insert(new.clone());
        Ok(new)
    }
}

/// Cuts a stream of chunks into rows, wherever the chunks end.
#[derive(Default)]
struct Cutter {
    /// What is left of earlier chunks: part of the preamble or of a row.
    rest: BytesMut,
    begun: bool,
    ended: bool,
}

impl Cutter {
    fn feed(
        &mut self,
        chunk: Bytes,
        interner: &mut Interner,
        mut each: impl FnMut(LogRow),
    ) -> Result<(), Broken> {
        let mut data = if self.rest.is_empty() {
            chunk
        } else {
            self.rest.extend_from_slice(&chunk);
            self.rest.split().freeze()
        };
        if !self.begun {
            if data.len() < PREAMBLE_BYTES {
                self.rest.extend_from_slice(&data);
                return Ok(());
            }
            let preamble = data.split_to(PREAMBLE_BYTES);
            if !preamble.starts_with(SIGNATURE) {
                return Err(Broken::Malformed("the signature"));
            }
            self.begun = true;
        }
        let mut reader = Reader { data: &data, at: 0 };
        while reader.at < data.len() && !self.ended {
            let start = reader.at;
            match LogRow::read(&mut reader, interner) {
                Ok(Some(row)) => each(row),
                Ok(None) => self.ended = true,
                Err(Broken::Short) => {
                    self.rest.extend_from_slice(&data[start..]);
                    return Ok(());
                }
                Err(broken) => return Err(broken),
            }
        }
        Ok(())
    }
}

/// Runs a prepared statement and hands each row to `each`, in the order they come.
pub(crate) async fn prepared_rows(
    connection: &mut PgConnection,
    prepared: Prepared,
    interner: &mut Interner,
    mut each: impl FnMut(LogRow) + Send,
) -> Result<(), StoreError> {
    let doing = "read a page of the log";
    let text = AssertSqlSafe(prepared.text).into_sql_str();
    let mut query = sqlx::query(text).bind(prepared.after).bind(prepared.bound);
    if !prepared.seqs.is_empty() {
        query = query.bind(prepared.seqs);
    }
    let mut stream = query.fetch(connection);
    while let Some(row) = stream.try_next().await.or_store(doing)? {
        let malformed = |broken| damaged(doing, format!("a row is malformed: {broken:?}"));
        let data = as_copied(&row).or_store(doing)?;
        let mut reader = Reader { data: &data, at: 0 };
        let row = LogRow::read(&mut reader, interner).map_err(malformed)?;
        each(row.ok_or_else(|| malformed(Broken::Malformed("the number of columns")))?);
    }
    Ok(())
}

/// A row as COPY would have written it: the same fields, which the driver had taken apart.
fn as_copied(row: &PgRow) -> sqlx::Result<Bytes> {
    let mut data = BytesMut::new();
    data.put_u16(row.len() as u16);
    for column in 0..row.len() {
        match row.try_get_raw(column)?.as_bytes() {
            Ok(field) => {
                data.put_u32(field.len() as u32);
                data.extend_from_slice(field);
            }
            // The only error there is: the value is NULL.
            Err(_) => data.put_i32(-1),
        }
    }
    Ok(data.freeze())
}

/// Runs `copy` and hands each row to `each`, in the order they come.
pub(crate) async fn copy_rows(
    connection: &mut PgConnection,
    copy: &str,
    interner: &mut Interner,
    mut each: impl FnMut(LogRow) + Send,
) -> Result<(), StoreError> {
    let doing = "read a page of the log";
    let mut stream = connection.copy_out_raw(copy).await.or_store(doing)?;
    let mut cutter = Cutter::default();
    while let Some(chunk) = stream.try_next().await.or_store(doing)? {
        if let Err(broken) = cutter.feed(chunk, interner, &mut each) {
            return Err(damaged(
                doing,
                format!("a row of COPY is malformed: {broken:?}"),
            ));
        }
    }
    if !cutter.ended {
        return Err(damaged(doing, "COPY ended without its trailer"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble() -> Vec<u8> {
        [SIGNATURE, &[0; 8]].concat()
    }

    fn row(seq: i64, topic: &str, key: Option<&str>, payload: Option<&[u8]>) -> Vec<u8> {
        let some = |bytes: &[u8]| [&(bytes.len() as i32).to_be_bytes(), bytes].concat();
        let null = (-1i32).to_be_bytes().to_vec();
        [
            COLUMN_COUNT.to_be_bytes().to_vec(),
            some(&2i16.to_be_bytes()),
            some(&seq.to_be_bytes()),
            some(Uuid::nil().as_bytes()),
            some(topic.as_bytes()),
            key.map_or(null.clone(), |k| some(k.as_bytes())),
            payload.map_or(null.clone(), some),
            null.clone(),
            some(b"\x01{\"a\":\"b\"}"),
            some(&1_000_000i64.to_be_bytes()),
            null,
            some(&i64::MAX.to_be_bytes()),
        ]
        .concat()
    }

    fn cut(bytes: &[u8], chunk: usize) -> Result<Vec<LogRow>, Broken> {
        let (mut cutter, mut interner) = (Cutter::default(), Interner::default());
        let mut rows = Vec::new();
        for chunk in bytes.chunks(chunk) {
            cutter.feed(Bytes::copy_from_slice(chunk), &mut interner, |row| {
                rows.push(row)
            })?;
        }
        assert!(cutter.ended, "the trailer was seen");
        Ok(rows)
    }

    #[test]
    fn rows_are_the_same_wherever_the_chunks_end() {
        let bytes = [
            preamble(),
            row(7, "orders.placed", Some("42"), Some(b"body")),
            row(9, "other", None, None),
            (-1i16).to_be_bytes().to_vec(),
        ]
        .concat();
        for chunk in 1..=bytes.len() {
            let mut rows = cut(&bytes, chunk).expect("well-formed").into_iter();
            let first = rows
                .next()
                .and_then(|row| row.into_pending(true))
                .expect("ours");
            assert_eq!(
                (first.seq, &*first.topic, first.key.as_deref()),
                (7, "orders.placed", Some("42"))
            );
            assert_eq!(first.payload, "body");
            assert_eq!(&*first.content_type, "application/json");
            assert_eq!(
                first
                    .headers
                    .as_ref()
                    .and_then(|h| h.get("a"))
                    .map(String::as_str),
                Some("b")
            );
            assert_eq!(first.created_at.timestamp(), EPOCH_2000_SECONDS + 1);
            assert_eq!(first.expires_at, Some(DateTime::<Utc>::MAX_UTC));
            let second = rows.next().expect("a second row");
            assert_eq!(second.seq, 9);
            assert!(second.into_pending(false).is_none(), "no payload: not ours");
        }
    }

    #[test]
    fn a_malformed_row_is_an_error_and_not_a_panic() {
        let good = [preamble(), row(7, "t", Some("k"), Some(b"p"))].concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let (mut cutter, mut interner) = (Cutter::default(), Interner::default());
            let _ = cutter.feed(Bytes::from(bad), &mut interner, |_| {});
        }
        assert_eq!(
            cut(b"not a copy at all, but long enough", 64).unwrap_err(),
            Broken::Malformed("the signature")
        );
    }
}
