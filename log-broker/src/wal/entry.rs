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
//! ```
//! One byte of kind, then the fields; `str` is a u16 length and UTF-8. A leader epoch of -1 is none.

use std::sync::Arc;

use uuid::Uuid;

use crate::groups::OffsetCommit;
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
}

const APPEND: u8 = 1;
const TOPIC: u8 = 2;
const COMMIT: u8 = 3;
const PUBLISHER: u8 = 4;
const TRIM: u8 = 5;
const TOPIC_DELETED: u8 = 6;
const GROUP_FORGOTTEN: u8 = 7;

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
            _ => return None,
        })
    }
}

fn put_str(buf: &mut Vec<u8>, text: &str) {
    // Every name is bounded far below 64 KiB before it gets here.
    buf.extend_from_slice(&(text.len() as u16).to_le_bytes());
    buf.extend_from_slice(text.as_bytes());
}

fn put_commit(buf: &mut Vec<u8>, commit: &OffsetCommit) {
    put_str(buf, &commit.topic);
    buf.extend_from_slice(&commit.partition.to_le_bytes());
    buf.extend_from_slice(&commit.next_offset.to_le_bytes());
    buf.extend_from_slice(&commit.leader_epoch.unwrap_or(-1).to_le_bytes());
    put_str(buf, &commit.metadata);
}

fn take_commit(rest: &mut &[u8]) -> Option<OffsetCommit> {
    Some(OffsetCommit {
        topic: take_str(rest)?,
        partition: take_u32(rest)?,
        next_offset: take_i64(rest)?,
        leader_epoch: Some(take(rest).map(i32::from_le_bytes)?).filter(|&epoch| epoch >= 0),
        metadata: take_str(rest)?,
    })
}

fn put_update(buf: &mut Vec<u8>, update: &PublisherUpdate) {
    buf.extend_from_slice(&update.epoch.to_le_bytes());
    buf.extend_from_slice(&update.low_water.to_le_bytes());
    buf.extend_from_slice(&(update.done.len() as u32).to_le_bytes());
    for (lo, hi) in &update.done {
        buf.extend_from_slice(&lo.to_le_bytes());
        buf.extend_from_slice(&hi.to_le_bytes());
    }
    buf.extend_from_slice(&(update.redelivered.len() as u32).to_le_bytes());
    for (redelivery, lo, hi) in &update.redelivered {
        buf.extend_from_slice(&redelivery.to_le_bytes());
        buf.extend_from_slice(&lo.to_le_bytes());
        buf.extend_from_slice(&hi.to_le_bytes());
    }
}

fn take_update(rest: &mut &[u8]) -> Option<PublisherUpdate> {
    let mut update = PublisherUpdate {
        epoch: take_i64(rest)?,
        low_water: take_i64(rest)?,
        ..PublisherUpdate::default()
    };
    for _ in 0..take_u32(rest)? {
        update.done.push((take_i64(rest)?, take_i64(rest)?));
    }
    for _ in 0..take_u32(rest)? {
        let redelivery = take_u32(rest)?;
        update
            .redelivered
            .push((redelivery, take_i64(rest)?, take_i64(rest)?));
    }
    Some(update)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*field)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_le_bytes)
}

fn take_str(rest: &mut &[u8]) -> Option<Arc<str>> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let (text, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(text).ok().map(Arc::from)
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
