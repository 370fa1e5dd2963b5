//! The one thread that writes: it takes what waits, makes one frame of it, syncs, and answers.
//!
//! There is no timer: the next sync starts when the last one ends, so that a lone append goes at
//! once and many at a time share a sync.

mod group;
mod request;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::error::{AppendError, DiskError, TransactionError};
use crate::groups::check_commit;
use crate::keeper::{Growth, Keeper};
use crate::limits::{GROUP_BYTES_MAX, PRODUCERS_MAX};
use crate::producer::Follows;
use crate::publisher::PublisherUpdate;
use crate::segments::SegmentWriter;
use crate::shared::Shared;
use crate::tables::Aftermath;
use crate::topic::{Flush, Timestamps};
use crate::topics::{check_change, check_compacted, check_trim};
use crate::transaction::{Limits, Step};
use crate::wal::{Entry, FRAME_HEADER_BYTES, Wal, WalError};

pub use request::Appended;
pub(crate) use request::{AppendRequest, Request, Run};

use group::{Answer, Group, Joined, Waiting, markers, stamp, stamp_time, write_segments};
use request::StepReply;

/// Upper bound of the bytes of an entry with two names, but for a publisher's ranges.
const ENTRY_BYTES_MAX: usize = 1024;
/// Bytes of a publisher's range in an entry.
const RANGE_BYTES: usize = 20;

