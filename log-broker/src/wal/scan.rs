//! Reads the WAL after a start, and tells a torn end from a corrupt middle.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::checksum::crc32c;
use crate::error::{Context, Damage, DiskError};
use crate::layout::{Layout, wal_number};
use crate::limits::WAL_BLOCK_BYTES;
use crate::storage::{File, Mode, Storage};

/// Frames in order, from a checkpoint's position to the last one that is whole.
pub(crate) struct WalScan<'a> {
    storage: &'a dyn Storage,
    layout: &'a Layout,
    file_bytes: u64,
    seed: u32,
    generation: u64,
    position: u64,
    current: Option<(u64, Option<Arc<dyn File>>)>,
}

/// A whole frame.
pub(crate) struct Frame {
    pub header: FrameHeader,
    body: Vec<u8>,
}

impl Frame {
    /// Its entries, encoded.
    pub fn meta(&self) -> &[u8] {
        &self.body[..self.header.meta_len as usize]
    }

    /// Its record batches.
    pub fn data(&self) -> &[u8] {
        &self.body[self.header.meta_len as usize..]
    }
}

impl<'a> WalScan<'a> {
    /// A scan of the frames that `state` does not cover.
    pub fn new(storage: &'a dyn Storage, layout: &'a Layout, state: &crate::state::State) -> Self {
        Self {
            storage,
            layout,
            file_bytes: state.wal_file_bytes,
            seed: state.seed(),
            generation: state.generation,
            position: state.wal_position,
            current: None,
        }
    }

    /// The next frame, or `None` at the end: torn or corrupt, which [`WalScan::damage`] tells.
    pub fn next(&mut self) -> Result<Option<Frame>, DiskError> {
        let mut frame = self.frame_at(self.position)?;
        // A frame that did not fit the rest of a file stands at the beginning of the next.
        if frame.is_none() && !self.position.is_multiple_of(self.file_bytes) {
            frame = self.frame_at(self.position.next_multiple_of(self.file_bytes))?;
        }
        if let Some(frame) = &frame {
            self.position = frame.header.end();
        }
        Ok(frame)
    }

    /// Whether the frame that is due here was once durable: a later frame says so. Then the WAL
    /// is corrupt here; otherwise the rest was never acknowledged, and is cut.
    pub fn damage(&mut self) -> Result<Option<Damage>, DiskError> {
        let dir = self.layout.wal();
        let names = self.storage.list(&dir).during("list", &dir)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| wal_number(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            if number < self.position / self.file_bytes {
                continue;
            }
            if let Some(witness) = self.witness_in(number)? {
                return Ok(Some(Damage {
                    path: self.path_of(self.position),
                    position: self.position % self.file_bytes,
                    problem: format!(
                        "no whole frame stands at WAL position {}, and the frame at {} says that \
                         everything before {} was durable",
                        self.position, witness.position, witness.durable
                    ),
                }));
            }
        }
        Ok(None)
    }

    /// A frame of this generation in that file, which was written when the one due was durable.
    fn witness_in(&mut self, number: u64) -> Result<Option<FrameHeader>, DiskError> {
        let start = number * self.file_bytes;
        let mut block = vec![0; 256 * WAL_BLOCK_BYTES as usize];
        let mut at = start;
        while at < start + self.file_bytes {
            let read = self.read(at, &mut block)?;
            for (i, head) in block[..read].chunks(WAL_BLOCK_BYTES as usize).enumerate() {
                let position = at + i as u64 * WAL_BLOCK_BYTES;
                if let Some(header) = self.header(head, position)
                    && header.durable > self.position
                {
                    return Ok(Some(header));
                }
            }
            at += block.len() as u64;
        }
        Ok(None)
    }

    fn header(&self, bytes: &[u8], position: u64) -> Option<FrameHeader> {
        let header = FrameHeader::read(bytes, self.seed)?;
        let ours = header.position == position && header.generation == self.generation;
        ours.then_some(header)
    }

    fn frame_at(&mut self, position: u64) -> Result<Option<Frame>, DiskError> {
        let mut head = [0; FRAME_HEADER_BYTES];
        let read = self.read(position, &mut head)?;
        let Some(header) = self.header(&head[..read], position) else {
            return Ok(None);
        };
        let room = self.file_bytes - position % self.file_bytes;
        if header.follows != self.position || header.bytes() > room {
            return Ok(None);
        }
        let mut body = vec![0; header.bytes() as usize - FRAME_HEADER_BYTES];
        let read = self.read(position + FRAME_HEADER_BYTES as u64, &mut body)?;
        let whole = read == body.len() && crc32c(&body) == header.body_crc;
        Ok(whole.then_some(Frame { header, body }))
    }

    /// Reads within one file; a file that is not there has no bytes.
    fn read(&mut self, position: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let (number, within) = (position / self.file_bytes, position % self.file_bytes);
        let path = self.path_of(position);
        if self.current.as_ref().is_none_or(|(n, _)| *n != number) {
            let file = match self.storage.open(&path, Mode::Read) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => return Err(DiskError::new("open", &path, e)),
            };
            self.current = Some((number, file));
        }
        match &self.current {
            Some((_, Some(file))) => file.read_at(buf, within).during("read", &path),
            _ => Ok(0),
        }
    }

    fn path_of(&self, position: u64) -> PathBuf {
        self.layout.wal_file(position / self.file_bytes)
    }
}
