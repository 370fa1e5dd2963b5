//! Requests from a stream of bytes.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ApiKey, CodecError};
use crate::limits::{CONTROL_BYTES_MAX, READ_BYTES};

/// Bytes of the length in front of each frame.
const LENGTH_BYTES: usize = 4;
/// A frame's length and API key: what must be there to tell how large it may be.
const PEEK_BYTES: usize = LENGTH_BYTES + 2;
/// API key, API version, correlation id.
pub(super) const FRAME_BYTES_MIN: usize = 8;
/// The room for large frames is counted in units of this, for a semaphore counts to 2³².
const ROOM_BYTES: usize = 1024;

/// The permits of a semaphore that has room for so many bytes of frames.
pub(crate) fn frame_room(bytes: usize) -> usize {
    // One more for each partly used unit would not matter; one less would block the largest frame.
    bytes.div_ceil(ROOM_BYTES) + 1
}

/// Takes whole frames from what was received. It never holds more than one frame that is larger
/// than [`READ_BYTES`], and only once there is room for it.
pub(crate) struct FrameReader {
    buffer: BytesMut,
    request_bytes_max: usize,
    room: Arc<Semaphore>,
    /// Room of the large frame in reception.
    permit: Option<OwnedSemaphorePermit>,
}

/// One request, without its length.
pub(crate) struct Frame {
    pub bytes: Bytes,
    /// Room that is given back when the request has been dealt with.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl FrameReader {
    /// For requests of at most `request_bytes_max`; larger ones than [`READ_BYTES`] wait for
    /// `room`.
    pub fn new(request_bytes_max: usize, room: Arc<Semaphore>) -> Self {
        Self {
            buffer: BytesMut::new(),
            request_bytes_max,
            room,
            permit: None,
        }
    }

    /// For requests of at most so many bytes from now on.
    pub fn set_request_bytes_max(&mut self, bytes: usize) {
        self.request_bytes_max = bytes;
    }

    /// Whether nothing of a frame has been received.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, if it is there.
    pub fn next(&mut self) -> Result<Option<Frame>, CodecError> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(LENGTH_BYTES + length).freeze();
        self.release();
        Ok(Some(Frame {
            bytes: bytes.split_off(LENGTH_BYTES),
            permit: self.permit.take(),
        }))
    }

    /// Gives the buffer up if nothing is in it: an idle connection has none.
    pub fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Receives more. Answers how many bytes; 0 when the other side has closed.
    ///
    /// Cancellation: nothing that was received is lost.
    pub async fn receive(&mut self, wire: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let missing = match self.length() {
            Ok(Some(length)) => (LENGTH_BYTES + length).saturating_sub(self.buffer.len()),
            _ => 0,
        };
        if missing + self.buffer.len() > READ_BYTES {
            self.make_room(missing).await?;
        } else {
            self.buffer.reserve(READ_BYTES - self.buffer.len());
        }
        wire.read_buf(&mut self.buffer).await
    }

    async fn make_room(&mut self, missing: usize) -> io::Result<()> {
        if self.permit.is_none() {
            let units = (missing + self.buffer.len()).div_ceil(ROOM_BYTES) as u32;
            let permit = self.room.clone().acquire_many_owned(units).await;
            self.permit = Some(permit.map_err(io::Error::other)?);
        }
        self.buffer.reserve(missing);
        Ok(())
    }

    /// Length of the frame that the buffer starts with, if so much is there.
    fn length(&self) -> Result<Option<usize>, CodecError> {
        let Some(head) = self.buffer.first_chunk::<PEEK_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let limit = match i16::from_be_bytes([head[4], head[5]]) == ApiKey::Produce as i16 {
            true => self.request_bytes_max,
            false => self.request_bytes_max.min(CONTROL_BYTES_MAX),
        };
        match usize::try_from(length) {
            Ok(length) if (FRAME_BYTES_MIN..=limit).contains(&length) => Ok(Some(length)),
            _ => Err(CodecError::Length { length, limit }),
        }
    }
}

/// What the client probably takes this server for.
pub(super) fn likely(length: i32) -> &'static str {
    match length.to_be_bytes() {
        [0x16, 3, ..] => "; it looks like the beginning of TLS",
        [b'G', b'E', b'T', b' '] | [b'P', b'O', b'S', b'T'] | [b'H', b'E', b'A', b'D'] => {
            "; it looks like HTTP"
        }
        _ => "",
    }
}
