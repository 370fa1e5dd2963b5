//! A broker in a folder of its own, and a client that can also be rude.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use outbox_broker::{Broker, BrokerOptions};
use outbox_log_broker::batch::{BatchEncoder, HeaderBlock, RecordFields, Records};
use outbox_log_broker::{LogOptions, TopicOptions};
use proto_kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use proto_kafka::messages::fetch_response::PartitionData;
use proto_kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto_kafka::messages::produce_response::PartitionProduceResponse;
use proto_kafka::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, TopicName,
};
use proto_kafka::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The topic of most tests.
pub const TOPIC: &str = "orders";

/// A test that waits longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker and its folder.
pub struct Rig {
    pub broker: Broker,
    pub dir: TempDir,
}

impl Rig {
    /// With the defaults.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With other options.
    pub async fn start_with(change: impl FnOnce(&mut BrokerOptions)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut options = options(&dir);
        change(&mut options);
        let broker = Broker::start(options).await.expect("a broker");
        Self { broker, dir }
    }

    /// As [`Rig::start`], with the topic.
    pub async fn with_topic(partitions: u32) -> Self {
        let rig = Self::start().await;
        rig.create_topic(TOPIC, partitions).await;
        rig
    }

    pub async fn create_topic(&self, name: &str, partitions: u32) {
        let options = TopicOptions {
            partitions,
            ..TopicOptions::default()
        };
        let created = self.broker.log().create_topic(name, options).await;
        created.expect("a topic");
    }

    pub async fn connect(&self) -> Client {
        Client::connect(self.broker.local_addr()).await
    }
}

/// The defaults, for a log in `dir`.
pub fn options(dir: &TempDir) -> BrokerOptions {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    BrokerOptions::new(LogOptions::new(dir.path().join("log")), listen)
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    next_id: i32,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self { stream, next_id: 1 }
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Sends a request. Answers its correlation id.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let frame = frame(version, id, request);
        self.send_raw(&frame).await;
        id
    }

    /// The next frame, without its length.
    pub async fn receive_raw(&mut self) -> Bytes {
        let received = timeout(PATIENCE, async {
            let length = self.stream.read_i32().await.expect("an answer");
            let mut body = vec![0; length as usize];
            self.stream.read_exact(&mut body).await.expect("all of it");
            Bytes::from(body)
        });
        received.await.expect("an answer in time")
    }

    /// The answer to the request with this correlation id, which must be the next one.
    pub async fn receive<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let mut frame = self.receive_raw().await;
        assert_eq!(
            frame.get_i32(),
            id,
            "answers come in the order of the requests"
        );
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0, "no tagged fields in the head");
        }
        let response =
            R::Response::decode(&mut frame, version).expect("an answer that can be read");
        assert_eq!(frame.remaining(), 0, "nothing behind the answer");
        response
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }

    /// Produces one batch to the topic; must be answered.
    pub async fn produce(&mut self, partition: i32, records: Bytes) -> PartitionProduceResponse {
        let request = produce_request(-1, &[(partition, records)]);
        only_partition(self.call(9, &request).await)
    }

    /// Fetches from one partition of the topic, without waiting.
    pub async fn fetch(&mut self, partition: i32, offset: i64) -> PartitionData {
        let answer = self.call(12, &fetch_request(&[(partition, offset)])).await;
        only_fetched(answer)
    }

    /// The other side must close the connection, without an answer.
    pub async fn expect_closed(&mut self) {
        self.expect_closed_on("what was sent").await;
    }

    /// As [`Client::expect_closed`], and says on what if it is not.
    pub async fn expect_closed_on(&mut self, what: &str) {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        // A reset is a close, too: bytes that nobody wanted were still on their way.
        assert!(read.is_ok(), "not closed in time on {what}");
        assert!(
            rest.is_empty(),
            "an answer to {what} instead of a close: {rest:?}"
        );
    }
}

/// A whole frame.
pub fn frame<R: Request>(version: i16, id: i32, request: &R) -> Bytes {
    let mut header = RequestHeader::default();
    header.request_api_key = R::KEY;
    header.request_api_version = version;
    header.correlation_id = id;
    header.client_id = Some(StrBytes::from_static_str("test"));
    let mut body = BytesMut::new();
    header
        .encode(&mut body, R::header_version(version))
        .expect("a head");
    request.encode(&mut body, version).expect("a body");
    framed(&body)
}

/// Puts the length in front.
pub fn framed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.extend_from_slice(body);
    frame.freeze()
}

/// One batch of records with these values.
pub fn batch(values: &[&str]) -> Bytes {
    batch_at(1000, values)
}

/// One batch of records with these values, of that time.
pub fn batch_at(timestamp: i64, values: &[&str]) -> Bytes {
    let headers = HeaderBlock::default();
    let mut buffer = Vec::new();
    let mut encoder = BatchEncoder::begin(&mut buffer);
    for value in values {
        encoder.record(&RecordFields {
            timestamp,
            key: None,
            value: Some(value.as_bytes()),
            shared: &headers,
            own: &headers,
        });
    }
    encoder.finish();
    buffer.into()
}

/// The batch with some bytes changed, and its checksum right again.
pub fn altered(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = batch.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.into()
}

/// A request for partitions of the topic.
pub fn produce_request(acks: i16, partitions: &[(i32, Bytes)]) -> ProduceRequest {
    let partitions = partitions.iter().map(|(index, records)| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(records.clone()))
    });
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic_name(TOPIC))
                .with_partition_data(partitions.collect()),
        ])
}

/// The answer for the one partition of a request.
pub fn only_partition(mut answer: ProduceResponse) -> PartitionProduceResponse {
    let mut topic = answer.responses.pop().expect("a topic");
    assert_eq!(topic.name, topic_name(TOPIC));
    topic.partition_responses.pop().expect("a partition")
}

/// A request for partitions of the topic, from these offsets on, that does not wait.
pub fn fetch_request(partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|&(partition, offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
    });
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(topic_name(TOPIC))
                .with_partitions(partitions.collect()),
        ])
}

/// What was fetched of the one partition of a request.
pub fn only_fetched(mut answer: FetchResponse) -> PartitionData {
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
    let mut topic = answer.responses.pop().expect("a topic");
    assert_eq!(topic.topic, topic_name(TOPIC));
    topic.partitions.pop().expect("a partition")
}

/// Offset and value of each record.
pub fn values(fetched: &PartitionData) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let mut rest = fetched.records.clone().unwrap_or_default();
    while !rest.is_empty() {
        let bytes = 12 + i32::from_be_bytes(rest[8..12].try_into().expect("a head")) as usize;
        let one = rest.split_to(bytes);
        for record in Records::new(&one).expect("a batch") {
            let record = record.expect("a record");
            let value = record.value.expect("a value");
            found.push((record.offset, String::from_utf8_lossy(value).into_owned()));
        }
    }
    found
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
