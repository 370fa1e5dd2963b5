//! House-keeping in the background: checkpoints and retention.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::error::{AppendError, Context, DiskError};
use crate::limits;
use crate::partition::Partition;
use crate::shared::{Dirty, Shared};
use crate::state::State;
use crate::tables::{Aftermath, Tables};
use crate::topic::TopicOptions;
use crate::wal::{Entry, WalFiles};
use crate::writer::Request;

/// When the keeper acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeeperOptions {
    pub checkpoint_bytes: u64,
    pub wal_bytes_max: u64,
    /// How often retention is looked at, and the longest time between checkpoints.
    pub interval: Duration,
}

/// The keeper of one open log.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    files: Arc<WalFiles>,
    options: KeeperOptions,
    /// Does not keep the writer alive.
    requests: mpsc::WeakSender<Request>,
    progress: Mutex<Progress>,
    /// Wakes the keeper.
    wake: Condvar,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
}

#[derive(Default)]
struct Progress {
    /// Where the WAL ends.
    position: u64,
    /// What the last checkpoint covers.
    checkpointed: u64,
    due: bool,
    closed: bool,
    /// When the WAL has to be synced, for records that were acknowledged before.
    flush_at: Option<Instant>,
}

/// What the writer tells of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// Where the WAL ends.
    pub position: u64,
    /// Whether all of it is synced.
    pub synced: bool,
    /// Segments that the next checkpoint has to sync.
    pub files: usize,
}

impl Keeper {
    pub fn new(
        shared: Arc<Shared>,
        files: Arc<WalFiles>,
        options: KeeperOptions,
        requests: mpsc::WeakSender<Request>,
        position: u64,
    ) -> Self {
        let progress = Progress {
            position,
            checkpointed: position,
            ..Progress::default()
        };
        Self {
            shared,
            files,
            options,
            requests,
            progress: Mutex::new(progress),
            wake: Condvar::new(),
            checkpointing: Mutex::new(()),
        }
    }

    /// Checkpoints and applies retention until [`Keeper::close`]: the body of a thread.
    pub fn run(&self) {
        let mut next_round = Instant::now() + self.options.interval;
        while self.wait(next_round) {
            self.flush();
            if (self.progress().due || Instant::now() >= next_round)
                && let Err(error) = self.checkpoint()
            {
                tracing::warn!(%error, "the checkpoint failed and is tried again later");
            }
            if Instant::now() >= next_round {
                next_round = Instant::now() + self.options.interval;
                if let Err(error) = self.retain(crate::wall_ms()) {
                    tracing::warn!(%error, "retention failed and is tried again later");
                }
            }
        }
    }

    /// Ends [`Keeper::run`].
    pub fn close(&self) {
        self.progress().closed = true;
        self.wake.notify_all();
    }

    /// Told by the writer after each frame.
    pub fn wal_grew(&self, growth: Growth) {
        let mut progress = self.progress();
        progress.position = growth.position;
        // Syncing many files for a little data each would take longer than the data is worth.
        let worth = growth.files as u64 * limits::CHECKPOINT_BYTES_PER_FILE;
        let enough = worth
            .min(self.options.wal_bytes_max / 2)
            .max(self.options.checkpoint_bytes);
        if growth.position - progress.checkpointed >= enough && !progress.due {
            progress.due = true;
            self.wake.notify_one();
        }
        if growth.synced {
            progress.flush_at = None;
        } else if progress.flush_at.is_none() {
            progress.flush_at = Some(Instant::now() + limits::FLUSH_INTERVAL);
            self.wake.notify_one();
        }
    }

    /// Has the writer sync the WAL when it is due.
    fn flush(&self) {
        let due = {
            let mut progress = self.progress();
            let due = progress.flush_at.is_some_and(|at| at <= Instant::now());
            if due {
                progress.flush_at = None;
            }
            due
        };
        if due && let Some(requests) = self.requests.upgrade() {
            // It fails when the log is being closed, which makes everything durable.
            let _ = requests.blocking_send(Request::Flush);
        }
    }

    /// Asks for a checkpoint.
    pub fn checkpoint_soon(&self) {
        self.progress().due = true;
        self.wake.notify_one();
    }

    /// Takes note of what an applied frame left to do.
    pub fn clean_up(&self, aftermath: Aftermath) {
        self.shared.dirty().note_aftermath(aftermath);
    }

