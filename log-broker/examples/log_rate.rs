//! What a large log costs: to append to, to open after a crash, and to read through.
//!
//! ```text
//! cargo run --release -p outbox-log-broker --example log_rate fill FOLDER PARTITIONS MIB
//! cargo run --release -p outbox-log-broker --example log_rate read FOLDER
//! ```
//!
//! `fill` ends without closing the log, as a killed process does.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{Append, Log, LogOptions, Slice, TopicOptions};
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TOPIC: &str = "orders.placed";
const MIB: usize = 1024 * 1024;
/// Bytes of one append, over all the partitions that it goes to.
const APPEND_BYTES: usize = MIB;
/// Bytes of a batch.
const BATCH_BYTES: usize = 16 * 1024;
const VALUE_BYTES: usize = 1024;
/// Appends under way at a time.
const IN_FLIGHT: usize = 8;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["fill", dir, partitions, mib] => fill(dir, partitions.parse()?, mib.parse()?),
        ["read", dir] => read(dir),
        _ => Err("usage: log_rate fill FOLDER PARTITIONS MIB | log_rate read FOLDER".into()),
    }
}

fn fill(dir: &str, partitions: u32, mib: usize) -> Result<()> {
    let log = Log::open(LogOptions::new(dir))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let options = TopicOptions {
        partitions,
        ..TopicOptions::default()
    };
    runtime.block_on(log.create_topic(TOPIC, options))?;
    let batch = batch();
    let (start, cpu) = (Instant::now(), cpu());
    let each = mib / IN_FLIGHT;
    runtime.block_on(async {
        let work = (0..IN_FLIGHT).map(|n| append(log.clone(), &batch, n, partitions, each));
        futures(work).await
    })?;
    report("appended", mib, start, cpu);
    println!("resident {} MiB", resident_mib());
    // As kill -9 does: nothing is closed, no checkpoint is made.
    std::process::exit(0);
}

async fn futures(work: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    let mut work: Vec<_> = work.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        work.retain_mut(|w| w.as_mut().poll(cx).is_pending());
        match work.is_empty() {
            true => std::task::Poll::Ready(Ok(())),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

async fn append(
    log: Arc<Log>,
    batch: &[u8],
    n: usize,
    partitions: u32,
    appends: usize,
) -> Result<()> {
    let topic: Arc<str> = TOPIC.into();
    let mut next = n as u32;
    let mut buffer = Vec::new();
    for _ in 0..appends {
        buffer.clear();
        let mut slices = Vec::new();
        while buffer.len() < APPEND_BYTES {
            buffer.extend_from_slice(batch);
            slices.push(Slice {
                topic: topic.clone(),
                partition: next % partitions,
                bytes: batch.len(),
            });
            next = next.wrapping_add(1);
        }
        let append = Append {
            buffer,
            slices,
            publication: None,
        };
        buffer = log.append(append).await?.buffer;
    }
    Ok(())
}

fn batch() -> Vec<u8> {
    let mut buffer = Vec::new();
    let none = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(&mut buffer);
    let mut value = vec![0; VALUE_BYTES];
    while encoder.bytes() < BATCH_BYTES {
        value.fill(encoder.records() as u8);
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000,
            key: Some(b"a-key"),
            value: Some(&value),
            shared: &none,
            own: &none,
        });
    }
    encoder.finish();
    buffer
}

fn read(dir: &str) -> Result<()> {
    let start = Instant::now();
    let log = Log::open(LogOptions::new(dir))?;
    println!("opened in {:.0} ms", ms(start.elapsed()));
    println!("resident {} MiB", resident_mib());
    let partitions = log.topic(TOPIC).ok_or("there is no such topic")?.partitions;
    for round in ["the first time", "again"] {
        let (start, cpu) = (Instant::now(), cpu());
        let mut bytes = 0;
        for partition in 0..partitions {
            bytes += read_partition(&log, partition)?;
        }
        report(&format!("read {round}"), bytes / MIB, start, cpu);
    }
    println!("resident {} MiB", resident_mib());
    let start = Instant::now();
    log.checkpoint()?;
    println!("checkpoint in {:.0} ms", ms(start.elapsed()));
    let state = std::fs::metadata(std::path::Path::new(dir).join("state"))?;
    println!("checkpoint of {} KiB", state.len() / 1024);
    Ok(())
}

fn read_partition(log: &Log, partition: u32) -> Result<usize> {
    let (mut offset, end) = log.offsets(TOPIC, partition)?;
    let mut bytes = 0;
    while offset < end {
        let fetched = log.fetch(TOPIC, partition, offset, MIB)?;
        bytes += fetched.batches.len();
        let mut rest = &fetched.batches[..];
        while let Ok(header) = outbox_log_broker::batch::BatchHeader::parse(rest) {
            offset = header.next_offset();
            rest = &rest[header.bytes..];
        }
    }
    Ok(bytes)
}

fn report(what: &str, mib: usize, start: Instant, cpu_before: Duration) {
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu() - cpu_before);
    println!(
        "{what}: {mib} MiB in {wall:.2} s, {:.0} MiB/s, {:.0} ms of CPU a GiB",
        mib as f64 / wall,
        ms(cpu) * 1024.0 / mib as f64
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
