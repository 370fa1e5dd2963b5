//! Frames that wait to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use outbox_log_broker::FileRange;
use tokio::sync::OwnedSemaphorePermit;

/// Whole frames, in pieces that are never copied together.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pieces: VecDeque<Piece>,
    /// Room that is given back when the reply has been sent.
    pub permits: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Piece {
    Memory(Bytes),
    File(FileRange),
}

/// What is to be sent next.
pub(crate) enum Front<'a> {
    /// Pieces in memory, up to the end.
    Last(MemoryRun<'a>),
    /// A piece in memory, behind which a file follows.
    Ahead(&'a mut Bytes),
    /// A part of a file.
    File(&'a mut FileRange),
}

/// The pieces in memory that a reply begins with, to be sent with one call.
pub(crate) struct MemoryRun<'a> {
    pieces: &'a mut VecDeque<Piece>,
    bytes: usize,
}

impl Reply {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push_back(Piece::Memory(piece));
        }
    }

    /// Adds a piece in front.
    pub fn push_front(&mut self, piece: Bytes) {
        self.pieces.push_front(Piece::Memory(piece));
    }

    /// Adds a part of a file.
    pub fn push_file(&mut self, range: FileRange) {
        if !range.is_empty() {
            self.pieces.push_back(Piece::File(range));
        }
    }

    /// What is to be sent next; `None` when everything has been.
    pub fn front(&mut self) -> Option<Front<'_>> {
        while self.pieces.front().is_some_and(Piece::is_sent) {
            self.pieces.pop_front();
        }
        let mut bytes = 0;
        let mut file_follows = false;
        for piece in &self.pieces {
            match piece {
                Piece::Memory(piece) => bytes += piece.len(),
                Piece::File(_) => {
                    file_follows = true;
                    break;
                }
            }
        }
        if !file_follows && bytes > 0 {
            let pieces = &mut self.pieces;
            return Some(Front::Last(MemoryRun { pieces, bytes }));
        }
        self.pieces.front_mut().map(|piece| match piece {
            Piece::Memory(piece) => Front::Ahead(piece),
            Piece::File(range) => Front::File(range),
        })
    }
}

impl Piece {
    fn is_sent(&self) -> bool {
        match self {
            Self::Memory(piece) => piece.is_empty(),
            Self::File(range) => range.is_empty(),
        }
    }
}

impl From<Bytes> for Reply {
    fn from(frame: Bytes) -> Self {
        let mut reply = Self::default();
        reply.push(frame);
        reply
    }
}

impl MemoryRun<'_> {
    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().map_while(|piece| match piece {
            Piece::Memory(piece) => Some(piece),
            Piece::File(_) => None,
        })
    }
}

impl Buf for MemoryRun<'_> {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces().next().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more was sent than there is");
        self.bytes -= count;
        while let Some(Piece::Memory(piece)) = self.pieces.front_mut() {
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
        for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}
