//! A client that knows nothing but the protocol: what it is told is all that the test goes by.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto_kafka::messages::RequestHeader;
use proto_kafka::protocol::Decodable;
use proto_kafka::protocol::{Encodable, HeaderVersion, Request, StrBytes};

/// Longest wait for an answer, and the longest silence of a broker that was killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct Wire {
    stream: TcpStream,
    next_id: i32,
}

impl Wire {
    /// Connects.
    pub fn connect(addr: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Sends a request and waits for its answer. After an error nothing is known about the request.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let id = self.next_id;
        self.next_id += 1;
        self.stream.write_all(&frame(version, id, request))?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        assert_eq!(answer.get_i32(), id, "answers come in order");
        if R::Response::header_version(version) >= 1 {
            assert_eq!(answer.get_u8(), 0, "no tagged fields in the head");
        }
        Ok(R::Response::decode(&mut answer, version).expect("an answer that can be read"))
    }
}

fn frame<R: Request>(version: i16, id: i32, request: &R) -> BytesMut {
    let mut header = RequestHeader::default();
    header.request_api_key = R::KEY;
    header.request_api_version = version;
    header.correlation_id = id;
    header.client_id = Some(StrBytes::from_static_str("ledger"));
    let mut body = BytesMut::new();
    let head = header.encode(&mut body, R::header_version(version));
    head.expect("a head");
    request.encode(&mut body, version).expect("a body");
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.extend_from_slice(&body);
    frame
}
