//! What clients see of a disk that is full, fails, or has become read-only.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};

use outbox_broker::Broker;
use outbox_log_broker::{Disk, File, Log, LogOptions, Mode, Storage, TopicOptions};

use crate::rig::{Client, TOPIC, batch, options, values};

const KAFKA_STORAGE_ERROR: i16 = 56;

/// What goes wrong with the disk, if anything does.
type Trouble = Arc<Mutex<Option<io::ErrorKind>>>;

/// The machine's disk, until there is trouble: then no write gets through.
#[derive(Clone, Default)]
struct Troubled {
    trouble: Trouble,
}

struct TroubledFile {
    trouble: Trouble,
    file: Arc<dyn File>,
}

fn check(trouble: &Trouble) -> io::Result<()> {
    match *trouble.lock().expect("no panic") {
        Some(kind) => Err(kind.into()),
        None => Ok(()),
    }
}

impl Troubled {
    fn set(&self, trouble: Option<io::ErrorKind>) {
        *self.trouble.lock().expect("no panic") = trouble;
    }
}

impl Storage for Troubled {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        check(&self.trouble)?;
        Disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        if mode != Mode::Read {
            check(&self.trouble)?;
        }
        Ok(Arc::new(TroubledFile {
            trouble: self.trouble.clone(),
            file: Disk.open(path, mode)?,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check(&self.trouble)?;
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        check(&self.trouble)?;
        Disk.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        check(&self.trouble)?;
        Disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        check(&self.trouble)?;
        Disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        check(&self.trouble)?;
        Disk.lock(path)
    }
}

impl File for TroubledFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        check(&self.trouble)?;
        self.file.write_at(parts, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check(&self.trouble)?;
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        check(&self.trouble)?;
        self.file.sync()
    }
}

/// Stores `before`, then lets `trouble` come; answers what is needed to go on.
async fn in_trouble(dir: &tempfile::TempDir, trouble: io::ErrorKind) -> (Troubled, Broker, Client) {
    let disk = Troubled::default();
    let log_options = LogOptions::new(dir.path().join("log"));
    let log = Log::open_on(Arc::new(disk.clone()), log_options).expect("opens");
    let one = TopicOptions {
        partitions: 1,
        ..TopicOptions::default()
    };
    log.create_topic(TOPIC, one).await.expect("a topic");
    let broker = Broker::start_on(log, options(dir)).await.expect("a broker");
    let mut client = Client::connect(broker.local_addr()).await;
    let before = client.produce(0, batch(&["before"])).await;
    assert_eq!((before.error_code, before.base_offset), (0, 0));
    disk.set(Some(trouble));
    for _ in 0..2 {
        let refused = client.produce(0, batch(&["lost"])).await;
        assert_eq!(refused.error_code, KAFKA_STORAGE_ERROR, "{trouble}");
        assert_eq!(refused.base_offset, -1);
        assert!(refused.error_message.is_some(), "{trouble}");
        let read = client.fetch(0, 0).await;
        assert_eq!(read.error_code, 0, "{trouble}");
        assert_eq!(values(&read), [(0, "before".to_owned())], "{trouble}");
    }
    (disk, broker, client)
}

#[tokio::test]
async fn a_full_disk_refuses_records_serves_readers_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a folder");
    let (disk, _broker, mut client) = in_trouble(&dir, io::ErrorKind::StorageFull).await;
    disk.set(None);
    let after = client.produce(0, batch(&["after"])).await;
    assert_eq!((after.error_code, after.base_offset), (0, 1));
}

#[tokio::test]
async fn a_disk_that_fails_or_is_read_only_refuses_records_until_the_next_start() {
    for trouble in [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        let dir = tempfile::tempdir().expect("a folder");
        let (disk, broker, mut client) = in_trouble(&dir, trouble).await;
        disk.set(None);
        // What the disk holds is not known any more: only recovery finds out.
        let refused = client.produce(0, batch(&["lost"])).await;
        assert_eq!(refused.error_code, KAFKA_STORAGE_ERROR, "{trouble}");
        assert!(broker.log().writable().is_err(), "{trouble}");
        broker.stop().await;
        let broker = Broker::start(options(&dir)).await.expect("starts again");
        let mut client = Client::connect(broker.local_addr()).await;
        let after = client.produce(0, batch(&["after"])).await;
        assert_eq!(after.error_code, 0, "{trouble}");
        let read = values(&client.fetch(0, 0).await);
        assert_eq!(read.first(), Some(&(0, "before".to_owned())), "{trouble}");
        let last = read.last().map(|(_, value)| value.as_str());
        assert_eq!(last, Some("after"), "{trouble}");
    }
}
