//! Writes `fixture.bin` and the first inputs of each target. To be run when what they are made of
//! changes: `cargo run --bin seeds`, in this folder.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use flate2::write::GzEncoder;
use outbox_fuzz::fixture::{DIR, WAL_FILE_BYTES, pack};
use outbox_fuzz::memory::Memory;
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields, open};
use outbox_log_broker::{
    Append, Cleanup, Log, LogOptions, OffsetCommit, Publication, Sequence, Slice, TopicOptions,
};
use proto_kafka::messages::*;
use proto_kafka::protocol::{Encodable, Request, StrBytes};
use ruzstd::encoding::CompressionLevel::Fastest;

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
    compressed(&corpus.join("batch"))?;
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

/// A batch of each codec.
fn compressed(folder: &Path) -> Result<(), Failure> {
    let batch = batch(8, None);
    let (head, records) = batch.split_at(61);
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(records)?;
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(records)?;
    let snappy = snap::raw::Encoder::new().compress_vec(records)?;
    // As the Java client packs: a head, and blocks of a stream of its own.
    let block = (snappy.len() as u32).to_be_bytes();
    let xerial = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &block[..], &snappy].concat();
    for (name, codec, packed) in [
        ("gzip", 1, gzip.finish()?),
        ("snappy", 2, snappy),
        ("xerial", 2, xerial),
        ("lz4", 3, lz4.finish()?),
        (
            "zstd",
            4,
            ruzstd::encoding::compress_to_vec(records, Fastest),
        ),
    ] {
        let mut made = [head, &packed].concat();
        let length = made.len() as u32 - 12;
        made[8..12].copy_from_slice(&length.to_be_bytes());
        made[22] = codec;
        let crc = crc32c::crc32c(&made[21..]);
        made[17..21].copy_from_slice(&crc.to_be_bytes());
        open(&made)?;
        fs::write(folder.join(name), made)?;
    }
    Ok(())
}

