//! A broker that keeps nothing: it reads what a producer sends and says that it is stored.
//!
//! What `rdkafka_performance` reaches against it is what the client itself can do.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

use super::wire::{Reader, Writer};

/// Longest frame taken from a client, which is one of ours.
const FRAME_BYTES_MAX: usize = 64 << 20;

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;

/// What it serves: (key, lowest, highest version). None of them is of the flexible kind.
const SERVED: [(i16, i16, i16); 4] = [
    (PRODUCE, 0, 7),
    (METADATA, 0, 4),
    (API_VERSIONS, 0, 2),
    (CREATE_TOPICS, 2, 2),
];

/// `UNKNOWN_TOPIC_OR_PARTITION`.
const UNKNOWN_TOPIC: i16 = 3;
/// `UNSUPPORTED_VERSION`.
const UNSUPPORTED_VERSION: i16 = 35;

/// Listens on `port` of the loopback address and serves until it is killed.
pub fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let broker = Arc::new(Broker {
        port,
        topics: Mutex::default(),
    });
    loop {
        let (socket, _) = listener.accept()?;
        let broker = broker.clone();
        std::thread::spawn(move || {
            if let Err(error) = broker.serve(socket) {
                tracing::debug!(%error, "the client is gone");
            }
        });
    }
}

struct Broker {
    port: u16,
    /// How many partitions each topic has.
    topics: Mutex<HashMap<String, i32>>,
}

impl Broker {
    fn serve(&self, socket: TcpStream) -> anyhow::Result<()> {
        socket.set_nodelay(true)?;
        let mut requests = BufReader::with_capacity(256 << 10, socket.try_clone()?);
        let mut answers = socket;
        let mut frame = Vec::new();
        loop {
            let mut length = [0; 4];
            requests.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > FRAME_BYTES_MAX {
                bail!("a frame of {length} bytes");
            }
            frame.resize(length, 0);
            requests.read_exact(&mut frame)?;
            if let Some(answer) = self.answer(&frame)? {
                answers.write_all(&answer)?;
            }
        }
    }

    /// The answer's frame; `None` for a produce request that wants none.
    fn answer(&self, frame: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let mut request = Reader::new(frame);
        let (key, version) = (request.i16()?, request.i16()?);
        let mut answer = Writer::frame(request.i32()?);
        match (key, version) {
            (API_VERSIONS, version) => api_versions(version, &mut answer),
            (METADATA, 0..=4) => {
                request.string()?;
                self.metadata(version, &mut request, &mut answer)?;
            }
            (CREATE_TOPICS, 2) => {
                request.string()?;
                self.create_topic(&mut request, &mut answer)?;
            }
            (PRODUCE, 0..=7) => {
                request.string()?;
                if !produce(version, &mut request, &mut answer)? {
                    return Ok(None);
                }
            }
            (key, version) => bail!("request {key} of version {version}"),
        }
        Ok(Some(answer.finish()))
    }

    /// The benchmark creates one topic at a time.
    fn create_topic(&self, request: &mut Reader<'_>, answer: &mut Writer) -> anyhow::Result<()> {
        let (_topics, name) = (request.i32()?, request.string()?.unwrap_or_default());
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(name.to_owned(), request.i32()?);
        answer.i32(0).i32(1).string(name).i16(0).string("");
        Ok(())
    }

    fn metadata(
        &self,
        version: i16,
        request: &mut Reader<'_>,
        answer: &mut Writer,
    ) -> anyhow::Result<()> {
        let names = (0..request.i32()?.max(0))
            .map(|_| request.string().map(|name| name.unwrap_or_default()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if version >= 3 {
            answer.i32(0);
        }
        answer
            .i32(1)
            .i32(1)
            .string("127.0.0.1")
            .i32(i32::from(self.port));
        if version >= 1 {
            answer.i16(-1);
        }
        if version >= 2 {
            answer.string("null");
        }
        if version >= 1 {
            answer.i32(1);
        }
        answer.i32(i32::try_from(names.len())?);
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let partitions = topics.get(name).copied();
            answer.i16(if partitions.is_some() {
                0
            } else {
                UNKNOWN_TOPIC
            });
            answer.string(name);
            if version >= 1 {
                answer.i8(0);
            }
            let partitions = partitions.unwrap_or(0);
            answer.i32(partitions);
            for partition in 0..partitions {
                // Leader, replicas and in-sync replicas: this one.
                answer.i16(0).i32(partition).i32(1);
                answer.i32(1).i32(1).i32(1).i32(1);
            }
        }
        Ok(())
    }
}

fn api_versions(version: i16, answer: &mut Writer) {
    let known = (0..=2).contains(&version);
    answer.i16(if known { 0 } else { UNSUPPORTED_VERSION });
    answer.i32(SERVED.len() as i32);
    for (key, low, high) in SERVED {
        answer.i16(key).i16(low).i16(high);
    }
    if known && version >= 1 {
        answer.i32(0);
    }
}

/// Answers whether the client waits for an answer.
fn produce(version: i16, request: &mut Reader<'_>, answer: &mut Writer) -> anyhow::Result<bool> {
    if version >= 3 {
        request.string()?;
    }
    let (acks, _timeout, topics) = (request.i16()?, request.i32()?, request.i32()?);
    answer.i32(topics);
    for _ in 0..topics {
        answer.string(request.string()?.context("a topic without a name")?);
        let partitions = request.i32()?;
        answer.i32(partitions);
        for _ in 0..partitions {
            answer.i32(request.i32()?).i16(0).i64(0);
            if version >= 2 {
                answer.i64(-1);
            }
            if version >= 5 {
                answer.i64(0);
            }
            request.bytes()?;
        }
    }
    if version >= 1 {
        answer.i32(0);
    }
    Ok(acks != 0)
}
