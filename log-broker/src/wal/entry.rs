//! The entries of a frame: what it changes, besides the record batches themselves.
//!
//! ```text
//! 1 append     topic str, partition u32, first_offset i64, data_len u32
//! 2 topic      name str, id 16 bytes, options str: JSON, as in a checkpoint
//! 3 commit     group str, topic str, partition u32, next_offset i64, leader_epoch i32,
//!              metadata str
//! 4 publisher  id str, epoch i64, low_water i64, n u32, n × (lo i64, hi i64),
//!              m u32, m × (redelivery u32, lo i64, hi i64)
//! 5 trim       topic str, partition u32, start_offset i64
//! 6 topic gone name str, id 16 bytes
//! 7 group gone group str, topic str (empty: all of the group), partition u32
//! 8 compacted  topic str, id 16 bytes, partition u32, segment str: JSON, as in a checkpoint
//! 16 producer id            id i64
//! 17 transaction init       id str, producer (i64, i16), previous (i64, i16; -1: none), timeout_ms u32
//! 18 transaction add        id str, n u32, n × (topic str, partition u32), m u32, m × group str
//! 19 transaction offset     id str, group str, then as a commit
//! 20 transaction end        id str, epoch i16, commits u8
//! ```
//! One byte of kind, then the fields; `str` is a u16 length and UTF-8. A leader epoch of -1 is none.

use std::sync::Arc;

use uuid::Uuid;

use super::field::{
    NO_PRODUCER, put_added, put_commit, put_producer, put_str, put_update, take, take_added,
    take_commit, take_i64, take_producer, take_str, take_u32, take_update,
};
use crate::groups::OffsetCommit;
use crate::partition::SegmentState;
use crate::producer::Producer;
use crate::publisher::PublisherUpdate;
use crate::topic::TopicOptions;

/// One entry, as read from a frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Append {
        topic: Arc<str>,
        partition: u32,
        first_offset: i64,
        data_len: u32,
    },
    /// A new topic, or new options of the one with this id.
    Topic {
        name: Arc<str>,
        id: Uuid,
        options: TopicOptions,
    },
    Commit {
        group: Arc<str>,
        commit: OffsetCommit,
    },
    Publisher {
        id: Arc<str>,
        update: PublisherUpdate,
    },
    Trim {
        topic: Arc<str>,
        partition: u32,
        start_offset: i64,
    },
    TopicDeleted {
        name: Arc<str>,
        id: Uuid,
    },
    /// What a group committed for a partition is forgotten, or all of it.
    GroupForgotten {
        group: Arc<str>,
        of: Option<(Arc<str>, u32)>,
    },
    /// A segment takes the place of all those between its ends.
    Compacted {
        topic: Arc<str>,
        id: Uuid,
        partition: u32,
        segment: SegmentState,
    },
    /// A producer id that is given out.
    ProducerId {
        id: i64,
    },
    /// A producer takes a transactional id.
    TransactionInit {
        id: Arc<str>,
        producer: Producer,
        previous: Option<Producer>,
        timeout_ms: u32,
    },
    /// What the open transaction spans; it begins with the first of these.
    TransactionAdd {
        id: Arc<str>,
        partitions: Vec<(Arc<str>, u32)>,
        groups: Vec<Arc<str>>,
    },
    /// A commit that counts from the transaction's end on.
    TransactionOffset {
        id: Arc<str>,
        group: Arc<str>,
        commit: OffsetCommit,
    },
    /// The end. Its markers are appends of the same frame.
    TransactionEnd {
        id: Arc<str>,
        epoch: i16,
        commits: bool,
    },
}

const APPEND: u8 = 1;
const TOPIC: u8 = 2;
const COMMIT: u8 = 3;
const PUBLISHER: u8 = 4;
const TRIM: u8 = 5;
const TOPIC_DELETED: u8 = 6;
const GROUP_FORGOTTEN: u8 = 7;
const COMPACTED: u8 = 8;
const PRODUCER_ID: u8 = 16;
const TRANSACTION_INIT: u8 = 17;
const TRANSACTION_ADD: u8 = 18;
const TRANSACTION_OFFSET: u8 = 19;
const TRANSACTION_END: u8 = 20;