    /// Makes a checkpoint when the WAL is as large as it may be, or waits for the one that is being
    /// made. The writer makes it itself: the keeper may be waiting for the writer.
    pub fn make_room(&self, position: u64) -> Result<(), AppendError> {
        let full = || position - self.progress().checkpointed >= self.options.wal_bytes_max;
        if full() {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes everything below the WAL's end durable in segments and state, and gives the WAL
    /// files below it back. Does nothing when nothing was appended since the last one.
    pub fn checkpoint(&self) -> Result<(), AppendError> {
        let _one = self
            .checkpointing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = self.checkpoint_now();
        let mut progress = self.progress();
        progress.due = false;
        if let Ok(covered) = &result {
            progress.checkpointed = progress.checkpointed.max(*covered);
        }
        result.map(|_| ())
    }

    fn checkpoint_now(&self) -> Result<u64, AppendError> {
        self.shared.check_writable()?;
        // Both as of the same frame: every write that the state speaks of is among the dirty files,
        // and the state speaks of no file that is no longer needed.
        let (state, dirty) = {
            let tables = self.shared.tables();
            if tables.position == self.progress().checkpointed {
                return Ok(tables.position);
            }
            let dirty = std::mem::take(&mut *self.shared.dirty());
            (self.state(&tables), dirty)
        };
        // After a failed sync the same call may succeed and mean nothing: the log stops.
        self.sync(&dirty).map_err(|e| self.shared.fail(&e))?;
        if let Err(error) = state.save(&*self.shared.storage, &self.shared.layout) {
            // The old checkpoint still stands, and the segments are synced: nothing is lost.
            self.shared.dirty().note_aftermath(Aftermath {
                sealed: dirty.sealed,
                unneeded: dirty.unneeded,
                unneeded_dirs: dirty.unneeded_dirs,
            });
            return Err(if error.is_full() {
                AppendError::Full(error)
            } else {
                self.shared.fail(&error)
            });
        }
        self.tidy(dirty);
        if let Err(error) = self.files.release_below(state.wal_position) {
            tracing::warn!(%error, "old WAL files could not be given back");
        }
        Ok(state.wal_position)
    }

    fn state(&self, tables: &Tables) -> State {
        let identity = &self.shared.identity;
        State::of(
            tables,
            identity.log_id,
            identity.generation,
            identity.wal_file_bytes,
        )
    }

    fn sync(&self, dirty: &Dirty) -> Result<(), DiskError> {
        for (path, file) in &dirty.files {
            file.sync().during("sync", path)?;
        }
        for dir in &dirty.dirs {
            for dir in self.shared.layout.with_parents(dir) {
                self.shared.storage.sync_dir(dir).during("sync", dir)?;
            }
        }
        Ok(())
    }

    /// Saves indexes and removes files. Neither matters to anything but speed and room.
    fn tidy(&self, dirty: Dirty) {
        let storage = &*self.shared.storage;
        for sealed in dirty.sealed {
            if let Some(index) = sealed.index.get()
                && let Err(error) = index.save(storage, &sealed.path)
            {
                tracing::warn!(%error, "the index of a segment could not be saved");
            }
        }
        let files = dirty.unneeded.iter().map(|p| (p, storage.remove(p)));
        let dirs = dirty.unneeded_dirs.iter();
        for (path, removed) in files.chain(dirs.map(|p| (p, storage.remove_dir(p)))) {
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "stays until the next start");
                }
                _ => {}
            }
        }
    }

    /// Gives up the segments that retention no longer covers at `now_ms`. Answers how many.
    pub fn retain(&self, now_ms: i64) -> Result<usize, AppendError> {
        let (entries, segments) = {
            let tables = self.shared.tables();
            expired(&tables, now_ms)
        };
        if entries.is_empty() {
            return Ok(0);
        }
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.upgrade().ok_or(AppendError::Closed)?;
        let request = Request::entries(entries, reply);
        let sent = requests.blocking_send(request);
        sent.map_err(|_| AppendError::Closed)?;
        answer.blocking_recv().map_err(|_| AppendError::Closed)??;
        self.checkpoint()?;
        Ok(segments)
    }

    /// Waits until there is something to do; `false` when closed.
    fn wait(&self, until: Instant) -> bool {
        let mut progress = self.progress();
        loop {
            let until = progress.flush_at.map_or(until, |at| at.min(until));
            let left = until.saturating_duration_since(Instant::now());
            if progress.closed {
                return false;
            }
            if progress.due || left.is_zero() {
                return true;
            }
            let woken = self.wake.wait_timeout(progress, left);
            progress = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trim for each partition that holds more than it has to, and the segments that go.
fn expired(tables: &Tables, now_ms: i64) -> (Vec<Entry>, usize) {
    let (mut entries, mut segments) = (Vec::new(), 0);
    let topics = tables.topics.iter();
    for (name, topic) in topics.filter(|(_, t)| t.options.cleanup.deletes()) {
        for (number, partition) in topic.partitions.iter().enumerate() {
            let count = expired_segments(partition, &topic.options, now_ms);
            if let Some(last) = count.checked_sub(1) {
                segments += count;
                entries.push(Entry::Trim {
                    topic: name.clone(),
                    partition: number as u32,
                    start_offset: partition.segments[last].state.end,
                });
            }
        }
    }
    (entries, segments)
}

/// How many of the oldest segments may go. By age also the one that is appended to; by size not.
fn expired_segments(partition: &Partition, options: &TopicOptions, now_ms: i64) -> usize {
    let oldest = partition.segments.iter();
    let aged = options.retention_ms.map_or(0, |keep_ms| {
        let bound = now_ms.saturating_sub_unsigned(keep_ms);
        oldest.take_while(|s| s.state.appended_ms < bound).count()
    });
    let closed = partition.segments.len().saturating_sub(1);
    let oversized = options.retention_bytes.map_or(0, |keep| {
        let mut held = partition.bytes();
        let goes = |s: &&crate::partition::Segment| {
            held -= s.state.bytes;
            held >= keep
        };
        partition.segments[..closed].iter().take_while(goes).count()
    });
    aged.max(oversized)
}
