//! Writes `fixture.bin` and the first inputs of each target. To be run when what they are made of
//! changes: `cargo run --bin seeds`, in this folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use outbox_fuzz::fixture::{DIR, WAL_FILE_BYTES, pack};
use outbox_fuzz::memory::Memory;
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use outbox_log_broker::{
    Append, Cleanup, Log, LogOptions, OffsetCommit, Publication, Sequence, Slice, TopicOptions,
};
use proto_kafka::messages::*;
use proto_kafka::protocol::{Encodable, Request, StrBytes};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(here.join("fixture.bin"), runtime.block_on(fixture())?)?;
    let corpus = here.join("corpus");
    for target in ["request", "connection", "batch", "storage"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    requests(&corpus)?;
    fs::write(corpus.join("batch/plain"), batch(3, None))?;
    fs::write(corpus.join("batch/producer"), batch(2, Some((7, 0, 4))))?;
    fs::write(corpus.join("storage/nothing"), [0])?;
    fs::write(corpus.join("storage/sealed"), [1])?;
    for file in 0..8_u8 {
        fs::write(
            corpus.join(format!("storage/cut-{file}")),
            [0, file, 0, 200, 0],
        )?;
        let edit = [1, file, 4, 100, 0, b'1', b'2', b'3', b'4'];
        fs::write(corpus.join(format!("storage/edit-{file}")), edit)?;
    }
    Ok(())
}

/// A log as it is after a kill.
async fn fixture() -> Result<Vec<u8>, Failure> {
    let memory = Memory::default();
    let options = LogOptions {
        wal_file_bytes: WAL_FILE_BYTES,
        ..LogOptions::new(DIR)
    };
    let log = Log::open_on(Arc::new(memory.clone()), options)?;
    let topic = |cleanup| TopicOptions {
        partitions: 2,
        segment_bytes: 1024,
        cleanup,
        ..TopicOptions::default()
    };
    log.create_topic("orders", topic(Cleanup::Delete)).await?;
    log.create_topic("prices", topic(Cleanup::Compact)).await?;
    let (id, mut sequence) = (log.init_producer(None, 0, None).await?, 0);
    for n in 0..12 {
        log.append(one("orders", n % 2, batch(2, None))).await?;
        let stamped = batch(1, Some((id.id, id.epoch, sequence)));
        log.append(one("prices", 0, stamped)).await?;
        sequence += 1;
        if n == 5 {
            log.commit("billing", &[OffsetCommit::new("orders".into(), 0, 3)])
                .await?;
            log.checkpoint()?;
        }
    }
    let transaction = log.init_producer(Some("payments"), 60_000, None).await?;
    log.transaction_add_partitions("payments", transaction, &[("orders".into(), 1)])
        .await?;
    let mut published = one("orders", 0, batch(1, None));
    published.publication = Some(Publication {
        publisher: "relay".into(),
        epoch: 3,
        low_water: 1,
        sequences: vec![Sequence {
            seq: 9,
            redelivery: 0,
        }],
        done: Some((1, 9)),
        except: vec![(3, 4)],
    });
    log.append(published).await?;
    // What is there now is what a kill leaves.
    let files: Vec<_> = memory
        .files()
        .into_iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    Ok(pack(&files))
}

fn one(topic: &str, partition: u32, buffer: Vec<u8>) -> Append {
    let slice = Slice {
        topic: topic.into(),
        partition,
        bytes: buffer.len(),
    };
    Append {
        buffer,
        slices: vec![slice],
        publication: None,
    }
}

fn batch(records: usize, producer: Option<(i64, i16, i32)>) -> Vec<u8> {
    let (mut batch, none, mut own) = (Vec::new(), HeaderBlock::default(), HeaderBlock::default());
    own.push("ce_id", b"0198");
    let mut encoder = BatchEncoder::begin(&mut batch);
    for n in 0..records {
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000 + n as i64,
            key: Some(format!("key-{n}").as_bytes()),
            value: Some(&[b'v'; 100]),
            shared: &none,
            own: &own,
        });
    }
    encoder.finish();
    if let Some((id, epoch, sequence)) = producer {
        batch[43..51].copy_from_slice(&id.to_be_bytes());
        batch[51..53].copy_from_slice(&epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

/// Requests as they are without any content, in the order of the broker's table: its first version, and
/// the first and the last that is written here.
macro_rules! write_requests {
    ($corpus:expr, $($request:ident $first:literal $min:literal $max:literal,)*) => {{
        let mut index = 0_u8;
        $(
            for version in [$min, $max] {
                let name = format!("{}-{version}", stringify!($request));
                let (body, frame) = encoded(&$request::default(), version)?;
                let chosen = [index, (version - $first) as u8];
                fs::write($corpus.join("request").join(&name), [&chosen, &body[..]].concat())?;
                fs::write($corpus.join("connection").join(&name), frame)?;
            }
            index += 1;
        )*
        let _ = index;
    }};
}

/// The body alone, and the whole frame.
fn encoded<R: Request>(request: &R, version: i16) -> Result<(BytesMut, BytesMut), Failure> {
    let (mut body, mut all, mut frame) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    request.encode(&mut body, version)?;
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("seed")));
    header.encode(&mut all, R::header_version(version))?;
    all.extend_from_slice(&body);
    frame.put_u32(all.len() as u32);
    frame.extend_from_slice(&all);
    Ok((body, frame))
}

fn requests(corpus: &Path) -> Result<(), Failure> {
    write_requests!(
        corpus,
        ProduceRequest 0 3 9,
        FetchRequest 4 4 12,
        ListOffsetsRequest 1 1 7,
        MetadataRequest 0 0 11,
        OffsetCommitRequest 2 2 8,
        OffsetFetchRequest 1 1 8,
        FindCoordinatorRequest 0 0 4,
        JoinGroupRequest 0 0 7,
        HeartbeatRequest 0 0 4,
        LeaveGroupRequest 0 0 4,
        SyncGroupRequest 0 0 5,
        DescribeGroupsRequest 0 0 5,
        ListGroupsRequest 0 0 4,
        SaslHandshakeRequest 0 0 1,
        ApiVersionsRequest 0 0 4,
        InitProducerIdRequest 0 0 4,
        AddPartitionsToTxnRequest 0 0 3,
        AddOffsetsToTxnRequest 0 0 3,
        EndTxnRequest 0 0 3,
        TxnOffsetCommitRequest 0 0 3,
        SaslAuthenticateRequest 0 0 2,
        DeleteGroupsRequest 0 0 2,
        OffsetDeleteRequest 0 0 0,
        CreateTopicsRequest 2 2 7,
        DeleteTopicsRequest 1 1 6,
        DeleteRecordsRequest 0 0 2,
        OffsetForLeaderEpochRequest 2 2 4,
        DescribeConfigsRequest 1 1 4,
        AlterConfigsRequest 0 0 2,
        DescribeLogDirsRequest 1 1 4,
        CreatePartitionsRequest 0 0 3,
        IncrementalAlterConfigsRequest 0 0 1,
        ListPartitionReassignmentsRequest 0 0 0,
        DescribeClusterRequest 0 0 1,
        DescribeProducersRequest 0 0 0,
        DescribeTransactionsRequest 0 0 0,
        ListTransactionsRequest 0 0 1,
    );
    Ok(())
}