impl Entry {
    /// Appends the entry to `buf`.
    pub fn write(&self, buf: &mut Vec<u8>) {
        match self {
            Self::Append {
                topic,
                partition,
                first_offset,
                data_len,
            } => {
                buf.push(APPEND);
                put_str(buf, topic);
                buf.extend_from_slice(&partition.to_le_bytes());
                buf.extend_from_slice(&first_offset.to_le_bytes());
                buf.extend_from_slice(&data_len.to_le_bytes());
            }
            Self::Topic { name, id, options } => {
                buf.push(TOPIC);
                put_str(buf, name);
                buf.extend_from_slice(id.as_bytes());
                // Of plain numbers and names: it cannot fail.
                put_str(buf, &serde_json::to_string(options).unwrap_or_default());
            }
            Self::Commit { group, commit } => {
                buf.push(COMMIT);
                put_str(buf, group);
                put_commit(buf, commit);
            }
            Self::Publisher { id, update } => {
                buf.push(PUBLISHER);
                put_str(buf, id);
                put_update(buf, update);
            }
            Self::Trim {
                topic,
                partition,
                start_offset,
            } => {
                buf.push(TRIM);
                put_str(buf, topic);
                buf.extend_from_slice(&partition.to_le_bytes());
                buf.extend_from_slice(&start_offset.to_le_bytes());
            }
            Self::TopicDeleted { name, id } => {
                buf.push(TOPIC_DELETED);
                put_str(buf, name);
                buf.extend_from_slice(id.as_bytes());
            }
            Self::GroupForgotten { group, of } => {
                buf.push(GROUP_FORGOTTEN);
                put_str(buf, group);
                let (topic, partition) = of.as_ref().map_or(("", 0), |(t, n)| (t, *n));
                put_str(buf, topic);
                buf.extend_from_slice(&partition.to_le_bytes());
            }
            Self::Compacted {
                topic,
                id,
                partition,
                segment,
            } => {
                buf.push(COMPACTED);
                put_str(buf, topic);
                buf.extend_from_slice(id.as_bytes());
                buf.extend_from_slice(&partition.to_le_bytes());
                put_str(buf, &serde_json::to_string(segment).unwrap_or_default());
            }
            Self::ProducerId { id } => {
                buf.push(PRODUCER_ID);
                buf.extend_from_slice(&id.to_le_bytes());
            }
            Self::TransactionInit {
                id,
                producer,
                previous,
                timeout_ms,
            } => {
                buf.push(TRANSACTION_INIT);
                put_str(buf, id);
                put_producer(buf, *producer);
                put_producer(buf, previous.unwrap_or(NO_PRODUCER));
                buf.extend_from_slice(&timeout_ms.to_le_bytes());
            }
            Self::TransactionAdd {
                id,
                partitions,
                groups,
            } => {
                buf.push(TRANSACTION_ADD);
                put_str(buf, id);
                put_added(buf, partitions, groups);
            }
            Self::TransactionOffset { id, group, commit } => {
                buf.push(TRANSACTION_OFFSET);
                put_str(buf, id);
                put_str(buf, group);
                put_commit(buf, commit);
            }
            Self::TransactionEnd { id, epoch, commits } => {
                buf.push(TRANSACTION_END);
                put_str(buf, id);
                buf.extend_from_slice(&epoch.to_le_bytes());
                buf.push(u8::from(*commits));
            }
        }
    }

    /// Bytes of these entries in a frame.
    pub fn bytes(entries: &[Self]) -> usize {
        let mut buf = Vec::new();
        entries.iter().for_each(|e| e.write(&mut buf));
        buf.len()
    }

