//! Produce, versions 0 to 9. The records are slices of the request; nothing is reserved in
//! proportion to a count that the client sent.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use outbox_log_broker::Publication;

use super::publication::{
    PUBLICATION, PUBLICATION_FROM, Published, read_publication, write_published,
};
use super::read::Fields;
use super::{CodecError, StrBytes};
use crate::limits::PRODUCE_PARTITIONS_MAX;

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 9;

/// A request to store records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProduceRequest {
    pub transactional_id: Option<StrBytes>,
    pub acks: i16,
    /// In the order of the request.
    pub partitions: Vec<PartitionRecords>,
    /// For duplicate-proof publish.
    pub publication: Option<Publication>,
}

/// What is to be stored in one partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PartitionRecords {
    /// The same `Arc` for partitions that stand under the same topic.
    pub topic: Arc<str>,
    pub partition: i32,
    /// Record batches.
    pub records: Bytes,
}

impl ProduceRequest {
    /// Reads the body of a request.
    pub fn decode(body: Bytes, version: i16) -> Result<Self, CodecError> {
        let mut fields = Fields {
            rest: body,
            flexible: version >= FLEXIBLE,
        };
        let transactional_id = match version >= 3 {
            true => fields.text("transactional id")?,
            false => None,
        };
        let acks = fields.i16("acks")?;
        fields.i32("timeout")?;
        let mut partitions = Vec::new();
        for _ in 0..fields.count(3, "topics")? {
            let topic = fields.text("topic")?;
            let topic: Arc<str> = topic.as_deref().unwrap_or_default().into();
            for _ in 0..fields.count(5, "partitions")? {
                if partitions.len() == PRODUCE_PARTITIONS_MAX {
                    let (field, value) = ("number of partitions", partitions.len() as i64 + 1);
                    return Err(CodecError::Field { field, value });
                }
                partitions.push(PartitionRecords {
                    topic: topic.clone(),
                    partition: fields.i32("partition")?,
                    records: fields.bytes("records")?.unwrap_or_default(),
                });
                fields.tags()?;
            }
            fields.tags()?;
        }
        let publication = fields.tag(PUBLICATION)?.map(read_publication);
        Ok(Self {
            transactional_id,
            acks,
            partitions,
            publication: publication.transpose()?,
        })
    }
}

/// What became of one partition's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionOutcome {
    pub topic: Arc<str>,
    pub partition: i32,
    /// 0 when they are stored.
    pub error_code: i16,
    /// Of the first record; -1 when nothing is stored.
    pub base_offset: i64,
    /// When the log gave the records their time; -1 when the client did.
    pub log_append_time: i64,
    pub log_start_offset: i64,
    /// What is wrong, for people.
    pub error_message: Option<String>,
    /// The records of the batch that are to blame, counted from 0; empty when it is none of them, or
    /// not known.
    pub blamed: Vec<i32>,
}

/// The answer to a [`ProduceRequest`].
#[derive(Debug)]
pub(crate) struct ProduceAnswer<'a> {
    pub correlation_id: i32,
    pub version: i16,
    /// In the order of the request.
    pub partitions: &'a [PartitionOutcome],
    /// What became of the publication, if the request had one.
    pub published: Option<&'a Published>,
}

impl ProduceAnswer<'_> {
    /// Appends the whole frame.
    pub fn write(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_i32(0);
        out.put_i32(self.correlation_id);
        self.tags(out);
        let same_topic = |a: &PartitionOutcome, b: &PartitionOutcome| a.topic == b.topic;
        let topics = self.partitions.chunk_by(same_topic);
        self.count(out, topics.clone().count());
        for partitions in topics {
            self.text(out, partitions.first().map_or("", |p| &p.topic));
            self.count(out, partitions.len());
            partitions.iter().for_each(|p| self.partition(out, p));
            self.tags(out);
        }
        if self.version >= 1 {
            // Nobody is throttled.
            out.put_i32(0);
        }
        match self.published {
            Some(published) if self.version >= PUBLICATION_FROM => {
                let field = write_published(published);
                out.put_u8(1);
                unsigned_varint(out, PUBLICATION as u32);
                unsigned_varint(out, field.len() as u32);
                out.put_slice(&field);
            }
            _ => self.tags(out),
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn partition(&self, out: &mut BytesMut, outcome: &PartitionOutcome) {
        out.put_i32(outcome.partition);
        out.put_i16(outcome.error_code);
        out.put_i64(outcome.base_offset);
        if self.version >= 2 {
            out.put_i64(outcome.log_append_time);
        }
        if self.version >= 5 {
            out.put_i64(outcome.log_start_offset);
        }
        if self.version >= 8 {
            self.count(out, outcome.blamed.len());
            for &index in &outcome.blamed {
                out.put_i32(index);
                // The partition's message says it.
                self.optional_text(out, None);
                self.tags(out);
            }
            self.optional_text(out, outcome.error_message.as_deref());
        }
        self.tags(out);
    }

    fn optional_text(&self, out: &mut BytesMut, text: Option<&str>) {
        match text {
            Some(text) => self.text(out, text),
            None if self.version >= FLEXIBLE => out.put_u8(0),
            None => out.put_i16(-1),
        }
    }

    fn count(&self, out: &mut BytesMut, count: usize) {
        match self.version >= FLEXIBLE {
            true => unsigned_varint(out, count as u32 + 1),
            false => out.put_i32(count as i32),
        }
    }

    fn text(&self, out: &mut BytesMut, text: &str) {
        // Kafka's limit of a text.
        let text = &text[..text.floor_char_boundary(i16::MAX as usize)];
        match self.version >= FLEXIBLE {
            true => unsigned_varint(out, text.len() as u32 + 1),
            false => out.put_i16(text.len() as i16),
        }
        out.put_slice(text.as_bytes());
    }

    fn tags(&self, out: &mut BytesMut) {
        if self.version >= FLEXIBLE {
            out.put_u8(0);
        }
    }
}

pub(super) fn unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
