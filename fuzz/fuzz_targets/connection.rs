//! Bytes on a connection of a running broker; another connection must not notice.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use outbox_broker::{Broker, BrokerOptions};
use outbox_fuzz::fixture::{DIR, WAL_FILE_BYTES};
use outbox_fuzz::memory::Memory;
use outbox_log_broker::{Log, LogOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// ApiVersions, version 0.
const PROBE: &[u8] = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x07\xff\xff";
const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    runtime: Runtime,
    broker: Broker,
    probe: Mutex<TcpStream>,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (broker, probe) = runtime.block_on(async {
        let log_options = LogOptions {
            wal_file_bytes: WAL_FILE_BYTES,
            ..LogOptions::new(DIR)
        };
        let log = Log::open_on(Arc::new(Memory::default()), log_options.clone());
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = BrokerOptions::new(log_options, addr);
        options.connections_max = 20_000;
        options.topic.partitions = 1;
        let broker = Broker::start_on(log.expect("opens"), options).await;
        let broker = broker.expect("a broker");
        let probe = TcpStream::connect(broker.local_addr()).await;
        (broker, probe.expect("a connection"))
    });
    Served {
        runtime,
        broker,
        probe: Mutex::new(probe),
    }
});

fuzz_target!(
    init: outbox_fuzz::allow_allocations_up_to(64 << 20),
    |data: &[u8]| {
        let served = &*SERVED;
        let mut probe = served.probe.lock().expect("no panic");
        served.runtime.block_on(async {
            rude(served.broker.local_addr(), data).await;
            polite(&mut probe).await;
        });
    }
);

/// Sends the bytes and hangs up. What is answered meanwhile is read.
async fn rude(addr: SocketAddr, data: &[u8]) {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    // The broker may close before all is sent.
    let _ = stream.write_all(data).await;
    let mut answer = [0; 4096];
    let _ = timeout(Duration::from_millis(1), stream.read(&mut answer)).await;
}

async fn polite(probe: &mut TcpStream) {
    let answered = timeout(PATIENCE, async {
        probe.write_all(PROBE).await.expect("it takes a request");
        let length = probe.read_u32().await.expect("it answers");
        let mut answer = vec![0; length as usize];
        probe.read_exact(&mut answer).await.expect("all of it");
        assert_eq!(answer[..4], [0, 0, 0, 7]);
    });
    answered.await.expect("it answers in time");
}
