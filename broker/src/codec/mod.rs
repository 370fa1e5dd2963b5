//! How requests and answers are laid out. The only module that knows the codec crate.
//!
//! What comes from outside is bounded before it is decoded: the length of a frame before it is
//! received, and the counts inside it by the bytes that are there. The hot requests, Produce and
//! Fetch, have codecs of their own: the one takes no copy of the records and nothing in proportion
//! to a count, the other sends records from where they are.

mod consumer;
mod fetch;
mod frame;
mod head;
mod produce;
mod publication;
mod read;
mod reply;

pub(crate) use consumer::{
    Subscription, read_assignment, read_subscription, write_assignment, write_subscription,
};
pub(crate) use fetch::{FetchAnswer, FetchedPartition, FetchedTopic};
pub(crate) use frame::{Frame, FrameReader, frame_room};
pub(crate) use head::RequestHead;
pub(crate) use produce::{PartitionOutcome, PartitionRecords, ProduceAnswer, ProduceRequest};
pub(crate) use proto_kafka::ResponseError as ErrorCode;
pub(crate) use proto_kafka::messages::{self, ApiKey};
pub(crate) use proto_kafka::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
#[cfg(fuzzing)]
pub(crate) use publication::read_publication;
pub(crate) use publication::{
    PUBLICATION, PUBLICATION_FROM, Published, read_published, write_publication,
};
pub(crate) use reply::{Front, Reply};

use bytes::{BufMut, Bytes, BytesMut};

/// What an encoder answers.
pub(crate) type EncodeResult<T> = Result<T, proto_kafka::ProtoError>;

/// No error, on the wire.
pub(crate) const NO_ERROR: i16 = 0;

/// Bytes that are no request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// The length of a frame cannot be.
    #[error(
        "a frame announces {length} bytes, it must be {} to {limit}{}",
        frame::FRAME_BYTES_MIN,
        frame::likely(*length)
    )]
    Length { length: i32, limit: usize },
    /// A frame ends before its request does.
    #[error("a request ends inside its {field}")]
    Short { field: &'static str },
    /// A field cannot be.
    #[error("a request has {value} as its {field}")]
    Field { field: &'static str, value: i64 },
    /// The codec says no.
    #[error("a request of API {api:?} version {version} cannot be read: {source}")]
    Decode {
        api: ApiKey,
        version: i16,
        #[source]
        source: proto_kafka::ProtoError,
    },
    /// An answer could not be written: an error in this program.
    #[error("an answer could not be written: {0}")]
    Encode(#[source] proto_kafka::ProtoError),
}

/// What can be sent as the answer to a request.
pub(crate) trait Answer {
    /// The whole frame.
    fn reply(self, correlation_id: i32, version: i16) -> Result<Reply, CodecError>;
}

/// Reads the body of a request.
pub(crate) fn decode<R: Decodable>(
    mut body: Bytes,
    api: ApiKey,
    version: i16,
) -> Result<R, CodecError> {
    R::decode(&mut body, version).map_err(|source| CodecError::Decode {
        api,
        version,
        source,
    })
}

impl<A: Encodable + HeaderVersion> Answer for A {
    fn reply(self, correlation_id: i32, version: i16) -> Result<Reply, CodecError> {
        let size = self.compute_size(version).map_err(CodecError::Encode)?;
        let mut frame = BytesMut::with_capacity(size + 16);
        frame.put_i32(0);
        frame.put_i32(correlation_id);
        if A::header_version(version) >= 1 {
            // No tagged fields.
            frame.put_u8(0);
        }
        self.encode(&mut frame, version)
            .map_err(CodecError::Encode)?;
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Reply::from(frame.freeze()))
    }
}