/// Requests as they are without any content, and some with, in the order of the broker's table: its first version, and
/// the first and the last that is written here.
macro_rules! write_requests {
    ($corpus:expr, $($request:ident $first:literal $min:literal $max:literal $(= $full:expr)?,)*) => {{
        let mut index = 0_u8;
        $(
            let all = [("", $request::default()), $(("-full", $full))?];
            for (name, request) in all {
                for version in [$min, $max] {
                    let name = format!("{}{name}-{version}", stringify!($request));
                    // Not every version can say all that the last one can.
                    let Ok((body, frame)) = encoded(&request, version) else { continue };
                    let chosen = [index, (version - $first) as u8];
                    let input = [&chosen, &body[..]].concat();
                    fs::write($corpus.join("request").join(&name), input)?;
                    fs::write($corpus.join("connection").join(&name), frame)?;
                }
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

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("orders"))
}

fn group() -> GroupId {
    GroupId(text("billing"))
}

fn payments() -> TransactionalId {
    TransactionalId(text("payments"))
}

fn requests(corpus: &Path) -> Result<(), Failure> {
    write_requests!(
        corpus,
        ProduceRequest 0 3 9 = ProduceRequest::default()
            .with_acks(-1)
            .with_topic_data(vec![
                produce_request::TopicProduceData::default()
                    .with_name(topic())
                    .with_partition_data(vec![
                        produce_request::PartitionProduceData::default()
                            .with_records(Some(batch(2, None).into())),
                    ]),
            ]),
        FetchRequest 4 4 12 = FetchRequest::default()
            .with_max_bytes(1 << 20)
            .with_topics(vec![
                fetch_request::FetchTopic::default()
                    .with_topic(topic())
                    .with_partitions(vec![
                        fetch_request::FetchPartition::default().with_partition_max_bytes(1 << 20),
                    ]),
            ]),
        ListOffsetsRequest 1 1 7 = ListOffsetsRequest::default().with_topics(vec![
            list_offsets_request::ListOffsetsTopic::default()
                .with_name(topic())
                .with_partitions(vec![
                    list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1),
                ]),
        ]),
        MetadataRequest 0 0 11 = MetadataRequest::default()
            .with_allow_auto_topic_creation(true)
            .with_topics(Some(vec![
                metadata_request::MetadataRequestTopic::default().with_name(Some(topic())),
            ])),
        OffsetCommitRequest 2 2 8 = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_topics(vec![
                offset_commit_request::OffsetCommitRequestTopic::default()
                    .with_name(topic())
                    .with_partitions(vec![
                        offset_commit_request::OffsetCommitRequestPartition::default()
                            .with_committed_offset(3)
                            .with_committed_metadata(Some(text("said"))),
                    ]),
            ]),
        OffsetFetchRequest 1 1 8,
        FindCoordinatorRequest 0 0 4,
        JoinGroupRequest 0 0 7 = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                join_group_request::JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata(bytes::Bytes::from_static(
                        b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff",
                    )),
            ]),
        HeartbeatRequest 0 0 4,
        LeaveGroupRequest 0 0 4,
        SyncGroupRequest 0 0 5 = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(text("member"))
            .with_assignments(vec![
                sync_group_request::SyncGroupRequestAssignment::default()
                    .with_member_id(text("member"))
                    .with_assignment(bytes::Bytes::from_static(
                        b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\xff\xff\xff\xff",
                    )),
            ]),
        DescribeGroupsRequest 0 0 5,
        ListGroupsRequest 0 0 4,
        SaslHandshakeRequest 0 0 1,
        ApiVersionsRequest 0 0 4,
        InitProducerIdRequest 0 0 4 = InitProducerIdRequest::default()
            .with_transactional_id(Some(payments()))
            .with_transaction_timeout_ms(60_000),
        AddPartitionsToTxnRequest 0 0 3 = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(payments())
            .with_v3_and_below_topics(vec![
                add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                    .with_name(topic())
                    .with_partitions(vec![0, 1]),
            ]),
        AddOffsetsToTxnRequest 0 0 3,
        EndTxnRequest 0 0 3,
        TxnOffsetCommitRequest 0 0 3,
        SaslAuthenticateRequest 0 0 2,
        DeleteGroupsRequest 0 0 2,
        OffsetDeleteRequest 0 0 0,
        CreateTopicsRequest 2 2 7 = CreateTopicsRequest::default()
            .with_timeout_ms(1_000)
            .with_topics(vec![
                create_topics_request::CreatableTopic::default()
                    .with_name(topic())
                    .with_num_partitions(2)
                    .with_replication_factor(1)
                    .with_configs(vec![
                        create_topics_request::CreatableTopicConfig::default()
                            .with_name(text("cleanup.policy"))
                            .with_value(Some(text("compact"))),
                    ]),
            ]),
        DeleteTopicsRequest 1 1 6,
        DeleteRecordsRequest 0 0 2 = DeleteRecordsRequest::default().with_topics(vec![
            delete_records_request::DeleteRecordsTopic::default()
                .with_name(topic())
                .with_partitions(vec![
                    delete_records_request::DeleteRecordsPartition::default().with_offset(1),
                ]),
        ]),
        OffsetForLeaderEpochRequest 2 2 4,
        DescribeConfigsRequest 1 1 4,
        AlterConfigsRequest 0 0 2,
        DescribeLogDirsRequest 1 1 4,
        CreatePartitionsRequest 0 0 3,
        IncrementalAlterConfigsRequest 0 0 1 = IncrementalAlterConfigsRequest::default().with_resources(vec![
            incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![
                    incremental_alter_configs_request::AlterableConfig::default()
                        .with_name(text("retention.ms"))
                        .with_value(Some(text("1000"))),
                ]),
        ]),
        ListPartitionReassignmentsRequest 0 0 0,
        DescribeClusterRequest 0 0 1,
        DescribeProducersRequest 0 0 0,
        DescribeTransactionsRequest 0 0 0,
        ListTransactionsRequest 0 0 1,
    );
    Ok(())
}
