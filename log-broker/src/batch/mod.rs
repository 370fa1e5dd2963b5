//! Kafka record batches, version 2: checked as opaque bytes, written, and read back.
//!
//! The log itself only needs [`BatchHeader`]; encoding and decoding records is for clients.

mod decode;
mod encode;
mod header;
mod marker;
mod open;
mod varint;

pub use decode::{DecodeError, HeaderView, Headers, RecordView, Records};
pub use encode::{BatchEncoder, EncodedBatch, HeaderBlock, RecordFields, record_bytes};
pub use header::{BatchError, BatchHeader, HEADER_BYTES};
pub(crate) use marker::{marker_commits, write_marker};
pub use open::open;
pub(crate) use open::rebuild;
