//! Frames that wait to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

/// Whole frames, in pieces that are sent with one call and never copied together.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Room that is given back when the reply has been sent.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Reply {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Adds a piece in front.
    pub fn push_front(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_front(piece);
    }
}

impl From<Bytes> for Reply {
    fn from(frame: Bytes) -> Self {
        let mut reply = Self::default();
        reply.push(frame);
        reply
    }
}

impl Buf for Reply {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more was sent than there is");
        self.bytes -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}
