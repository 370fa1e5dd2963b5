//! What file it is, and how far it has been enqueued.
//!
//! The store keeps one number for each source and moves it in the same transaction as the
//! messages. Two things keep another file under the same path from being skipped silently:
//!
//! - the source's name holds a fingerprint of the file's first line, which a file that only grows
//!   never changes;
//! - the number holds, beside the offset, a checksum of the bytes right before it, so that a file
//!   which begins alike but goes on differently is refused.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the first line that its fingerprint covers.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Bytes before an offset that its checksum covers.
const TAIL_BYTES: u64 = 4 * 1024;
/// Bits of the checksum. With the offset's they make 63, for stores keep signed numbers.
const CHECK_BITS: u32 = 23;
/// Largest file: 1 TiB.
const OFFSET_MAX: u64 = 1 << 40;

const _: () = assert!(OFFSET_MAX.ilog2() + CHECK_BITS <= 63);

/// A file that is being enqueued.
#[derive(Debug)]
pub struct Source {
    /// The open file.
    pub file: File,
    /// Its path, without links.
    pub path: PathBuf,
    /// Its size when it was opened.
    pub len: u64,
    /// Its name in the store.
    pub name: String,
}

impl Source {
    /// Opens `path` and takes its fingerprint.
    ///
    /// # Errors
    /// When it cannot be read, or is larger than 1 TiB.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(
                "it is not a regular file; use - to read a pipe",
            ));
        }
        let len = metadata.len();
        if len >= OFFSET_MAX {
            let text = format!("it has {len} bytes, the limit is {OFFSET_MAX}");
            return Err(io::Error::other(text));
        }
        let name = format!("{}#{:08x}", path.display(), head_checksum(&file)?);
        Ok(Self {
            file,
            path,
            len,
            name,
        })
    }

    /// The number the store keeps for `offset`; 0 for the beginning.
    pub fn position(&self, offset: u64) -> io::Result<u64> {
        if offset == 0 {
            return Ok(0);
        }
        let length = TAIL_BYTES.min(offset);
        let mut tail = vec![0; length as usize];
        self.file.read_exact_at(&mut tail, offset - length)?;
        let check = u64::from(crc_fast::crc32_iscsi(&tail)) & ((1 << CHECK_BITS) - 1);
        Ok((offset << CHECK_BITS) | check)
    }

    /// The offset of a number that the store kept; `None` when the file is not the one it was
    /// kept for.
    pub fn offset(&self, position: u64) -> io::Result<Option<u64>> {
        let offset = position >> CHECK_BITS;
        if offset > self.len || self.position(offset)? != position {
            return Ok(None);
        }
        Ok(Some(offset))
    }

    /// Lines that end before `offset`.
    pub fn lines_before(&self, offset: u64) -> io::Result<u64> {
        let mut buffer = vec![0; 256 * 1024];
        let (mut at, mut lines) = (0, 0);
        while at < offset {
            let want = buffer
                .len()
                .min(usize::try_from(offset - at).unwrap_or(usize::MAX));
            let read = self.file.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                break;
            }
            lines += buffer[..read].iter().filter(|&&b| b == b'\n').count() as u64;
            at += read as u64;
        }
        Ok(lines)
    }
}

/// Checksum of the first line, without its end.
fn head_checksum(file: &File) -> io::Result<u32> {
    let mut head = Vec::new();
    let mut from_start = At { file, offset: 0 };
    BufReader::new(&mut from_start)
        .take(HEAD_BYTES_MAX)
        .read_until(b'\n', &mut head)?;
    let line = head.strip_suffix(b"\n").unwrap_or(&head);
    Ok(crc_fast::crc32_iscsi(line))
}

/// Reads a shared file from an offset of its own.
#[derive(Debug)]
pub struct At<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the next read begins.
    pub offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn write(path: &Path, text: &str) -> Source {
        std::fs::write(path, text).expect("written");
        Source::open(path).expect("opened")
    }

    #[test]
    fn a_file_that_grows_keeps_its_name_and_positions() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.ndjson");
        let before = write(&path, "{\"a\":1}\n{\"a\":2}\n");
        let position = before.position(16).expect("a position");
        let mut file = File::options().append(true).open(&path).expect("opened");
        file.write_all(b"{\"a\":3}\n").expect("appended");
        let after = Source::open(&path).expect("opened");
        assert_eq!(after.name, before.name);
        assert_eq!(after.offset(position).expect("read"), Some(16));
        assert_eq!(after.lines_before(16).expect("read"), 2);
    }

    #[test]
    fn another_file_under_the_same_path_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.ndjson");
        let first = write(&path, "{\"start\":1}\n{\"a\":2}\n");
        let position = first.position(20).expect("a position");
        let other_head = write(&path, "{\"start\":2}\n{\"a\":2}\n");
        assert_ne!(other_head.name, first.name);
        let same_head = write(&path, "{\"start\":1}\n{\"a\":3}\n");
        assert_eq!(same_head.name, first.name);
        assert_eq!(same_head.offset(position).expect("read"), None);
        let shorter = write(&path, "{\"start\":1}\n");
        assert_eq!(shorter.offset(position).expect("read"), None);
    }

    #[test]
    fn the_beginning_is_position_zero() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = write(&folder.path().join("empty"), "");
        assert_eq!(source.position(0).expect("a position"), 0);
        assert_eq!(source.offset(0).expect("read"), Some(0));
    }
}
