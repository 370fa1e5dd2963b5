//! One WAL frame: what one sync makes durable.
//!
//! ```text
//!  0  magic       u32   "OLW1"
//!  4  header_crc  u32   CRC32C of bytes 8..64, seeded with the log's id
//!  8  position    u64   where the frame stands
//! 16  generation  u64   of the start that wrote it
//! 24  durable     u64   everything before this was synced when the frame was written
//! 32  wall_ms     i64   when it was written
//! 40  meta_len    u32   entries, see `entry`
//! 44  data_len    u32   record batches, in the order of the entries
//! 48  body_crc    u32   CRC32C of entries and batches
//! 52  follows     u64   where the frame before ended
//! 60  zeros
//! 64  entries, then batches; the next frame stands on the next 4 KiB boundary
//! ```
//! All numbers are little-endian.

use crate::checksum::crc32c_append;
use crate::limits::WAL_BLOCK_BYTES;

/// Bytes of the head.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"OLW1");

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub position: u64,
    pub generation: u64,
    /// Every byte before this was known to be synced when the frame was written. Frames that only
    /// hold records of topics with `flush = async` may stand between.
    pub durable: u64,
    /// Where the frame before ended: what makes frames a chain.
    pub follows: u64,
    pub wall_ms: i64,
    pub meta_len: u32,
    pub data_len: u32,
    pub body_crc: u32,
}

impl FrameHeader {
    /// Writes the head to the front of `buf`. `seed` ties it to this log, so that a frame inside
    /// somebody's payload is never taken for one.
    pub fn write(&self, buf: &mut [u8], seed: u32) {
        buf[..FRAME_HEADER_BYTES].fill(0);
        buf[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        buf[8..16].copy_from_slice(&self.position.to_le_bytes());
        buf[16..24].copy_from_slice(&self.generation.to_le_bytes());
        buf[24..32].copy_from_slice(&self.durable.to_le_bytes());
        buf[32..40].copy_from_slice(&self.wall_ms.to_le_bytes());
        buf[40..44].copy_from_slice(&self.meta_len.to_le_bytes());
        buf[44..48].copy_from_slice(&self.data_len.to_le_bytes());
        buf[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        buf[52..60].copy_from_slice(&self.follows.to_le_bytes());
        let crc = crc32c_append(seed, &buf[8..FRAME_HEADER_BYTES]);
        buf[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a head; `None` when the bytes are not one of this log.
    pub fn read(bytes: &[u8], seed: u32) -> Option<Self> {
        let head = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        if u32_at(head, 0) != MAGIC || u32_at(head, 4) != crc32c_append(seed, &head[8..]) {
            return None;
        }
        Some(Self {
            position: u64_at(head, 8),
            generation: u64_at(head, 16),
            durable: u64_at(head, 24),
            wall_ms: u64_at(head, 32) as i64,
            meta_len: u32_at(head, 40),
            data_len: u32_at(head, 44),
            body_crc: u32_at(head, 48),
            follows: u64_at(head, 52),
        })
    }

    /// Bytes of the whole frame.
    pub fn bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.meta_len) + u64::from(self.data_len)
    }

    /// Where the next frame stands, unless it does not fit the file.
    pub fn end(&self) -> u64 {
        (self.position + self.bytes()).next_multiple_of(WAL_BLOCK_BYTES)
    }
}

fn u32_at(head: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&head[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(head: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&head[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_as_written_and_no_flipped_bit_is_accepted() {
        let header = FrameHeader {
            position: 8192,
            generation: 3,
            durable: 4096,
            follows: 8192,
            wall_ms: 1_700_000_000_000,
            meta_len: 10,
            data_len: 5000,
            body_crc: 7,
        };
        let mut buf = [0xaa; FRAME_HEADER_BYTES];
        header.write(&mut buf, 99);
        assert_eq!(FrameHeader::read(&buf, 99), Some(header));
        assert_eq!(header.end(), 16384);
        assert_eq!(FrameHeader::read(&buf, 98), None, "another log's frame");
        for bit in 0..buf.len() * 8 {
            let mut flipped = buf;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::read(&flipped, 99), None, "bit {bit}");
        }
    }
}
