//! The write-ahead log: one shared journal, one frame for each sync.

mod entry;
mod field;
mod files;
mod frame;
mod scan;

use std::io::IoSlice;
use std::sync::Arc;

pub(crate) use entry::Entry;
pub(crate) use files::WalFiles;
pub(crate) use frame::{FRAME_HEADER_BYTES, FrameHeader};
pub(crate) use scan::{Frame, WalScan};

use crate::checksum::{crc32c, crc32c_append};
use crate::error::{Context, DiskError};
use crate::limits::WAL_BLOCK_BYTES;
use crate::storage::File;

/// The end of the WAL, where frames are written. Owned by the writer alone.
pub(crate) struct Wal {
    files: Arc<WalFiles>,
    seed: u32,
    generation: u64,
    /// Where the last frame ends.
    position: u64,
    /// Everything before this is synced.
    synced: u64,
    current: Option<(u64, Arc<dyn File>)>,
    /// The last file that was asked for ahead.
    wanted: u64,
    /// A frame that could not be written whole stood here: it must be unmade before another one
    /// follows, or recovery could take it for acknowledged.
    spoiled: Option<u64>,
}

/// Why a frame was not made durable.
pub(crate) enum WalError {
    /// There is no room. The WAL is as before.
    Full(DiskError),
    /// Nothing is known about the WAL's end any more.
    Fatal(DiskError),
}

impl From<DiskError> for WalError {
    fn from(error: DiskError) -> Self {
        if error.is_full() {
            Self::Full(error)
        } else {
            Self::Fatal(error)
        }
    }
}

impl Wal {
    /// The WAL of one start, from `position`, the beginning of an unused file, on.
    pub fn new(files: Arc<WalFiles>, seed: u32, generation: u64, position: u64) -> Self {
        Self {
            files,
            seed,
            generation,
            position,
            synced: position,
            current: None,
            wanted: 0,
            spoiled: None,
        }
    }

    /// Most bytes of entries and batches that a frame holds.
    pub fn body_max(&self) -> usize {
        self.files.file_bytes() as usize - FRAME_HEADER_BYTES
    }

    /// Where the last frame ends.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether every frame is synced.
    pub fn is_synced(&self) -> bool {
        self.synced == self.position
    }

    /// Writes one frame, the entries in `meta`, then `data`, and syncs it and all before it, unless
    /// that can wait. The first [`FRAME_HEADER_BYTES`] of `meta` are overwritten with the head.
    /// Answers where it ends.
    pub fn commit(
        &mut self,
        meta: &mut [u8],
        data: &[&[u8]],
        wall_ms: i64,
        sync: bool,
    ) -> Result<u64, WalError> {
        self.unmake_spoiled()?;
        let bytes = meta.len() + data.iter().map(|d| d.len()).sum::<usize>();
        let at = self.place(bytes as u64);
        let file = self.file(at / self.files.file_bytes())?;
        let header = self.seal(meta, data, wall_ms, at);
        let mut parts = Vec::with_capacity(data.len() + 1);
        parts.push(IoSlice::new(meta));
        parts.extend(data.iter().map(|d| IoSlice::new(d)));
        let path = self.files.path_of(at);
        if let Err(e) = file.write_at(&parts, at % self.files.file_bytes()) {
            self.spoiled = Some(at);
            return Err(DiskError::new("write", &path, e).into());
        }
        self.position = header.end();
        if sync {
            self.sync()?;
        }
        self.look_ahead(at);
        Ok(self.position)
    }

    /// Syncs what is not synced yet: it is all in one file.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if let Some((number, file)) = &self.current
            && !self.is_synced()
        {
            let path = self.files.path_of(number * self.files.file_bytes());
            // A failed sync is never "full", whatever it says: the pages may be marked clean now,
            // and a second sync would lie.
            file.sync().during("sync", &path).map_err(WalError::Fatal)?;
            self.synced = self.position;
        }
        Ok(())
    }

    /// Has the next file made when the current one is a quarter full: early enough for a busy
    /// log, and never for one that hardly writes.
    fn look_ahead(&mut self, at: u64) {
        let size = self.files.file_bytes();
        let number = at / size;
        if self.position % size >= size / 4 && self.wanted != number + 1 {
            self.wanted = number + 1;
            self.files.want(number + 1);
        }
    }

    /// Fills in the frame's head.
    fn seal(&self, meta: &mut [u8], data: &[&[u8]], wall_ms: i64, at: u64) -> FrameHeader {
        let mut crc = crc32c(&meta[FRAME_HEADER_BYTES..]);
        let mut data_len = 0;
        for part in data {
            crc = crc32c_append(crc, part);
            data_len += part.len();
        }
        let header = FrameHeader {
            position: at,
            generation: self.generation,
            durable: self.synced,
            follows: self.position,
            wall_ms,
            meta_len: (meta.len() - FRAME_HEADER_BYTES) as u32,
            data_len: data_len as u32,
            body_crc: crc,
        };
        header.write(meta, self.seed);
        header
    }

    /// Where a frame of `bytes` stands: behind the last one, or in the next file.
    fn place(&self, bytes: u64) -> u64 {
        let size = self.files.file_bytes();
        if self.position % size + bytes > size {
            self.position.next_multiple_of(size)
        } else {
            self.position
        }
    }

    fn file(&mut self, number: u64) -> Result<Arc<dyn File>, WalError> {
        if let Some((current, file)) = &self.current
            && *current == number
        {
            return Ok(file.clone());
        }
        // The sync of a later frame does not reach into another file.
        self.sync()?;
        let file = self.files.take(number)?;
        self.current = Some((number, file.clone()));
        Ok(file)
    }

    fn unmake_spoiled(&mut self) -> Result<(), WalError> {
        let Some(at) = self.spoiled else {
            return Ok(());
        };
        let size = self.files.file_bytes();
        let (file, path) = (self.file(at / size)?, self.files.path_of(at));
        let zeros = [0; WAL_BLOCK_BYTES as usize];
        file.write_at(&[IoSlice::new(&zeros)], at % size)
            .during("write", &path)?;
        file.sync().during("sync", &path).map_err(WalError::Fatal)?;
        self.spoiled = None;
        Ok(())
    }
}
