//! A small client that is told when the broker has gone, and that never repeats by itself.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields};
use proto_kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto_kafka::messages::{ProduceRequest, RequestHeader, TopicName, TransactionalId};
use proto_kafka::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ledger::{Place, key_of, topic_of, value_of};

/// A broker that is there and does not answer within this time has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCE: i16 = 9;
/// The checksum of a batch stands here, and covers what stands behind it.
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const PRODUCER_AT: usize = 43;
const TRANSACTIONAL: i16 = 0x10;

/// Who a batch says that it is from.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub transactional: bool,
}

/// One connection. After an error it is of no more use.
pub struct Wire {
    stream: TcpStream,
    next_id: i32,
}

impl Wire {
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// When the broker has gone: whether the request was done is unknown.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let id = self.send(version, request).await?;
        self.receive::<R>(version, id).await
    }

    async fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let id = self.next_id;
        self.next_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_static_str("kills")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let head = header.encode(&mut frame, R::header_version(version));
        head.expect("a head");
        request.encode(&mut frame, version).expect("a body");
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;
        Ok(id)
    }

    async fn receive<R: Request>(&mut self, version: i16, id: i32) -> io::Result<R::Response> {
        let read = async {
            let length = self.stream.read_i32().await?;
            let mut body = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut body).await?;
            io::Result::Ok(Bytes::from(body))
        };
        let mut body = timeout(PATIENCE, read).await.expect("an answer in time")?;
        assert_eq!(body.get_i32(), id, "answers come in the order of requests");
        if R::Response::header_version(version) >= 1 {
            assert_eq!(body.get_u8(), 0, "no tagged fields in the head");
        }
        Ok(R::Response::decode(&mut body, version).expect("an answer that can be read"))
    }

    /// Sends one batch with `acks=all`. Answers its correlation id.
    pub async fn send_batch(
        &mut self,
        transactional_id: Option<&str>,
        place: Place,
        batch: Bytes,
    ) -> io::Result<i32> {
        let (topic, partition) = topic_of(place);
        let data = PartitionProduceData::default()
            .with_index(partition as i32)
            .with_records(Some(batch));
        let request = ProduceRequest::default()
            .with_transactional_id(transactional_id.map(transactional))
            .with_acks(-1)
            .with_timeout_ms(PATIENCE.as_millis() as i32)
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(topic_name(topic))
                    .with_partition_data(vec![data]),
            ]);
        self.send(PRODUCE, &request).await
    }

    /// The answer to [`Wire::send_batch`]: the offset of its first record. A refusal fails the
    /// test: nothing that the producers send may be refused.
    pub async fn receive_offset(&mut self, id: i32) -> io::Result<i64> {
        let answer = self.receive::<ProduceRequest>(PRODUCE, id).await?;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "a batch was refused: {answer:?}");
        Ok(answer.base_offset)
    }
}

/// Encodes one batch of a producer's records at the end of `buffer`; answers its size in bytes.
pub fn encode(buffer: &mut Vec<u8>, producer: u64, place: Place, numbers: &[u64]) -> usize {
    let none = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(buffer);
    for &n in numbers {
        encoder.record(&RecordFields {
            timestamp: 1_700_000_000_000 + n as i64,
            key: Some(key_of(producer, place, n).as_bytes()),
            value: Some(&value_of(producer, n)),
            shared: &none,
            own: &none,
        });
    }
    encoder.finish().bytes
}

/// One batch, stamped if it is from a producer with an id.
pub fn batch(producer: u64, place: Place, numbers: &[u64], stamp: Option<Stamp>) -> Bytes {
    let mut batch = Vec::new();
    encode(&mut batch, producer, place, numbers);
    if let Some(stamp) = stamp {
        let attributes = if stamp.transactional {
            TRANSACTIONAL
        } else {
            0
        };
        batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        let mut fields = Vec::new();
        fields.extend(stamp.id.to_be_bytes());
        fields.extend(stamp.epoch.to_be_bytes());
        fields.extend(stamp.sequence.to_be_bytes());
        batch[PRODUCER_AT..PRODUCER_AT + fields.len()].copy_from_slice(&fields);
        let crc = crc_fast::crc32_iscsi(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    }
    batch.into()
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn transactional(id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(id.to_owned()))
}
