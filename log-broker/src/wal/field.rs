//! The fields of entries: one pair of functions for each kind. Reading gives `None` when a field is cut
//! or cannot be.

use std::sync::Arc;

use crate::groups::OffsetCommit;
use crate::producer::Producer;
use crate::publisher::PublisherUpdate;

pub(super) fn put_str(buf: &mut Vec<u8>, text: &str) {
    // Every name is bounded far below 64 KiB before it gets here.
    buf.extend_from_slice(&(text.len() as u16).to_le_bytes());
    buf.extend_from_slice(text.as_bytes());
}

pub(super) fn put_commit(buf: &mut Vec<u8>, commit: &OffsetCommit) {
    put_str(buf, &commit.topic);
    buf.extend_from_slice(&commit.partition.to_le_bytes());
    buf.extend_from_slice(&commit.next_offset.to_le_bytes());
    buf.extend_from_slice(&commit.leader_epoch.unwrap_or(-1).to_le_bytes());
    put_str(buf, &commit.metadata);
}

pub(super) fn take_commit(rest: &mut &[u8]) -> Option<OffsetCommit> {
    Some(OffsetCommit {
        topic: take_str(rest)?,
        partition: take_u32(rest)?,
        next_offset: take_i64(rest)?,
        leader_epoch: Some(take(rest).map(i32::from_le_bytes)?).filter(|&epoch| epoch >= 0),
        metadata: take_str(rest)?,
    })
}

pub(super) fn put_update(buf: &mut Vec<u8>, update: &PublisherUpdate) {
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

pub(super) fn take_update(rest: &mut &[u8]) -> Option<PublisherUpdate> {
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

/// How "nobody" is written.
pub(super) const NO_PRODUCER: Producer = Producer { id: -1, epoch: -1 };

pub(super) fn put_producer(buf: &mut Vec<u8>, producer: Producer) {
    buf.extend_from_slice(&producer.id.to_le_bytes());
    buf.extend_from_slice(&producer.epoch.to_le_bytes());
}

pub(super) fn take_producer(rest: &mut &[u8]) -> Option<Producer> {
    Some(Producer {
        id: take_i64(rest)?,
        epoch: i16::from_le_bytes(take(rest)?),
    })
}

pub(super) fn put_added(buf: &mut Vec<u8>, partitions: &[(Arc<str>, u32)], groups: &[Arc<str>]) {
    buf.extend_from_slice(&(partitions.len() as u32).to_le_bytes());
    for (topic, partition) in partitions {
        put_str(buf, topic);
        buf.extend_from_slice(&partition.to_le_bytes());
    }
    buf.extend_from_slice(&(groups.len() as u32).to_le_bytes());
    groups.iter().for_each(|group| put_str(buf, group));
}

/// Partitions and groups.
pub(super) type Added = (Vec<(Arc<str>, u32)>, Vec<Arc<str>>);

pub(super) fn take_added(rest: &mut &[u8]) -> Option<Added> {
    let (mut partitions, mut groups) = (Vec::new(), Vec::new());
    for _ in 0..take_u32(rest)? {
        partitions.push((take_str(rest)?, take_u32(rest)?));
    }
    for _ in 0..take_u32(rest)? {
        groups.push(take_str(rest)?);
    }
    Some((partitions, groups))
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*field)
}

pub(super) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

pub(super) fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_le_bytes)
}

pub(super) fn take_str(rest: &mut &[u8]) -> Option<Arc<str>> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let (text, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(text).ok().map(Arc::from)
}