    /// Reads the entries of a frame; `None` when they are not entries.
    pub fn read_all(meta: &[u8]) -> Option<Vec<Self>> {
        let mut rest = meta;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            entries.push(Self::read(&mut rest)?);
        }
        Some(entries)
    }

    fn read(rest: &mut &[u8]) -> Option<Self> {
        let [kind] = take(rest)?;
        Some(match kind {
            APPEND => Self::Append {
                topic: take_str(rest)?,
                partition: take_u32(rest)?,
                first_offset: take_i64(rest)?,
                data_len: take_u32(rest)?,
            },
            TOPIC => Self::Topic {
                name: take_str(rest)?,
                id: take(rest).map(Uuid::from_bytes)?,
                options: serde_json::from_str(&take_str(rest)?).ok()?,
            },
            COMMIT => Self::Commit {
                group: take_str(rest)?,
                commit: take_commit(rest)?,
            },
            PUBLISHER => Self::Publisher {
                id: take_str(rest)?,
                update: take_update(rest)?,
            },
            TRIM => Self::Trim {
                topic: take_str(rest)?,
                partition: take_u32(rest)?,
                start_offset: take_i64(rest)?,
            },
            TOPIC_DELETED => Self::TopicDeleted {
                name: take_str(rest)?,
                id: take(rest).map(Uuid::from_bytes)?,
            },
            GROUP_FORGOTTEN => {
                let (group, topic) = (take_str(rest)?, take_str(rest)?);
                let of = Some((topic, take_u32(rest)?)).filter(|(topic, _)| !topic.is_empty());
                Self::GroupForgotten { group, of }
            }
            COMPACTED => Self::Compacted {
                topic: take_str(rest)?,
                id: take(rest).map(Uuid::from_bytes)?,
                partition: take_u32(rest)?,
                segment: serde_json::from_str(&take_str(rest)?).ok()?,
            },
            PRODUCER_ID => Self::ProducerId {
                id: take_i64(rest)?,
            },
            TRANSACTION_INIT => Self::TransactionInit {
                id: take_str(rest)?,
                producer: take_producer(rest)?,
                previous: Some(take_producer(rest)?).filter(|p| *p != NO_PRODUCER),
                timeout_ms: take_u32(rest)?,
            },
            TRANSACTION_ADD => {
                let id = take_str(rest)?;
                let (partitions, groups) = take_added(rest)?;
                Self::TransactionAdd {
                    id,
                    partitions,
                    groups,
                }
            }
            TRANSACTION_OFFSET => Self::TransactionOffset {
                id: take_str(rest)?,
                group: take_str(rest)?,
                commit: take_commit(rest)?,
            },
            TRANSACTION_END => Self::TransactionEnd {
                id: take_str(rest)?,
                epoch: i16::from_le_bytes(take(rest)?),
                commits: take(rest)? != [0],
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_as_written_and_no_prefix_is_taken_for_whole() {
        let update = PublisherUpdate {
            epoch: 4,
            low_water: 17,
            done: vec![(17, 30), (40, 41)],
            redelivered: vec![(2, 5, 5)],
        };
        let entries = [
            Entry::Append {
                topic: "orders".into(),
                partition: 3,
                first_offset: 9,
                data_len: 77,
            },
            Entry::Topic {
                name: "orders".into(),
                id: Uuid::from_u128(17),
                options: TopicOptions {
                    retention_ms: Some(5),
                    retention_bytes: None,
                    ..TopicOptions::default()
                },
            },
            Entry::Commit {
                group: "g".into(),
                commit: OffsetCommit {
                    leader_epoch: Some(3),
                    metadata: "mine".into(),
                    ..OffsetCommit::new("orders".into(), 0, 12)
                },
            },
            Entry::Publisher {
                id: "p".into(),
                update,
            },
            Entry::Trim {
                topic: "orders".into(),
                partition: 1,
                start_offset: 5,
            },
            Entry::TopicDeleted {
                name: "orders".into(),
                id: Uuid::from_u128(17),
            },
            Entry::GroupForgotten {
                group: "g".into(),
                of: Some(("orders".into(), 2)),
            },
            Entry::GroupForgotten {
                group: "g".into(),
                of: None,
            },
            Entry::Compacted {
                topic: "orders".into(),
                id: Uuid::from_u128(17),
                partition: 1,
                segment: SegmentState {
                    base: 7,
                    end: 99,
                    bytes: 1234,
                    max_timestamp: 5,
                    appended_ms: 6,
                    rewrites: 2,
                    cleaned_to: 99,
                    cleaned_ms: Some(8),
                    tombstones: true,
                    expires_ms: None,
                },
            },
            Entry::ProducerId { id: 77 },
            Entry::TransactionInit {
                id: "t".into(),
                producer: Producer { id: 78, epoch: 5 },
                previous: Some(Producer { id: 78, epoch: 4 }),
                timeout_ms: 60_000,
            },
            Entry::TransactionInit {
                id: "t".into(),
                producer: Producer { id: 78, epoch: 0 },
                previous: None,
                timeout_ms: 1,
            },
            Entry::TransactionAdd {
                id: "t".into(),
                partitions: vec![("orders".into(), 1), ("payments".into(), 0)],
                groups: vec!["g".into()],
            },
            Entry::TransactionOffset {
                id: "t".into(),
                group: "g".into(),
                commit: OffsetCommit::new("orders".into(), 0, 12),
            },
            Entry::TransactionEnd {
                id: "t".into(),
                epoch: 5,
                commits: true,
            },
        ];
        for entry in &entries {
            let mut buf = Vec::new();
            entry.write(&mut buf);
            assert_eq!(Entry::read_all(&buf), Some(vec![entry.clone()]));
            for cut in 1..buf.len() {
                assert_eq!(Entry::read_all(&buf[..cut]), None);
            }
        }
    }
}
