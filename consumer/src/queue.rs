//! The bounded queue in front of each worker.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outbox_core::Record;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::limits;
use crate::progress::Progress;

/// A record on its way to its handler.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) record: Arc<Record>,
    /// The id under which it is accepted.
    pub(crate) id: Uuid,
    /// Which handler, by the order in which they were added.
    pub(crate) handler: usize,
    /// Its partition.
    pub(crate) progress: SharedProgress,
}

impl Item {
    fn bytes(&self) -> usize {
        self.record.payload.len() + self.record.key.as_ref().map_or(0, |key| key.len())
    }
}

/// One partition's progress: the reader hands out, the workers finish.
#[derive(Clone)]
pub(crate) struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    pub(crate) fn new(start: i64) -> Self {
        Self(Arc::new(Mutex::new(Progress::new(start))))
    }

    /// Held for a few instructions, never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of `workers` applies `record`: records of one key share a worker, whatever their topic;
/// records without a key are spread evenly. The same record always gets the same answer.
pub(crate) fn worker_of(record: &Record, workers: usize) -> usize {
    match &record.key {
        Some(key) => {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            (hasher.finish() % workers as u64) as usize
        }
        None => record.offset.unsigned_abs() as usize % workers,
    }
}

/// A new queue of so many records; `room` is told whenever the reader may be able to go on.
pub(crate) fn queue(records: usize, room: Arc<Notify>) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(records);
    let state = Arc::new(State {
        bytes: AtomicUsize::new(0),
        stalled: AtomicBool::new(false),
        room,
    });
    let sender = QueueSender {
        sender,
        state: state.clone(),
    };
    (sender, QueueReceiver { receiver, state })
}

struct State {
    bytes: AtomicUsize,
    stalled: AtomicBool,
    room: Arc<Notify>,
}

/// The reader's end.
pub(crate) struct QueueSender {
    sender: mpsc::Sender<Item>,
    state: Arc<State>,
}

impl QueueSender {
    /// Whether one more item fits. Only the reader adds, so that the answer holds until it does.
    pub(crate) fn fits(&self, item: &Item) -> bool {
        let bytes = self.state.bytes.load(Ordering::Relaxed);
        let fits = bytes == 0 || bytes + item.bytes() <= limits::QUEUE_BYTES_MAX;
        fits && self.sender.capacity() > 0
    }

    /// Adds an item that fits.
    pub(crate) fn push(&self, item: Item) {
        self.state.bytes.fetch_add(item.bytes(), Ordering::Relaxed);
        // It fails only when the worker has ended, and then the whole run ends: the item is read
        // again by the next one.
        let _ = self.sender.try_send(item);
    }

    /// Whether it is at most half full: a worker that is behind is worth a look at the source.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.sender.capacity() >= self.sender.max_capacity().div_ceil(2)
            && self.state.bytes.load(Ordering::Relaxed) <= limits::QUEUE_BYTES_MAX / 2
    }

    /// Whether its worker waits for a retry, so that the reader should go on without it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.state.stalled.load(Ordering::Relaxed)
    }
}

/// The worker's end.
pub(crate) struct QueueReceiver {
    receiver: mpsc::Receiver<Item>,
    state: Arc<State>,
}

impl QueueReceiver {
    /// The next items, at least one and at most `max`, in order; none when the reader has ended.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self, max: usize) -> Vec<Item> {
        let mut items = Vec::new();
        self.receiver.recv_many(&mut items, max).await;
        let bytes = items.iter().map(Item::bytes).sum();
        self.state.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.state.room.notify_one();
        items
    }

    /// Tells the reader that this worker waits for a retry, until the guard is dropped.
    pub(crate) fn stall(&self) -> Stall {
        self.state.stalled.store(true, Ordering::Relaxed);
        self.state.room.notify_one();
        Stall(self.state.clone())
    }
}

/// While it lives the worker counts as stalled.
pub(crate) struct Stall(Arc<State>);

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.stalled.store(false, Ordering::Relaxed);
        self.0.room.notify_one();
    }
}