/// The writer thread.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub wal: Wal,
    pub keeper: Arc<Keeper>,
    /// Wall time in ms.
    pub wall_ms: fn() -> i64,
    /// Longest timeout of a transaction.
    pub timeout_max_ms: u32,
    /// How many may have become known in partitions since it was looked whether there are too many.
    pub producers_since: usize,
    pub requests: mpsc::Receiver<Request>,
    /// Segments that the next checkpoint has to sync.
    pub dirty_files: usize,
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
            Request::Step { step, reply } => self.admit_step(group, step, reply, limit),
            forget @ Request::Forget { .. } if !group.is_empty() => Some(forget),
            Request::Forget {
                producers_ms,
                transactional_ids_ms,
                reply,
            } => {
                self.shared.update(|tables| {
                    tables.transactions.forget_idle(transactional_ids_ms);
                    tables.forget_idle_producers(producers_ms);
                    Aftermath::default()
                });
                let _ = reply.send(());
                None
            }
            Request::Entries {
                entries,
                bytes,
                reply,
            } => {
                // A trim may remove the segment that an append of the same frame was written to.
                let moves = |e: &Entry| matches!(e, Entry::Trim { .. } | Entry::Compacted { .. });
                let alone = entries.iter().any(moves);
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
                Entry::Compacted { .. } => check_compacted(&tables, entry)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a step of a producer into the group: markers, then entries.
    fn admit_step(
        &self,
        group: &mut Group,
        step: Step,
        reply: StepReply,
        limit: usize,
    ) -> Option<Request> {
        let (decided, next_id) = {
            let tables = self.shared.tables();
            if group.producers.must_wait(&tables, &step) {
                return Some(Request::Step { step, reply });
            }
            let limits = Limits {
                next_id: group.producers.next_id(&tables),
                frame_bytes: limit,
                timeout_max_ms: self.timeout_max_ms,
            };
            let writable = self.shared.check_writable().map_err(TransactionError::from);
            let decided = writable.and_then(|()| step.decide(&tables, &limits));
            (decided, limits.next_id)
        };
        let decision = match decided {
            Ok(decision) if !decision.entries.is_empty() => decision,
            done => {
                let _ = reply.send(done.map(|d| d.producer));
                return None;
            }
        };
        let (buffer, runs) = markers(&decision, (self.wall_ms)());
        let bytes = decision.frame_bytes(buffer.len());
        if group.bytes + bytes > limit && !group.is_empty() {
            return Some(Request::Step { step, reply });
        }
        if bytes > limit {
            let _ = reply.send(Err(AppendError::TooLarge { bytes, limit }.into()));
            return None;
        }
        group.bytes += bytes;
        let gives_id = decision.producer.id == next_id;
        group.producers.note_step(&step, gives_id);
        // Also when all its markers are for topics that are not synced.
        group.sync = true;
        let answer = Answer::Step(reply, decision.producer);
        self.join(group, buffer, runs, answer);
        group.entries.extend(decision.entries);
        None
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
        match self.follows(group, &append) {
            Follows::Yes => {}
            Follows::Later => return Some(Request::Append(append)),
            Follows::Stored { first_offset } => {
                let _ = append.reply.send(Ok(Appended {
                    buffer: append.buffer,
                    first_offsets: vec![first_offset],
                    duplicate: true,
                }));
                return None;
            }
            Follows::No(error) => {
                let _ = append.reply.send(Err(error));
                return None;
            }
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
        let id = append.publication.map(|p| p.publisher);
        let answer = Answer::Append(append.reply, append.permit);
        self.join(group, append.buffer, append.runs, answer);
        if let (Some(id), Some(update)) = (id, update) {
            group.publishers.insert(id.clone());
            group.entries.push(Entry::Publisher { id, update });
        }
        None
    }

    /// Whether an append is the next of its producer, if it has one.
    fn follows(&self, group: &Group, append: &AppendRequest) -> Follows {
        let batch = append
            .runs
            .iter()
            .find_map(|run| Some((run, run.producer?)));
        batch.map_or(Follows::Yes, |(run, batch)| {
            let tables = self.shared.tables();
            let (topic, partition) = (&run.topic, run.partition);
            group.producers.judge(&tables, topic, partition, &batch)
        })
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

    /// Gives batches their offsets and their entries.
    fn join(&self, group: &mut Group, mut buffer: Vec<u8>, runs: Vec<Run>, answer: Answer) {
        let tables = self.shared.tables();
        let mut first_offsets = Vec::with_capacity(runs.len());
        let mut at = 0;
        group.sync |= runs.is_empty();
        for run in &runs {
            let data = &mut buffer[at..at + run.bytes];
            let options = tables.topics.get(&run.topic).map(|t| &t.options);
            group.sync |= options.is_none_or(|o| o.flush == Flush::Sync);
            if options.is_some_and(|o| o.timestamps == Timestamps::Append) {
                stamp_time(data, (self.wall_ms)());
            }
            let durable = || {
                tables
                    .partition(&run.topic, run.partition)
                    .map_or(0, |p| p.end)
            };
            let end = group.ends.entry((run.topic.clone(), run.partition));
            let end = end.or_insert_with(durable);
            first_offsets.push(*end);
            stamp(data, *end);
            if let Some(batch) = &run.producer {
                let (topic, partition) = (&run.topic, run.partition);
                group.producers.note(&tables, topic, partition, batch, *end);
            }
            group.entries.push(Entry::Append {
                topic: run.topic.clone(),
                partition: run.partition,
                first_offset: *end,
                data_len: run.bytes as u32,
            });
            *end += run.records;
            at += run.bytes;
        }
        group.appends.push(Joined {
            buffer,
            runs,
            first_offsets,
            answer,
        });
    }

    /// Makes the group durable, then visible, then known.
    fn commit(&mut self, group: Group) {
        let result = self.store(&group);
        if let Err(error) = result {
            group.refuse(&error);
            return;
        }
        self.tell(&group);
        if group.producers.has_steps() {
            let deadline_ms = self.shared.tables().transactions.next_deadline_ms();
            self.keeper.transactions_due(deadline_ms);
        }
        self.bound_producers(group.producers.len());
        group.answer();
        self.keeper.wal_grew(Growth {
            position: self.wal.position(),
            synced: self.wal.is_synced(),
            files: self.dirty_files,
        });
    }

    /// Wakes those who wait for what has just become visible.
    fn tell(&self, group: &Group) {
        self.shared.version.send_modify(|n| *n += 1);
        let concerns_all = |entry: &Entry| {
            use Entry::{Topic, TopicDeleted, Trim};
            matches!(entry, Topic { .. } | TopicDeleted { .. } | Trim { .. })
        };
        match group.entries.iter().any(concerns_all) {
            true => self.shared.watchers.ring_all(),
            false => self.shared.watchers.ring(group.ends.keys()),
        }
    }

    /// Looks from time to time whether there are too many producers.
    fn bound_producers(&mut self, new: usize) {
        self.producers_since += new;
        if self.producers_since > PRODUCERS_MAX / 8 {
            self.producers_since = 0;
            self.shared.update(|tables| {
                tables.forget_idle_producers(i64::MIN);
                Aftermath::default()
            });
        }
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
        let buffers = group.appends.iter().map(|a| a.buffer.as_slice());
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
