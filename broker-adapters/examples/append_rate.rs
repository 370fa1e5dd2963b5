//! How fast one relay can publish to the bundled log, and where the time goes.
//!
//! `cargo run --release -p outbox-broker-adapters --example append_rate [folder] [batches]`
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_broker_adapters::{LogBroker, LogBrokerOptions};
use outbox_core::{Batch, Broker, Fence, Pending};
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{Append, Disk, Log, LogOptions, Mode, Slice, Storage, TopicOptions};

/// Messages of a batch: a relay's page.
const BATCH: i64 = 8_192;
const PAYLOAD_BYTES: usize = 200;
const KEYS: u64 = 10_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let given = args.next().map(std::path::PathBuf::from);
    let batches: i64 = args.next().map_or(Ok(100), |n| n.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = given.unwrap_or_else(|| temporary.path().to_owned());
    for partitions in [1, 4, 16] {
        published(&dir, partitions, batches).await?;
    }
    appended(&dir, batches).await?;
    encoded(batches);
    written(&dir, batches)?;
    Ok(())
}

/// Everything: placing, encoding, appending, syncing.
async fn published(dir: &std::path::Path, partitions: u32, batches: i64) -> Result<()> {
    let log = Log::open(LogOptions::new(dir.join(format!("log-{partitions}"))))?;
    let options = LogBrokerOptions {
        partitions,
        ..LogBrokerOptions::default()
    };
    let broker = LogBroker::with_options(log, options);
    let topic: Arc<str> = "orders.placed".into();
    let json: Arc<str> = "application/json".into();
    let keys: Vec<Arc<str>> = (0..KEYS).map(|n| format!("customer-{n}").into()).collect();
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let (mut busy, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for n in 0..batches {
        let seqs = 1 + n * BATCH..=(n + 1) * BATCH;
        let message = |seq: i64| Pending {
            seq,
            id: uuid::Uuid::now_v7(),
            topic: topic.clone(),
            key: Some(keys[(seq as u64).wrapping_mul(0x9e37_79b9) as usize % keys.len()].clone()),
            payload: payload.clone(),
            content_type: json.clone(),
            headers: None,
            created_at: chrono::Utc::now(),
            deliver_after: None,
            expires_at: None,
            late: false,
            attempts: 0,
            redelivery: 0,
        };
        let batch = Batch {
            fence: Fence {
                incarnation: "system-1-16384".into(),
                destination: "orders".into(),
                epoch: 1,
            },
            messages: seqs.clone().map(message).collect(),
            low_water: *seqs.start(),
            range: Some((*seqs.start(), *seqs.end())),
            except: Vec::new(),
        };
        let start = Instant::now();
        broker.publish(&batch).await?;
        busy += start.elapsed();
        slowest = slowest.max(start.elapsed());
    }
    report(
        &format!("publish, {partitions} partitions"),
        batches,
        busy,
        slowest,
    );
    Ok(())
}

/// Appending and syncing alone: batches that are encoded already.
async fn appended(dir: &std::path::Path, batches: i64) -> Result<()> {
    let log = Log::open(LogOptions::new(dir.join("log-append")))?;
    log.create_topic("orders.placed", TopicOptions::default())
        .await?;
    let mut buffer = Vec::new();
    let (mut busy, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..batches {
        buffer.clear();
        let mut slices = Vec::new();
        for partition in 0..16 {
            let bytes = encode(&mut buffer, BATCH / 16);
            slices.push(Slice {
                topic: "orders.placed".into(),
                partition,
                bytes,
            });
        }
        let append = Append {
            buffer,
            slices,
            publication: None,
        };
        let start = Instant::now();
        buffer = log.append(append).await?.buffer;
        busy += start.elapsed();
        slowest = slowest.max(start.elapsed());
    }
    report(
        "append of encoded batches, 16 partitions",
        batches,
        busy,
        slowest,
    );
    Ok(())
}

/// Encoding alone, checksum included.
fn encoded(batches: i64) {
    let mut buffer = Vec::new();
    let start = Instant::now();
    for _ in 0..batches {
        buffer.clear();
        for _ in 0..16 {
            encode(&mut buffer, BATCH / 16);
        }
    }
    report("encode alone", batches, start.elapsed(), Duration::ZERO);
    println!("{:>48} {} bytes a batch", "", buffer.len());
}

fn encode(buffer: &mut Vec<u8>, records: i64) -> usize {
    let payload = [b'x'; PAYLOAD_BYTES];
    let mut headers = HeaderBlock::default();
    for (name, bytes) in [("ce_specversion", 3), ("ce_type", 13), ("ce_source", 6)] {
        headers.push(name, &[b'x'; 64][..bytes]);
    }
    headers.push("content-type", b"application/json");
    let mut own = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(buffer);
    for n in 0..records {
        own.clear();
        own.push("ce_id", &[b'x'; 36]);
        own.push("ce_time", &[b'x'; 27]);
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000 + n / 8,
            key: Some(b"customer-1234"),
            value: Some(&payload),
            shared: &headers,
            own: &own,
        });
    }
    encoder.finish().bytes
}

/// What the disk does with the same bytes: one write and one sync to a zero-filled file.
fn written(dir: &std::path::Path, batches: i64) -> Result<()> {
    let mut bytes = Vec::new();
    encode(&mut bytes, BATCH);
    let file = Disk.open(&dir.join("raw"), Mode::Truncate)?;
    let slots = 8;
    for slot in 0..slots {
        file.write_at(&[IoSlice::new(&bytes)], slot * bytes.len() as u64)?;
    }
    file.sync()?;
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in 0..batches as u64 {
        let at = Instant::now();
        file.write_at(&[IoSlice::new(&bytes)], n % slots * bytes.len() as u64)?;
        file.sync()?;
        slowest = slowest.max(at.elapsed());
    }
    report(
        "write and fdatasync alone",
        batches,
        start.elapsed(),
        slowest,
    );
    Ok(())
}

fn report(what: &str, batches: i64, busy: Duration, slowest: Duration) {
    let rate = (batches * BATCH) as f64 / busy.as_secs_f64();
    let each = busy.as_secs_f64() * 1000.0 / batches as f64;
    let slowest = slowest.as_secs_f64() * 1000.0;
    println!("{what:>48}: {rate:>12.0} records/s, {each:.2} ms a batch, slowest {slowest:.1} ms");
}
