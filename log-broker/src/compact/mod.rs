//! Compaction: what makes room in topics whose records are replaced or expire.
//!
//! Only segments that are closed, stable and old enough are touched, always from the first on. What
//! is kept of them is written to a new file beside the old ones and synced; then one entry in the
//! WAL puts it in their place. Offsets stay as they are.

mod keys;
mod plan;
mod rewrite;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::error::{AppendError, CompactError};
use crate::reader::{ReadError, SegmentReader};
use crate::shared::Shared;
use crate::wal::Entry;
use crate::writer::Request;

use keys::Keys;
use plan::Plan;
use rewrite::{Rewriter, Rules};

/// Compacts the topics of one open log, in the background.
pub(crate) struct Compactor {
    shared: Arc<Shared>,
    /// Does not keep the writer alive.
    requests: mpsc::WeakSender<Request>,
    interval: Duration,
    closed: Mutex<bool>,
    wake: Condvar,
    /// One compaction at a time.
    running: Mutex<()>,
}

impl From<ReadError> for CompactError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk(error) => Self::Disk(error),
            ReadError::Damaged(damage) => Self::Damaged(damage),
        }
    }
}

impl Compactor {
    pub fn new(
        shared: Arc<Shared>,
        requests: mpsc::WeakSender<Request>,
        interval: Duration,
    ) -> Self {
        Self {
            shared,
            requests,
            interval,
            closed: Mutex::new(false),
            wake: Condvar::new(),
            running: Mutex::new(()),
        }
    }

    /// Compacts what is due in each interval until [`Compactor::close`]: the body of a thread.
    pub fn run(&self) {
        while self.wait() {
            if let Err(error) = self.compact(crate::wall_ms()) {
                tracing::warn!(%error, "compaction failed and is tried again later");
            }
        }
    }

    /// Ends [`Compactor::run`], when it has finished the segment it is at.
    pub fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn is_closed(&self) -> bool {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` when closed.
    fn wait(&self) -> bool {
        let until = Instant::now() + self.interval;
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *closed || left.is_zero() {
                return !*closed;
            }
            let woken = self.wake.wait_timeout(closed, left);
            closed = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Compacts every partition for which it is due at `now_ms`. Answers how many bytes went. A
    /// partition that cannot be compacted does not keep the others from it; the first error is
    /// answered.
    pub fn compact(&self, now_ms: i64) -> Result<u64, CompactError> {
        let _one = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let plans = {
            let tables = self.shared.tables();
            plan::due(&tables, now_ms)
        };
        let (mut freed, mut first_error) = (0, None);
        for plan in plans {
            match self.compact_partition(&plan, now_ms) {
                Ok(bytes) => freed += bytes,
                Err(error) => {
                    tracing::warn!(%error, topic = %plan.topic, partition = plan.partition,
                        "a partition cannot be compacted");
                    first_error.get_or_insert(error);
                }
            }
            if self.is_closed() {
                break;
            }
        }
        first_error.map_or(Ok(freed), Err)
    }

    fn compact_partition(&self, plan: &Plan, now_ms: i64) -> Result<u64, CompactError> {
        self.shared.check_writable()?;
        let keys = self.keys(plan)?;
        let mut freed = 0;
        for group in plan.groups(keys.upto()) {
            if plan.is_done(group, now_ms) {
                continue;
            }
            let rules = Rules {
                keys: &keys,
                plan,
                now_ms,
            };
            let rewriter = Rewriter::new(&self.shared, group, rules);
            let (segment, bytes) = rewriter.run()?;
            let path = segment.path(&plan.dir);
            if let Err(error) = self.replace(plan, segment) {
                // Not the file that is in use: that one was only looked through.
                if !group.iter().any(|s| s.path(&plan.dir) == path) {
                    let _ = self.shared.storage.remove(&path);
                }
                return Err(error.into());
            }
            freed += bytes;
            if self.is_closed() {
                break;
            }
        }
        Ok(freed)
    }

    /// The newest offset of each key in what was not compacted before.
    fn keys(&self, plan: &Plan) -> Result<Keys, CompactError> {
        let mut keys = Keys::new(plan.first_dirty());
        if !plan.by_key {
            keys.cover(plan.end());
            return Ok(keys);
        }
        for segment in plan.segments.iter().filter(|s| s.cleaned_to < s.end) {
            let storage = &*self.shared.storage;
            let mut reader = SegmentReader::open(storage, &plan.dir, segment)?;
            while let Some((header, batch)) = reader.next()? {
                if plan.is_aborted(&header) || header.next_offset() <= segment.cleaned_to {
                    continue;
                }
                match keys.note(&header, batch) {
                    Ok(true) => {}
                    Ok(false) => return Ok(keys),
                    Err(problem) => return Err(reader.damage(problem.to_string()).into()),
                }
            }
            keys.cover(segment.end);
        }
        Ok(keys)
    }

    /// Puts a segment in the place of those that it was made of.
    fn replace(
        &self,
        plan: &Plan,
        segment: crate::partition::SegmentState,
    ) -> Result<(), AppendError> {
        let entry = Entry::Compacted {
            topic: plan.topic.clone(),
            id: plan.id,
            partition: plan.partition,
            segment,
        };
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.upgrade().ok_or(AppendError::Closed)?;
        let sent = requests.blocking_send(Request::entries(vec![entry], reply));
        sent.map_err(|_| AppendError::Closed)?;
        answer.blocking_recv().map_err(|_| AppendError::Closed)?
    }
}

impl From<crate::error::Damage> for CompactError {
    fn from(damage: crate::error::Damage) -> Self {
        Self::Damaged(damage)
    }
}
