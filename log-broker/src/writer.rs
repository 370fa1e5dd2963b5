//! The one thread that writes: it takes what waits, makes one frame of it, syncs, and answers.
//!
//! There is no timer: the next sync starts when the last one ends, so that a lone append goes at
//! once and many at a time share a sync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::batch::BatchHeader;
use crate::error::{AppendError, DiskError, TopicError};
use crate::groups::check_commit;
use crate::keeper::{Growth, Keeper};
use crate::limits::GROUP_BYTES_MAX;
use crate::publisher::{Publication, PublisherUpdate};
use crate::segments::SegmentWriter;
use crate::shared::Shared;
use crate::tables::Written;
use crate::topic::{Flush, Timestamps};
use crate::topics::{check_change, check_trim};
use crate::wal::{Entry, FRAME_HEADER_BYTES, Wal, WalError};

/// Upper bound of the bytes of an entry with two names, but for a publisher's ranges.
const ENTRY_BYTES_MAX: usize = 1024;
/// Bytes of a publisher's range in an entry.
const RANGE_BYTES: usize = 20;

/// One append, already checked.
pub(crate) struct AppendRequest {
    pub buffer: Vec<u8>,
    /// Consecutive parts of the buffer.
    pub runs: Vec<Run>,
    pub publication: Option<Publication>,
    pub reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Room in the queue, given back when the request is answered.
    pub permit: OwnedSemaphorePermit,
}

/// Whole batches for one partition.
pub(crate) struct Run {
    pub topic: Arc<str>,
    pub partition: u32,
    pub bytes: usize,
    pub records: i64,
}

/// What was stored.
#[derive(Debug)]
pub struct Appended {
    /// The buffer that was handed in, to be used again. Offsets have been stamped into it.
    pub buffer: Vec<u8>,
    /// Offset of the first record of each slice.
    pub first_offsets: Vec<i64>,
}

/// What the writer is asked.
pub(crate) enum Request {
    Append(AppendRequest),
    /// Entries without batches.
    Entries {
        entries: Vec<Entry>,
        /// Bytes that they take in a frame.
        bytes: usize,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    /// Makes durable what was acknowledged before.
    Flush,
    /// A topic is created (`new`), changed or deleted.
    Topic {
        entry: Entry,
        new: bool,
        reply: oneshot::Sender<Result<(), TopicError>>,
    },
}

impl Request {
    /// Entries without batches.
    pub fn entries(entries: Vec<Entry>, reply: oneshot::Sender<Result<(), AppendError>>) -> Self {
        Self::Entries {
            bytes: Entry::bytes(&entries),
            entries,
            reply,
        }
    }
}

/// Whoever waits for entries.
enum Waiting {
    Entries(oneshot::Sender<Result<(), AppendError>>),
    Topic(oneshot::Sender<Result<(), TopicError>>),
}

impl Waiting {
    fn answer(self, result: Result<(), AppendError>) {
        // Whoever gave up waiting no longer cares.
        let _ = match self {
            Self::Entries(reply) => reply.send(result).is_ok(),
            Self::Topic(reply) => reply.send(result.map_err(TopicError::from)).is_ok(),
        };
    }
}

/// The writer thread.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub wal: Wal,
    pub keeper: Arc<Keeper>,
    /// Wall time in ms.
    pub wall_ms: fn() -> i64,
    pub requests: mpsc::Receiver<Request>,
    /// Segments that the next checkpoint has to sync.
    pub dirty_files: usize,
}

/// What one frame will hold.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    appends: Vec<(AppendRequest, Vec<i64>)>,
    others: Vec<Waiting>,
    publishers: BTreeSet<Arc<str>>,
    /// Next offset of each partition that is appended to.
    ends: BTreeMap<(Arc<str>, u32), i64>,
    bytes: usize,
    /// Whether anybody is promised that it is durable.
    sync: bool,
}

impl Writer {
    /// Serves requests until every sender is gone.
    pub fn run(mut self) {
        let mut late = None;
        while let Some(group) = self.collect(&mut late) {
            if !group.is_empty() {
                self.commit(group);
            }
        }
    }

