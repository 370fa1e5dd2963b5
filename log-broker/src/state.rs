//! The checkpoint: everything below the WAL's position, in one file that is replaced whole.
//!
//! One line `outbox-log-state 1 crc32c=XXXXXXXX bytes=N`, then N bytes of JSON.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checksum::crc32c;
use crate::error::{Context, DiskError, OpenError};
use crate::groups::CommittedOffset;
use crate::layout::Layout;
use crate::partition::{Partition, Segment, SegmentState};
use crate::producer::{Aborted, ProducerIds, ProducerRecord, Producers};
use crate::publisher::{Publisher, PublisherRecord};
use crate::storage::{Mode, Storage, read_all};
use crate::tables::{Tables, Topic};
use crate::topic::TopicOptions;
use crate::transaction::{TransactionRecord, Transactions};

const TITLE: &str = "outbox-log-state 1";
/// No plausible checkpoint is larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Ties WAL frames to this log.
    pub log_id: Uuid,
    /// Bumped at each start; frames of another one are not replayed.
    pub generation: u64,
    /// Where replay starts.
    pub wal_position: u64,
    /// Size of each WAL file; fixed when the log is created.
    pub wal_file_bytes: u64,
    topics: Vec<TopicRecord>,
    groups: Vec<CommitRecord>,
    publishers: Vec<PublisherRecord>,
    producer_ids: ProducerIds,
    transactions: Vec<TransactionRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TopicRecord {
    name: Arc<str>,
    id: Uuid,
    options: TopicOptions,
    partitions: Vec<PartitionRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartitionRecord {
    start: i64,
    end: i64,
    segments: Vec<SegmentState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    producers: Vec<ProducerRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aborted: Vec<Aborted>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CommitRecord {
    group: Arc<str>,
    topic: Arc<str>,
    partition: u32,
    #[serde(flatten)]
    offset: CommittedOffset,
}

impl State {
    /// The state of an empty log.
    pub fn fresh(wal_file_bytes: u64) -> Self {
        let log_id = Uuid::now_v7();
        Self {
            log_id,
            generation: 1,
            wal_position: 0,
            wal_file_bytes,
            topics: Vec::new(),
            groups: Vec::new(),
            publishers: Vec::new(),
            producer_ids: ProducerIds::fresh(log_id.as_u64_pair().1),
            transactions: Vec::new(),
        }
    }

    /// The state that `tables` are in.
    pub fn of(tables: &Tables, log_id: Uuid, generation: u64, wal_file_bytes: u64) -> Self {
        let topics = tables.topics.iter().map(|(name, topic)| TopicRecord {
            name: name.clone(),
            id: topic.id,
            options: topic.options.clone(),
            partitions: topic.partitions.iter().map(PartitionRecord::of).collect(),
        });
        let groups = tables.groups.iter().flat_map(|(group, offsets)| {
            offsets
                .iter()
                .map(|((topic, partition), offset)| CommitRecord {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    offset: offset.clone(),
                })
        });
        let publishers = tables.publishers.iter();
        Self {
            log_id,
            generation,
            wal_position: tables.position,
            wal_file_bytes,
            topics: topics.collect(),
            groups: groups.collect(),
            publishers: publishers.map(|(id, p)| p.to_record(id.clone())).collect(),
            producer_ids: tables.producer_ids.clone(),
            transactions: tables.transactions.to_records(),
        }
    }

    /// The tables as of this state.
    pub fn tables(&self, layout: &Layout) -> Tables {
        let mut tables = Tables {
            position: self.wal_position,
            producer_ids: self.producer_ids.clone(),
            transactions: Transactions::from_records(&self.transactions),
            ..Tables::default()
        };
        for record in &self.topics {
            let mut topic = Topic::new(layout, &record.name, record.id, record.options.clone());
            for (partition, record) in topic.partitions.iter_mut().zip(&record.partitions) {
                record.restore(partition);
            }
            tables.topics.insert(record.name.clone(), topic);
        }
        for c in &self.groups {
            let group: &mut BTreeMap<_, _> = tables.groups.entry(c.group.clone()).or_default();
            group.insert((c.topic.clone(), c.partition), c.offset.clone());
        }
        for p in &self.publishers {
            tables
                .publishers
                .insert(p.id.clone(), Publisher::from_record(p));
        }
        tables
    }

    /// What frames of this log are sealed with.
    pub fn seed(&self) -> u32 {
        crc32c(self.log_id.as_bytes())
    }

    /// Reads the last checkpoint; `None` when there has never been one.
    pub fn load(storage: &dyn Storage, layout: &Layout) -> Result<Option<Self>, OpenError> {
        let path = layout.state();
        let file = match storage.open(&path, Mode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DiskError::new("open", &path, e).into()),
        };
        let bytes = read_all(&*file, FILE_BYTES_MAX).during("read", &path)?;
        Self::parse(&bytes).map(Some).map_err(|problem| {
            let problem = format!("its checkpoint, the file \"state\", {problem}");
            OpenError::State {
                dir: layout.dir.clone(),
                problem,
            }
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line = bytes.iter().position(|&b| b == b'\n');
        let (line, json) = bytes.split_at(line.ok_or("has no first line")?);
        let json = &json[1..];
        let expected = title(json);
        if line != expected.as_bytes() {
            let found = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            return Err(format!("starts with {found:?} where {expected:?} is due"));
        }
        serde_json::from_slice(json).map_err(|e| format!("cannot be read: {e}"))
    }

    /// Replaces the last checkpoint by this one, durably.
    pub fn save(&self, storage: &dyn Storage, layout: &Layout) -> Result<(), DiskError> {
        let path = layout.state_next();
        let json = serde_json::to_vec(self)
            .map_err(std::io::Error::other)
            .during("write", &path)?;
        let line = title(&json) + "\n";
        let file = storage
            .open(&path, Mode::Truncate)
            .during("create", &path)?;
        file.write_at(&[IoSlice::new(line.as_bytes()), IoSlice::new(&json)], 0)
            .during("write", &path)?;
        file.sync().during("sync", &path)?;
        storage
            .rename(&path, &layout.state())
            .during("rename", &path)?;
        storage.sync_dir(&layout.dir).during("sync", &layout.dir)
    }
}

fn title(json: &[u8]) -> String {
    format!("{TITLE} crc32c={:08x} bytes={}", crc32c(json), json.len())
}

impl PartitionRecord {
    fn of(partition: &Partition) -> Self {
        let (producers, aborted) = partition.producers.to_records();
        Self {
            producers,
            aborted,
            start: partition.start,
            end: partition.end,
            segments: partition.segments.iter().map(|s| s.state.clone()).collect(),
        }
    }

    fn restore(&self, partition: &mut Partition) {
        partition.start = self.start;
        partition.end = self.end;
        partition.segments = self.segments.iter().cloned().map(Segment::sealed).collect();
        partition.producers = Producers::from_records(&self.producers, &self.aborted);
    }
}
