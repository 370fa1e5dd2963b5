//! House-keeping in the background: checkpoints and retention.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::error::{AppendError, TransactionError};
use crate::limits;
use crate::options::LogOptions;
use crate::partition::Partition;
use crate::shared::{Dirty, Shared};
use crate::state::State;
use crate::syncing::sync_dirty;
use crate::tables::{Aftermath, Tables};
use crate::topic::TopicOptions;
use crate::transaction::Step;
use crate::wal::{Entry, WalFiles};
use crate::writer::Request;

/// When the keeper acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeeperOptions {
    pub checkpoint_bytes: u64,
    pub wal_bytes_max: u64,
    /// How often retention is looked at, and the longest time between checkpoints.
    pub interval: Duration,
    pub producer_expiry: Duration,
    pub transactional_id_expiry: Duration,
}

/// While the log does not take them, timed-out transactions are tried again after so long.
const TIME_OUT_RETRY_MS: i64 = 1000;

/// Why the keeper wakes up.
enum Due {
    Closed,
    /// Records that were acknowledged before have to be synced.
    Flush,
    Checkpoint,
    /// A transaction times out.
    TimeOut,
    /// Everything else.
    Round,
}

impl KeeperOptions {
    pub fn of(options: &LogOptions) -> Self {
        Self {
            checkpoint_bytes: options.checkpoint_bytes,
            wal_bytes_max: options.wal_bytes_max,
            interval: options.interval,
            producer_expiry: options.producer_expiry,
            transactional_id_expiry: options.transactional_id_expiry,
        }
    }
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
    /// When the next transaction times out, in ms of wall time.
    deadline_ms: Option<i64>,
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
            deadline_ms: shared.tables().transactions.next_deadline_ms(),
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

    /// Does what is due until [`Keeper::close`]: the body of a thread.
    pub fn run(&self) {
        let mut next_round = Instant::now() + self.options.interval;
        loop {
            match self.wait(next_round) {
                Due::Closed => return,
                Due::Flush => self.flush(),
                Due::TimeOut => self.start_time_outs(crate::wall_ms()),
                Due::Checkpoint => self.checkpoint_or_warn(),
                Due::Round => {
                    next_round = Instant::now() + self.options.interval;
                    self.checkpoint_or_warn();
                    self.round();
                }
            }
        }
    }

    fn checkpoint_or_warn(&self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the checkpoint failed and is tried again later");
        }
    }

    fn round(&self) {
        let now_ms = crate::wall_ms();
        if let Err(error) = self.retain(now_ms) {
            tracing::warn!(%error, "retention failed and is tried again later");
        }
        // It fails when the log is being closed.
        let _ = self.forget_idle(now_ms);
    }

    /// Asks for the end of the transactions that have timed out, without waiting for it.
    fn start_time_outs(&self, now_ms: i64) {
        let ids = self.shared.tables().transactions.timed_out(now_ms);
        self.progress().deadline_ms = Some(now_ms + TIME_OUT_RETRY_MS);
        let Some(requests) = self.requests.upgrade() else {
            return;
        };
        for id in ids {
            tracing::warn!(
                transactional_id = &*id,
                "the transaction timed out and is aborted"
            );
            let (reply, _) = oneshot::channel();
            let step = Step::TimeOut { id, now_ms };
            // What the queue has no room for comes with the next try.
            let _ = requests.try_send(Request::Step { step, reply });
        }
    }

    /// Aborts the transactions that have timed out as of `now_ms`; answers how many.
    pub fn abort_timed_out(&self, now_ms: i64) -> Result<usize, AppendError> {
        let ids = self.shared.tables().transactions.timed_out(now_ms);
        let count = ids.len();
        for id in ids {
            let (reply, answer) = oneshot::channel();
            let step = Step::TimeOut { id, now_ms };
            self.ask(Request::Step { step, reply })?;
            let answer = answer.blocking_recv().map_err(|_| AppendError::Closed)?;
            // Otherwise it ended in the meantime.
            if let Err(TransactionError::Append(error)) = answer {
                return Err(error);
            }
        }
        Ok(count)
    }

    /// Forgets who has been idle for too long as of `now_ms`.
    pub fn forget_idle(&self, now_ms: i64) -> Result<(), AppendError> {
        let (request, answer) = self.forget(now_ms);
        self.ask(request)?;
        answer.blocking_recv().map_err(|_| AppendError::Closed)
    }

    fn forget(&self, now_ms: i64) -> (Request, oneshot::Receiver<()>) {
        let (reply, answer) = oneshot::channel();
        let before = |expiry: Duration| {
            now_ms.saturating_sub(i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX))
        };
        let request = Request::Forget {
            producers_ms: before(self.options.producer_expiry),
            transactional_ids_ms: before(self.options.transactional_id_expiry),
            reply,
        };
        (request, answer)
    }

    fn ask(&self, request: Request) -> Result<(), AppendError> {
        let requests = self.requests.upgrade().ok_or(AppendError::Closed)?;
        let sent = requests.blocking_send(request);
        sent.map_err(|_| AppendError::Closed)
    }

    /// Told by the writer when the next transaction times out.
    pub fn transactions_due(&self, deadline_ms: Option<i64>) {
        let mut progress = self.progress();
        let sooner = match (deadline_ms, progress.deadline_ms) {
            (Some(new), Some(old)) => new < old,
            (new, _) => new.is_some(),
        };
        progress.deadline_ms = deadline_ms;
        if sooner {
            self.wake.notify_one();
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

    /// Has the writer sync the WAL.
    fn flush(&self) {
        self.progress().flush_at = None;
        // It fails when the log is being closed, which makes everything durable.
        let _ = self.ask(Request::Flush);
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
        let synced = sync_dirty(&*self.shared.storage, &self.shared.layout, &dirty);
        synced.map_err(|e| self.shared.fail(&e))?;
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
        self.ask(Request::entries(entries, reply))?;
        answer.blocking_recv().map_err(|_| AppendError::Closed)??;
        self.checkpoint()?;
        Ok(segments)
    }

    /// Waits until there is something to do.
    fn wait(&self, next_round: Instant) -> Due {
        let mut progress = self.progress();
        loop {
            let now = Instant::now();
            let to_round = next_round.saturating_duration_since(now);
            let to_flush = progress
                .flush_at
                .map(|at| at.saturating_duration_since(now));
            let to_time_out = progress.deadline_ms.map(|at| {
                let ms = at.saturating_sub(crate::wall_ms()).max(0);
                Duration::from_millis(ms.unsigned_abs())
            });
            if progress.closed {
                return Due::Closed;
            }
            if progress.due {
                return Due::Checkpoint;
            }
            if to_flush == Some(Duration::ZERO) {
                return Due::Flush;
            }
            if to_time_out == Some(Duration::ZERO) {
                return Due::TimeOut;
            }
            if to_round.is_zero() {
                return Due::Round;
            }
            let sooner = to_flush.into_iter().chain(to_time_out).min();
            let left = sooner.map_or(to_round, |left| left.min(to_round));
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
