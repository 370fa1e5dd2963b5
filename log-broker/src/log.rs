//! The handle of one open log.

use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::append::{Append, Slice, Submitted, check_alone, check_publication, check_slice};
use crate::compact::Compactor;
use crate::disk::Disk;
use crate::error::{AppendError, CompactError, Context, Damage, FetchError, OpenError};
use crate::fetch::{self, Fetched, Isolation, OffsetAtTime, Wish};
use crate::keeper::{Keeper, KeeperOptions};
use crate::layout::Layout;
use crate::limits;
use crate::options::LogOptions;
use crate::range::Batches;
use crate::recovery::recover;
use crate::shared::Shared;
use crate::storage::Storage;
use crate::tables::Tables;
use crate::view::{Untouched, view};
use crate::wal::{Entry, Wal, WalFiles};
use crate::watch::Watch;
use crate::writer::{AppendRequest, Appended, Request, Run, Writer};

/// The queue counts bytes in units of this, for a semaphore counts to 2³² at most.
const PERMIT_BYTES: usize = 1024;

/// One open log. Share it with [`Arc`]; dropping the last one closes it.
///
/// Everything that reads works on a damaged log and after a disk error too.
pub struct Log {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    compactor: Arc<Compactor>,
    files: Arc<WalFiles>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// Bytes that may wait.
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    append_bytes_max: usize,
    /// Held by whoever changes a topic's options.
    pub(crate) altering: tokio::sync::Mutex<()>,
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dir = &self.shared.layout.dir;
        f.debug_struct("Log")
            .field("dir", dir)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in a folder of the machine's file system, and creates it if there is none.
    ///
    /// Blocks: about 50 ms for a new log, and after a crash about a second for each GiB of WAL.
    ///
    /// # Errors
    /// [`OpenError`]. A log with damaged records opens, read-only: see [`Log::damage`].
    pub fn open(options: LogOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(Disk), options)
    }

    /// As [`Log::open`], on any storage.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Arc<Self>, OpenError> {
        options.check()?;
        let keeping = KeeperOptions::of(&options);
        let timeout_max_ms = timeout_max_ms(&options);
        let layout = Layout { dir: options.dir };
        let dir = &layout.dir;
        storage.create_dir(dir).during("create", dir)?;
        let lock = storage.lock(&layout.lock()).map_err(|e| {
            if e.kind() == std::io::ErrorKind::WouldBlock {
                return OpenError::Locked { dir: dir.clone() };
            }
            crate::error::DiskError::new("lock", &layout.lock(), e).into()
        })?;
        let recovered = recover(&*storage, &layout, options.wal_file_bytes)?;
        match &recovered.damage {
            Some(damage) => {
                tracing::error!(%damage, dir = %dir.display(), "the log is damaged: read-only");
            }
            None => tracing::info!(
                dir = %dir.display(),
                frames_replayed = recovered.frames,
                generation = recovered.identity.generation,
                "the log is open"
            ),
        }
        let shared = Shared::new(
            storage,
            layout,
            recovered.identity,
            recovered.tables,
            recovered.damage,
        );
        Self::start(Arc::new(shared), keeping, timeout_max_ms, Some(lock))
    }

    /// The log in a folder of the machine's file system as it stands now, to read: also one that
    /// another process has open. What is appended later is not seen. Nothing is written, and
    /// appends are refused.
    ///
    /// After a loss of power open the log before: what was acknowledged last may be in the WAL
    /// alone, and reads of that fail here.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn view(dir: impl Into<std::path::PathBuf>) -> Result<Arc<Self>, OpenError> {
        Self::view_on(Arc::new(Disk), dir)
    }

    /// As [`Log::view`], on any storage.
    ///
    /// # Errors
    /// As [`Log::view`].
    pub fn view_on(
        storage: Arc<dyn Storage>,
        dir: impl Into<std::path::PathBuf>,
    ) -> Result<Arc<Self>, OpenError> {
        let storage: Arc<dyn Storage> = Arc::new(Untouched(storage));
        let layout = Layout { dir: dir.into() };
        let seen = view(&*storage, &layout)?;
        let options = LogOptions::new(&layout.dir);
        let keeping = KeeperOptions::of(&options);
        let shared = Shared::new(storage, layout, seen.identity, seen.tables, seen.damage);
        Self::start(Arc::new(shared), keeping, timeout_max_ms(&options), None)
    }

    fn start(
        shared: Arc<Shared>,
        keeping: KeeperOptions,
        timeout_max_ms: u32,
        lock: Option<Box<dyn Send + Sync>>,
    ) -> Result<Arc<Self>, OpenError> {
        let writable = lock.is_some();
        let (sender, receiver) = mpsc::channel(limits::QUEUE_REQUESTS_MAX);
        let identity = shared.identity;
        let files = Arc::new(WalFiles::new(
            shared.storage.clone(),
            shared.layout.clone(),
            identity.wal_file_bytes,
        ));
        let position = shared.tables().position;
        let keeper = Arc::new(Keeper::new(
            shared.clone(),
            files.clone(),
            keeping,
            sender.downgrade(),
            position,
        ));
        let compactor = Arc::new(Compactor::new(
            shared.clone(),
            sender.downgrade(),
            keeping.interval,
        ));
        let wal = Wal::new(files.clone(), identity.seed, identity.generation, position);
        let log = Self {
            append_bytes_max: wal.body_max().min(limits::APPEND_BYTES_MAX),
            shared: shared.clone(),
            keeper: keeper.clone(),
            compactor: compactor.clone(),
            files: files.clone(),
            requests: Mutex::new(None),
            room: Arc::new(Semaphore::new(limits::QUEUE_BYTES_MAX / PERMIT_BYTES)),
            threads: Mutex::default(),
            altering: tokio::sync::Mutex::default(),
            lock: Mutex::new(lock),
        };
        // Without the lock it is only looked at.
        if shared.damage.is_none() && writable {
            // Every old WAL file is below the new checkpoint.
            files.release_below(position)?;
            files.want(position / identity.wal_file_bytes);
            let writer = Writer {
                shared,
                wal,
                keeper: keeper.clone(),
                wall_ms: crate::wall_ms,
                timeout_max_ms,
                producers_since: 0,
                requests: receiver,
                dirty_files: 0,
            };
            log.spawn("log-writer", move || writer.run())?;
            log.spawn("log-keeper", move || keeper.run())?;
            log.spawn("log-wal", move || files.run())?;
            log.spawn("log-compactor", move || compactor.run())?;
            *lock_of(&log.requests) = Some(sender);
        }
        Ok(Arc::new(log))
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let handle = thread.spawn(body);
        let dir = &self.shared.layout.dir;
        lock_of(&self.threads).push(handle.during("start a thread for", dir)?);
        Ok(())
    }

    /// Appends batches; returns when they are durable and visible.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then, but after [`AppendError::Failed`] that is not
    /// known until the log is opened again.
    ///
    /// # Cancellation
    /// Once the future has been polled, dropping it leaves it unknown whether the batches are
    /// stored.
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.submit(append).await?.await
    }

    /// Hands batches to the writer; returns when they have their place in its queue, behind
    /// everything that was submitted before. The answer tells when they are durable and visible.
    ///
    /// # Errors
    /// What can be told without the writer; nothing is stored then.
    ///
    /// # Cancellation
    /// Once the future has been polled, dropping it leaves it unknown whether the batches are
    /// stored.
    pub async fn submit(&self, append: Append) -> Result<Submitted, AppendError> {
        self.shared.check_writable()?;
        let runs = self.check(&append)?;
        let permits = append.buffer.len().div_ceil(PERMIT_BYTES).max(1) as u32;
        let room = self.room.clone().acquire_many_owned(permits);
        let permit = room.await.map_err(|_| AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(AppendRequest {
            buffer: append.buffer,
            runs,
            publication: append.publication,
            reply,
            permit,
        }))
        .await?;
        Ok(Submitted { answer })
    }

    /// Checks everything that can be checked without the writer.
    fn check(&self, append: &Append) -> Result<Vec<Run>, AppendError> {
        let bytes = append.buffer.len();
        if bytes > self.append_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                limit: self.append_bytes_max,
            });
        }
        let mut rest = append.buffer.as_slice();
        let mut runs = Vec::with_capacity(append.slices.len());
        for slice in &append.slices {
            let data = rest.split_at_checked(slice.bytes);
            let (data, tail) = data.ok_or_else(|| {
                AppendError::Invalid("the slices are longer than the buffer".to_owned())
            })?;
            rest = tail;
            runs.push(check_slice(slice, data, self.max_message_bytes(slice)?)?);
        }
        if !rest.is_empty() || (append.slices.is_empty() && append.publication.is_none()) {
            let text = format!("{} bytes of the buffer are in no slice", rest.len());
            return Err(AppendError::Invalid(text));
        }
        check_alone(append, &runs)?;
        check_publication(append.publication.as_ref(), &runs)?;
        Ok(runs)
    }

    fn max_message_bytes(&self, slice: &Slice) -> Result<u32, AppendError> {
        let tables = self.shared.tables();
        let topic = tables.topics.get(&slice.topic);
        let limit = topic.map(|t| t.options.max_message_bytes);
        limit.ok_or_else(|| AppendError::Unknown {
            topic: slice.topic.clone(),
            partition: slice.partition,
        })
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.shared.tables()
    }

    pub(crate) fn check_writable(&self) -> Result<(), AppendError> {
        self.shared.check_writable()
    }

    pub(crate) async fn send(&self, request: Request) -> Result<(), AppendError> {
        let requests = lock_of(&self.requests).clone();
        let requests = requests.ok_or(AppendError::Closed)?;
        let sent = requests.send(request).await;
        sent.map_err(|_| AppendError::Closed)
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Makes changes durable, all or none.
    pub(crate) async fn change(&self, entries: Vec<Entry>) -> Result<(), AppendError> {
        self.shared.check_writable()?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::entries(entries, reply)).await?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Record batches from the one that holds `offset` on, as they were appended: at most
    /// `max_bytes`, but at least one batch if there is one. Their checksums have been verified.
    ///
    /// Blocks on the disk when the range is not in the page cache.
    ///
    /// # Errors
    /// [`FetchError`]; nothing that is damaged is ever returned.
    pub fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Fetched, FetchError> {
        let all = Isolation::Uncommitted;
        self.fetch_isolated(topic, partition, offset, max_bytes, all)
    }

    /// As [`Log::fetch`], for readers of committed records too: those get no batch from the last
    /// stable offset on, and are told which transactions among the batches were aborted.
    ///
    /// # Errors
    /// As [`Log::fetch`].
    pub fn fetch_isolated(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        let wish = Wish::new(topic, partition, offset, isolation);
        wish.fetch(&self.shared, max_bytes, None)
    }

    /// As [`Log::fetch_isolated`], for a server: batches of which there are many, and which this
    /// process has checked before, stay in their file.
    ///
    /// Blocks on the disk less than the other one, and sending what it answers does instead.
    ///
    /// # Errors
    /// As [`Log::fetch`].
    pub fn fetch_in_file(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Fetched<Batches>, FetchError> {
        let wish = Wish::new(topic, partition, offset, isolation);
        wish.fetch(&self.shared, max_bytes, Some(Batches::InFile))
    }

    /// The offset before which no transaction is open: the end for readers of committed records.
    ///
    /// # Errors
    /// When the partition does not exist.
    pub fn last_stable_offset(&self, topic: &str, partition: u32) -> Result<i64, FetchError> {
        fetch::last_stable_offset(&self.shared, topic, partition)
    }

    /// The first record that is not older than `timestamp` (ms), if there is one.
    ///
    /// # Errors
    /// As [`Log::fetch`].
    pub fn offset_at_time(
        &self,
        topic: &str,
        partition: u32,
        timestamp: i64,
    ) -> Result<Option<OffsetAtTime>, FetchError> {
        fetch::offset_at_time(&self.shared, topic, partition, timestamp)
    }

    /// The newest epoch that has appended as `publisher`.
    pub fn publisher_epoch(&self, publisher: &str) -> Option<i64> {
        let tables = self.shared.tables();
        tables.publishers.get(publisher).map(|p| p.epoch())
    }

    /// The log's own id: another one for each log that is created.
    pub fn id(&self) -> uuid::Uuid {
        self.shared.identity.log_id
    }

    /// Counts sync groups: it changes whenever something new has become visible.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Watches some partitions, which need not exist. Unlike [`Log::version`] it says nothing of
    /// the others.
    pub fn watch(&self, partitions: Vec<(Arc<str>, u32)>) -> Watch {
        self.shared.watchers.watch(partitions)
    }

    /// Whether appends are taken at all: not by a log that is damaged, or that stopped after a disk
    /// error.
    ///
    /// # Errors
    /// Why not.
    pub fn writable(&self) -> Result<(), AppendError> {
        self.shared.check_writable()
    }

    /// What was found damaged when the log was opened. Then it is read-only.
    pub fn damage(&self) -> Option<&Damage> {
        self.shared.damage.as_ref()
    }

    /// Most bytes of one append.
    pub fn append_bytes_max(&self) -> usize {
        // A frame also holds its entries.
        self.append_bytes_max
    }

    /// Makes a checkpoint now. Blocks, so not to be called from async code.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn checkpoint(&self) -> Result<(), AppendError> {
        self.keeper.checkpoint()
    }

    /// Applies retention as of `now_ms`; answers how many segments went. Blocks, so not to be
    /// called from async code.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn retain(&self, now_ms: i64) -> Result<usize, AppendError> {
        self.keeper.retain(now_ms)
    }

    /// Compacts, as of `now_ms`, every partition for which it is time, as is done in the background
    /// anyway; answers how many bytes went. Blocks, so not to be called from async code.
    ///
    /// # Errors
    /// [`CompactError`]: of the first partition that could not be compacted. The others were.
    pub fn compact(&self, now_ms: i64) -> Result<u64, CompactError> {
        self.compactor.compact(now_ms)
    }

    /// Finishes what waits, makes a checkpoint and gives the folder free. Blocks. Reads still
    /// work; every later append is refused.
    pub fn close(&self) {
        self.compactor.close();
        drop(lock_of(&self.requests).take());
        let threads = std::mem::take(&mut *lock_of(&self.threads));
        // The writer first: it ends when it has served what waits, and may need the others.
        for (n, thread) in threads.into_iter().enumerate() {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
            if n == 0 {
                if let Err(error) = self.keeper.checkpoint() {
                    tracing::warn!(%error, "no checkpoint at the end: the WAL will be replayed");
                }
                self.keeper.close();
                self.files.close();
            }
        }
        drop(lock_of(&self.lock).take());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

fn timeout_max_ms(options: &LogOptions) -> u32 {
    let ms = options.transaction_timeout_max.as_millis();
    ms.try_into().unwrap_or(u32::MAX)
}

fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
