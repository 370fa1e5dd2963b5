//! A few requests by hand: a witness that is neither a client under test nor our own code.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const FETCH: i16 = 1;
const OFFSET_FETCH: i16 = 9;
const CREATE_TOPICS: i16 = 19;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between the start of a record batch and its attributes.
const ATTRIBUTES_AT: usize = 21;

/// Codecs by their number in a record batch.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Makes a topic (CreateTopics version 2) with Kafka's default for the largest batch: another
/// server's may be another.
pub fn create_topic(bootstrap: &str, topic: &str, partitions: i32) {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    put_text(&mut body, topic);
    body.extend(partitions.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    // No assignment, one setting, 30 s, for real.
    body.extend(0_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    put_text(&mut body, "max.message.bytes");
    put_text(&mut body, "1048588");
    body.extend(30_000_i32.to_be_bytes());
    body.push(0);
    let mut answer = Answer(ask(bootstrap, CREATE_TOPICS, 2, &body));
    let (_throttled, topics) = (answer.i32(), answer.i32());
    assert_eq!((topics, answer.text().as_str()), (1, topic));
    assert_eq!(answer.i16(), 0, "{topic} was not created");
}

/// What a group has committed (OffsetFetch version 1); -1 for nothing.
pub fn committed(bootstrap: &str, group: &str, topic: &str, partition: i32) -> i64 {
    let mut body = Vec::new();
    put_text(&mut body, group);
    body.extend(1_i32.to_be_bytes());
    put_text(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    let mut answer = Answer(ask(bootstrap, OFFSET_FETCH, 1, &body));
    assert_eq!((answer.i32(), answer.text().as_str()), (1, topic));
    assert_eq!((answer.i32(), answer.i32()), (1, partition));
    let offset = answer.i64();
    let _metadata = answer.text();
    assert_eq!(answer.i16(), 0, "the offset of {group} cannot be read");
    offset
}

/// The codecs of the batches that the server keeps for one partition (Fetch version 4, from its
/// beginning, up to 4 MB).
pub fn codecs(bootstrap: &str, topic: &str, partition: i32) -> BTreeSet<&'static str> {
    let most = 4_000_000_i32.to_be_bytes();
    let mut body = Vec::new();
    // A consumer, which waits for no more than 100 ms for at least a byte, and reads uncommitted.
    body.extend((-1_i32).to_be_bytes());
    body.extend(100_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(most);
    body.push(0);
    body.extend(1_i32.to_be_bytes());
    put_text(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(0_i64.to_be_bytes());
    body.extend(most);
    let mut answer = Answer(ask(bootstrap, FETCH, 4, &body));
    let _throttled = answer.i32();
    assert_eq!((answer.i32(), answer.text().as_str()), (1, topic));
    assert_eq!((answer.i32(), answer.i32()), (1, partition));
    assert_eq!(answer.i16(), 0, "{topic} cannot be fetched");
    let (_high_watermark, _last_stable_offset) = (answer.i64(), answer.i64());
    for _ in 0..answer.i32().max(0) {
        let (_producer_id, _first_offset) = (answer.i64(), answer.i64());
    }
    let length = answer.i32();
    let batches = answer.take(usize::try_from(length).unwrap_or(0));
    let mut rest = &batches[..];
    let mut found = BTreeSet::new();
    while rest.len() > ATTRIBUTES_AT + 1 {
        found.insert(CODECS[usize::from(rest[ATTRIBUTES_AT + 1] & 7)]);
        let length = i32::from_be_bytes(rest[8..12].try_into().expect("four bytes"));
        let length = 12 + usize::try_from(length).expect("a length");
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("a short text");
    body.extend(length.to_be_bytes());
    body.extend(text.as_bytes());
}

/// Sends one request and reads its answer, without its header.
fn ask(bootstrap: &str, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    put_text(&mut request, "witness");
    request.extend(body);
    let mut stream = TcpStream::connect(bootstrap).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let length = i32::try_from(request.len()).expect("a short request");
    stream.write_all(&length.to_be_bytes()).expect("sent");
    stream.write_all(&request).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("answered");
    let length = usize::try_from(i32::from_be_bytes(length)).expect("a length");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).expect("answered");
    answer.split_off(4)
}

/// Reads an answer from its front.
struct Answer(Vec<u8>);

impl Answer {
    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.0.split_off(length);
        std::mem::replace(&mut self.0, rest)
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    /// Empty for null.
    fn text(&mut self) -> String {
        let length = usize::try_from(self.i16()).unwrap_or(0);
        String::from_utf8(self.take(length)).expect("text")
    }
}
