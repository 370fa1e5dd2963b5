//! Which segments are to be compacted, as of one moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::batch::BatchHeader;
use crate::partition::{Partition, SegmentState};
use crate::tables::{Tables, Topic};

/// What is to be done for one partition.
pub(super) struct Plan {
    pub topic: Arc<str>,
    pub id: Uuid,
    pub partition: u32,
    pub dir: PathBuf,
    /// Closed, stable and old enough, from the first of the partition on.
    pub segments: Vec<SegmentState>,
    /// Whether records go by key.
    pub by_key: bool,
    /// Whether records go when they expire.
    pub by_expiry: bool,
    pub tombstone_retention_ms: u64,
    /// Segments are put together up to this size.
    segment_bytes: u64,
    /// Aborted transactions: (producer, first offset) → offset of the marker.
    aborted: BTreeMap<(i64, i64), i64>,
}

/// A plan for each partition for which it is time.
pub(super) fn due(tables: &Tables, now_ms: i64) -> Vec<Plan> {
    let mut plans = Vec::new();
    let wanted = |t: &&Topic| t.options.cleanup.compacts() || t.options.expire;
    for (name, topic) in tables.topics.iter().filter(|(_, t)| wanted(t)) {
        for (number, partition) in topic.partitions.iter().enumerate() {
            let plan = Plan::of(name, topic, number as u32, partition, now_ms);
            if plan.is_due(now_ms) {
                plans.push(plan);
            }
        }
    }
    plans
}

impl Plan {
    fn of(name: &Arc<str>, topic: &Topic, number: u32, partition: &Partition, now_ms: i64) -> Self {
        let options = &topic.options;
        let bound = now_ms.saturating_sub_unsigned(options.compaction_lag_ms);
        // What an open transaction may still take back stays as it is.
        let stable = partition.last_stable();
        let settled = |s: &&SegmentState| s.appended_ms <= bound && s.end <= stable;
        // The last one is appended to.
        let closed = partition.segments.len().saturating_sub(1);
        let segments = partition.segments[..closed].iter().map(|s| &s.state);
        let aborted = partition.producers.aborted_within(partition.start, stable);
        let aborted = aborted.iter();
        Self {
            topic: name.clone(),
            id: topic.id,
            partition: number,
            dir: partition.dir.clone(),
            segments: segments.take_while(settled).cloned().collect(),
            by_key: options.cleanup.compacts(),
            by_expiry: options.expire,
            tombstone_retention_ms: options.tombstone_retention_ms,
            segment_bytes: options.segment_bytes,
            aborted: aborted
                .map(|a| ((a.producer_id, a.first_offset), a.last_offset))
                .collect(),
        }
    }

    /// Rewriting everything for a little that is new would never end: half of it must be new. Or
    /// there are records whose time is over.
    fn is_due(&self, now_ms: i64) -> bool {
        let bytes = |new: bool| -> u64 {
            let of = self.segments.iter().filter(|s| s.is_clean() != new);
            of.map(|s| s.bytes).sum()
        };
        let new = bytes(true);
        (new > 0 && (!self.by_key || new >= bytes(false)))
            || self.segments.iter().any(|s| self.is_over(s, now_ms))
    }

    /// Whether nothing is to be done for these segments.
    pub fn is_done(&self, group: &[SegmentState], now_ms: i64) -> bool {
        let done = |s: &SegmentState| s.is_clean() && !self.is_over(s, now_ms);
        !self.by_key && group.iter().all(done)
    }

    /// Whether a segment has tombstones or expired records whose time is over.
    fn is_over(&self, segment: &SegmentState, now_ms: i64) -> bool {
        let tombstones =
            self.by_key && segment.tombstones && self.drops_tombstones(segment, now_ms);
        let expired = self.by_expiry && segment.expires_ms.is_some_and(|at| at <= now_ms);
        tombstones || expired
    }

    /// Whether every reader has had the time to see the segment's tombstones since what they
    /// replace went.
    pub fn drops_tombstones(&self, segment: &SegmentState, now_ms: i64) -> bool {
        let over = |at: i64| at.saturating_add_unsigned(self.tombstone_retention_ms) <= now_ms;
        segment.cleaned_ms.is_some_and(over)
    }

    /// Where what was not compacted before begins.
    pub fn first_dirty(&self) -> i64 {
        let dirty = self.segments.iter().find(|s| !s.is_clean());
        dirty.map_or(self.end(), |s| s.cleaned_to.max(s.base))
    }

    /// The offset behind the last segment.
    pub fn end(&self) -> i64 {
        self.segments.last().map_or(0, |s| s.end)
    }

    /// Whether the batch belongs to a transaction that was aborted.
    pub fn is_aborted(&self, header: &BatchHeader) -> bool {
        let (id, offset) = (header.producer_id, header.base_offset);
        let mut before = self.aborted.range((id, i64::MIN)..=(id, offset));
        let marker = before.next_back().map(|(_, &marker)| marker);
        header.is_transactional() && marker.is_some_and(|marker| offset <= marker)
    }

    /// Segments that begin below `upto`, in order, those together that fit one segment.
    pub fn groups(&self, upto: i64) -> Vec<&[SegmentState]> {
        let count = self.segments.partition_point(|s| s.base < upto);
        let mut rest = &self.segments[..count];
        let mut groups = Vec::new();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |s: &&SegmentState| {
                bytes += s.bytes;
                bytes <= self.segment_bytes
            };
            let together = rest.iter().take_while(fits).count().max(1);
            let (group, tail) = rest.split_at(together);
            groups.push(group);
            rest = tail;
        }
        groups
    }
}
