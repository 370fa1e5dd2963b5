//! The answer to Fetch, versions 4 to 12: the records are pieces of the reply, not copied into it.

use bytes::{BufMut, Bytes, BytesMut};
use outbox_log_broker::Batches;
use tokio::sync::OwnedSemaphorePermit;

use super::produce::unsigned_varint;
use super::{Answer, CodecError, NO_ERROR, Reply, StrBytes};

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;

/// An answer to Fetch.
#[derive(Debug, Default)]
pub(crate) struct FetchAnswer {
    pub topics: Vec<FetchedTopic>,
    /// Room for its records, and its files.
    pub permits: Vec<OwnedSemaphorePermit>,
}

/// One topic of it.
#[derive(Debug)]
pub(crate) struct FetchedTopic {
    pub topic: StrBytes,
    pub partitions: Vec<FetchedPartition>,
}

/// One partition of it.
#[derive(Debug, Default)]
pub(crate) struct FetchedPartition {
    pub partition: i32,
    pub error_code: i16,
    /// Offset behind the last durable record.
    pub high_watermark: i64,
    /// Offset of the first record of an open transaction, or the high watermark.
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// (producer id, first offset) of the transactions whose records are to be left out. `None`
    /// for a reader that wants uncommitted records too.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole record batches.
    pub records: Batches,
}

impl Answer for FetchAnswer {
    fn reply(self, correlation_id: i32, version: i16) -> Result<Reply, CodecError> {
        let mut writer = Writer {
            version,
            inline: BytesMut::with_capacity(256),
            reply: Reply::default(),
            bytes: 0,
        };
        writer.inline.put_i32(correlation_id);
        writer.tags();
        writer.inline.put_i32(0);
        if version >= 7 {
            writer.inline.put_i16(NO_ERROR);
            // No session: every request names all partitions.
            writer.inline.put_i32(0);
        }
        writer.count(self.topics.len());
        for topic in self.topics {
            writer.topic(topic);
        }
        writer.tags();
        let mut reply = writer.finish();
        reply.permits = self.permits;
        Ok(reply)
    }
}

struct Writer {
    version: i16,
    /// What was written behind the last piece.
    inline: BytesMut,
    reply: Reply,
    bytes: usize,
}

impl Writer {
    fn topic(&mut self, topic: FetchedTopic) {
        self.text(&topic.topic);
        self.count(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition);
        }
        self.tags();
    }

    fn partition(&mut self, partition: FetchedPartition) {
        let out = &mut self.inline;
        out.put_i32(partition.partition);
        out.put_i16(partition.error_code);
        out.put_i64(partition.high_watermark);
        out.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            out.put_i64(partition.log_start_offset);
        }
        self.aborted(partition.aborted.as_deref());
        if self.version >= 11 {
            // No other replica to be preferred.
            self.inline.put_i32(-1);
        }
        self.records(partition.records);
        self.tags();
    }

    fn aborted(&mut self, aborted: Option<&[(i64, i64)]>) {
        let Some(aborted) = aborted else {
            match self.version >= FLEXIBLE {
                true => self.inline.put_u8(0),
                false => self.inline.put_i32(-1),
            }
            return;
        };
        self.count(aborted.len());
        for &(producer_id, first_offset) in aborted {
            self.inline.put_i64(producer_id);
            self.inline.put_i64(first_offset);
            self.tags();
        }
    }

    fn records(&mut self, records: Batches) {
        self.count(records.len());
        if records.is_empty() {
            return;
        }
        let inline = self.inline.split().freeze();
        self.bytes += inline.len() + records.len();
        self.reply.push(inline);
        match records {
            Batches::Read(bytes) => self.reply.push(bytes),
            Batches::InFile(range) => self.reply.push_file(range),
        }
    }

    /// Puts the frame's length in front of everything.
    fn finish(mut self) -> Reply {
        let inline = self.inline.split().freeze();
        self.bytes += inline.len();
        self.reply.push(inline);
        let length = (self.bytes as i32).to_be_bytes();
        self.reply.push_front(Bytes::copy_from_slice(&length));
        self.reply
    }

    fn count(&mut self, count: usize) {
        match self.version >= FLEXIBLE {
            true => unsigned_varint(&mut self.inline, count as u32 + 1),
            false => self.inline.put_i32(count as i32),
        }
    }

    fn text(&mut self, text: &str) {
        match self.version >= FLEXIBLE {
            true => unsigned_varint(&mut self.inline, text.len() as u32 + 1),
            false => self.inline.put_i16(text.len() as i16),
        }
        self.inline.put_slice(text.as_bytes());
    }

    fn tags(&mut self) {
        if self.version >= FLEXIBLE {
            self.inline.put_u8(0);
        }
    }
}
