//! The little of Kafka's protocol that the benchmark speaks itself: no flexible versions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Longest answer read: metadata of thousands of partitions.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const METADATA: i16 = 3;
const CREATE_TOPICS: i16 = 19;

/// Reads one frame's fields in order.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `frame`, without its length.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { rest: frame }
    }

    fn take(&mut self, bytes: usize) -> anyhow::Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(bytes)
            .context("the frame ends too early")?;
        self.rest = rest;
        Ok(head)
    }

    /// A number of 16 bits.
    pub fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    /// A number of 32 bits.
    pub fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// A string that may be null.
    pub fn string(&mut self) -> anyhow::Result<Option<&'a str>> {
        match self.i16()? {
            -1 => Ok(None),
            length => Ok(Some(std::str::from_utf8(
                self.take(usize::try_from(length)?)?,
            )?)),
        }
    }

    /// Bytes that may be null, which are taken for empty.
    pub fn bytes(&mut self) -> anyhow::Result<&'a [u8]> {
        match self.i32()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length)?),
        }
    }
}

/// Writes one frame's fields in order.
#[derive(Debug)]
pub struct Writer {
    frame: Vec<u8>,
}

impl Writer {
    /// An answer to the request of this number.
    pub fn frame(correlation_id: i32) -> Self {
        let mut writer = Self { frame: vec![0; 4] };
        writer.i32(correlation_id);
        writer
    }

    /// A request.
    fn request(key: i16, version: i16) -> Self {
        let mut writer = Self { frame: vec![0; 4] };
        writer.i16(key).i16(version).i32(1).string("outbox-bench");
        writer
    }

    /// A number of 8 bits.
    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.frame.extend(value.to_be_bytes());
        self
    }

    /// A number of 16 bits.
    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.frame.extend(value.to_be_bytes());
        self
    }

    /// A number of 32 bits.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.frame.extend(value.to_be_bytes());
        self
    }

    /// A number of 64 bits.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.frame.extend(value.to_be_bytes());
        self
    }

    /// A string of the benchmark's own, or one that was read: shorter than 32 KiB.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.i16(value.len() as i16);
        self.frame.extend(value.as_bytes());
        self
    }

    /// The whole frame, its length in front.
    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.frame.len() - 4) as u32;
        self.frame[..4].copy_from_slice(&length.to_be_bytes());
        self.frame
    }
}

/// Connects to a broker.
pub fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(socket)
}

/// Sends a request; answers the response behind its number.
fn call(socket: &mut TcpStream, request: Writer) -> anyhow::Result<Vec<u8>> {
    socket.write_all(&request.finish())?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=ANSWER_BYTES_MAX).contains(&length) {
        bail!("an answer of {length} bytes");
    }
    let mut answer = vec![0; length];
    socket.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}

/// Creates a topic of one replica and waits until it has a leader for each partition.
pub fn create_topic(address: &str, name: &str, partitions: i32) -> anyhow::Result<()> {
    let mut socket = connect(address)?;
    let mut request = Writer::request(CREATE_TOPICS, 2);
    request.i32(1).string(name).i32(partitions).i16(1);
    request.i32(0).i32(0).i32(30_000).i8(0);
    let answer = call(&mut socket, request)?;
    let mut answer = Reader::new(&answer);
    let (_throttle, _topics, _name) = (answer.i32()?, answer.i32()?, answer.string()?);
    let error = answer.i16()?;
    if error != 0 {
        bail!("topic {name} was not created: error {error}");
    }
    // Kafka elects leaders behind its answer.
    while leaders(&mut socket, name)? < partitions {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How many partitions of topic `name` have a leader; this is also the shortest request that
/// proves that a broker serves.
pub fn leaders(socket: &mut TcpStream, name: &str) -> anyhow::Result<i32> {
    let mut request = Writer::request(METADATA, 1);
    request.i32(1).string(name);
    let answer = call(socket, request)?;
    let mut answer = Reader::new(&answer);
    for _ in 0..answer.i32()? {
        let (_id, _host, _port, _rack) = (
            answer.i32()?,
            answer.string()?,
            answer.i32()?,
            answer.string()?,
        );
    }
    let (_controller, _topics) = (answer.i32()?, answer.i32()?);
    let (_error, _name, _internal) = (answer.i16()?, answer.string()?, answer.take(1)?);
    let mut found = 0;
    for _ in 0..answer.i32()? {
        let (_error, _id, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
        for _ in 0..2 {
            let nodes = answer.i32()?;
            answer.take(4 * usize::try_from(nodes)?)?;
        }
        found += i32::from(leader >= 0);
    }
    Ok(found)
}