    /// Waits for a request and takes what else waits and fits into one frame. `late` is the one
    /// that has to wait for the next.
    fn collect(&mut self, late: &mut Option<Request>) -> Option<Group> {
        let mut group = Group::default();
        let mut request = match late.take() {
            Some(request) => request,
            None => self.requests.blocking_recv()?,
        };
        loop {
            if let Some(refused) = self.admit(&mut group, request) {
                *late = Some(refused);
                return Some(group);
            }
            match self.requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => return Some(group),
            }
        }
    }

    /// Takes a request into the group, or answers it, or hands it back for the next group.
    fn admit(&self, group: &mut Group, request: Request) -> Option<Request> {
        let limit = self.wal.body_max().min(GROUP_BYTES_MAX);
        match request {
            Request::Append(append) => self.admit_append(group, append, limit),
            Request::Flush => {
                group.sync = true;
                None
            }
            Request::Entries {
                entries,
                bytes,
                reply,
            } => {
                // A trim may remove the segment that an append of the same frame was written to.
                let alone = entries.iter().any(|e| matches!(e, Entry::Trim { .. }));
                if !group.is_empty() && (alone || group.bytes + bytes > limit) {
                    return Some(Request::Entries {
                        entries,
                        bytes,
                        reply,
                    });
                }
                let reply = Waiting::Entries(reply);
                match self.check_entries(&entries, bytes, limit) {
                    Err(error) => reply.answer(Err(error)),
                    Ok(()) => {
                        group.bytes += if alone { limit } else { bytes };
                        group.entries.extend(entries);
                        group.others.push(reply);
                        group.sync = true;
                    }
                }
                None
            }
            Request::Topic { entry, new, reply } => {
                // Alone in its frame: what comes behind it is checked when it is applied.
                if !group.is_empty() {
                    return Some(Request::Topic { entry, new, reply });
                }
                match check_change(&self.shared.tables(), &entry, new) {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok(()) => {
                        group.bytes += limit;
                        group.entries.push(entry);
                        group.sync = true;
                        group.others.push(Waiting::Topic(reply));
                    }
                }
                None
            }
        }
    }

    /// What can be told of entries alone: they fit a frame, and their partitions exist.
    fn check_entries(
        &self,
        entries: &[Entry],
        bytes: usize,
        limit: usize,
    ) -> Result<(), AppendError> {
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        let tables = self.shared.tables();
        for entry in entries {
            match entry {
                Entry::Commit { group, commit } => check_commit(&tables, group, commit)?,
                Entry::Trim {
                    topic,
                    partition,
                    start_offset,
                } => check_trim(&tables, topic, *partition, *start_offset)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn admit_append(
        &self,
        group: &mut Group,
        append: AppendRequest,
        limit: usize,
    ) -> Option<Request> {
        // Whether it is a duplicate can be told only when what came before is durable.
        let publication = append.publication.as_ref();
        if publication.is_some_and(|p| group.publishers.contains(&p.publisher)) {
            return Some(Request::Append(append));
        }
        if let Err(error) = self.check(&append) {
            let _ = append.reply.send(Err(error));
            return None;
        }
        let update = publication.map(PublisherUpdate::of);
        let ranges = update
            .as_ref()
            .map_or(0, |u| u.done.len() + u.redelivered.len());
        let bytes =
            append.buffer.len() + (append.runs.len() + 1) * ENTRY_BYTES_MAX + ranges * RANGE_BYTES;
        if group.bytes + bytes > limit {
            if !group.is_empty() {
                return Some(Request::Append(append));
            }
            let _ = append
                .reply
                .send(Err(AppendError::TooLarge { bytes, limit }));
            return None;
        }
        group.bytes += bytes;
        self.join(group, append, update);
        None
    }

    /// What can be told of an append alone: its partitions exist, its epoch is not stale, nothing
    /// of it is stored.
    fn check(&self, append: &AppendRequest) -> Result<(), AppendError> {
        self.shared.check_writable()?;
        let tables = self.shared.tables();
        for run in &append.runs {
            if tables.partition(&run.topic, run.partition).is_none() {
                return Err(AppendError::Unknown {
                    topic: run.topic.clone(),
                    partition: run.partition,
                });
            }
        }
        let Some(publication) = &append.publication else {
            return Ok(());
        };
        let Some(publisher) = tables.publishers.get(&publication.publisher) else {
            return Ok(());
        };
        if publication.epoch < publisher.epoch() {
            return Err(AppendError::Fenced {
                publisher: publication.publisher.clone(),
                epoch: publication.epoch,
                newer: publisher.epoch(),
            });
        }
        match publisher.duplicates(publication) {
            indexes if indexes.is_empty() => Ok(()),
            indexes => Err(AppendError::Duplicates { indexes }),
        }
    }

    /// Gives the append its offsets and its entries.
    fn join(&self, group: &mut Group, mut append: AppendRequest, update: Option<PublisherUpdate>) {
        let tables = self.shared.tables();
        let mut first_offsets = Vec::with_capacity(append.runs.len());
        let mut at = 0;
        group.sync |= append.runs.is_empty();
        for run in &append.runs {
            let data = &mut append.buffer[at..at + run.bytes];
            let options = tables.topics.get(&run.topic).map(|t| &t.options);
            group.sync |= options.is_none_or(|o| o.flush == Flush::Sync);
            if options.is_some_and(|o| o.timestamps == Timestamps::Append) {
                stamp_time(data, (self.wall_ms)());
            }
            let end = group.ends.entry((run.topic.clone(), run.partition));
            let durable = || {
                tables
                    .partition(&run.topic, run.partition)
                    .map_or(0, |p| p.end)
            };
            let end = end.or_insert_with(durable);
            first_offsets.push(*end);
            stamp(data, *end);
            group.entries.push(Entry::Append {
                topic: run.topic.clone(),
                partition: run.partition,
                first_offset: *end,
                data_len: run.bytes as u32,
            });
            *end += run.records;
            at += run.bytes;
        }
        if let (Some(publication), Some(update)) = (&append.publication, update) {
            let id = publication.publisher.clone();
            group.publishers.insert(id.clone());
            group.entries.push(Entry::Publisher { id, update });
        }
        group.appends.push((append, first_offsets));
    }

    /// Makes the group durable, then visible, then known.
    fn commit(&mut self, group: Group) {
        let result = self.store(&group);
        if let Err(error) = result {
            group.refuse(&error);
            return;
        }
        self.shared.version.send_modify(|n| *n += 1);
        group.answer();
        self.keeper.wal_grew(Growth {
            position: self.wal.position(),
            synced: self.wal.is_synced(),
            files: self.dirty_files,
        });
    }

    fn store(&mut self, group: &Group) -> Result<(), AppendError> {
        self.shared.check_writable()?;
        if group.entries.is_empty() {
            return self.wal.sync().map_err(|e| self.failure(e));
        }
        self.keeper.make_room(self.wal.position())?;
        let wall_ms = (self.wall_ms)();
        let tables = self.shared.tables();
        // Segments first: if there is no room, nothing of it is in the WAL yet.
        let mut segments = SegmentWriter::new(&*self.shared.storage, &tables);
        let written = write_segments(&mut segments, group);
        let opened = segments.opened;
        // Also when a write failed: whatever got through may have to be synced some day.
        let waiting = self.shared.dirty().note(segments.touched, segments.dirs);
        drop(tables);
        self.dirty_files = waiting;
        if waiting > self.shared.storage.open_files_max() {
            self.keeper.checkpoint_soon();
        }
        let written = written.map_err(|e| self.refusal(e))?;
        let end = self.write_wal(group, wall_ms)?;
        let shared = &self.shared;
        let aftermath = shared.update(|tables| {
            if opened {
                tables.bound_open_segments(shared.storage.open_files_max());
            }
            tables.apply(&shared.layout, &group.entries, &written, wall_ms, end)
        });
        self.keeper.clean_up(aftermath);
        Ok(())
    }

    fn write_wal(&mut self, group: &Group, wall_ms: i64) -> Result<u64, AppendError> {
        let mut meta = vec![0; FRAME_HEADER_BYTES];
        for entry in &group.entries {
            entry.write(&mut meta);
        }
        let buffers = group.appends.iter().map(|(a, _)| a.buffer.as_slice());
        let data: Vec<&[u8]> = buffers.filter(|b| !b.is_empty()).collect();
        let end = self.wal.commit(&mut meta, &data, wall_ms, group.sync);
        end.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: WalError) -> AppendError {
        match error {
            WalError::Full(error) => AppendError::Full(error),
            WalError::Fatal(error) => self.shared.fail(&error),
        }
    }

    fn refusal(&self, error: DiskError) -> AppendError {
        if error.is_full() {
            AppendError::Full(error)
        } else {
            self.shared.fail(&error)
        }
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.others.is_empty() && !self.sync
    }

    fn answer(self) {
        for (append, first_offsets) in self.appends {
            // Whoever gave up waiting no longer cares.
            let _ = append.reply.send(Ok(Appended {
                buffer: append.buffer,
                first_offsets,
            }));
            drop(append.permit);
        }
        for reply in self.others {
            reply.answer(Ok(()));
        }
    }

    fn refuse(self, error: &AppendError) {
        for (append, _) in self.appends {
            let _ = append.reply.send(Err(error.clone()));
        }
        for reply in self.others {
            reply.answer(Err(error.clone()));
        }
    }
}

/// Stamps the time of the append into the batches of `run`.
fn stamp_time(run: &mut [u8], wall_ms: i64) {
    let mut rest = run;
    while let Ok(header) = BatchHeader::parse(rest) {
        BatchHeader::stamp_time(rest, wall_ms);
        rest = rest.get_mut(header.bytes..).unwrap_or_default();
    }
}

/// Stamps consecutive offsets into the batches of `run`, which were checked before.
fn stamp(run: &mut [u8], first: i64) {
    let (mut rest, mut offset) = (run, first);
    while let Ok(header) = BatchHeader::parse(rest) {
        BatchHeader::stamp(rest, offset, 0);
        offset += i64::from(header.records);
        rest = rest.get_mut(header.bytes..).unwrap_or_default();
    }
}

/// Writes every append's runs to their segments; one item for each append entry, in order.
fn write_segments<'g>(
    segments: &mut SegmentWriter<'_>,
    group: &'g Group,
) -> Result<Vec<Written<'g>>, DiskError> {
    let mut written = Vec::new();
    for (append, first_offsets) in &group.appends {
        let mut rest = append.buffer.as_slice();
        for (run, &first) in append.runs.iter().zip(first_offsets) {
            let (data, tail) = rest.split_at(run.bytes);
            rest = tail;
            written.push(segments.write(&run.topic, run.partition, first, data)?);
        }
    }
    Ok(written)
}
