//! The log that the storage target damages: as it was after a kill, with a checkpoint and frames behind
//! it. It is committed, for its random id would make the inputs mean something else each time.

use std::path::{Path, PathBuf};

/// Where the log lies on the disk in memory.
pub const DIR: &str = "/log";

/// Bytes of a WAL file.
pub const WAL_FILE_BYTES: u64 = 65_536;

/// Zeros in a row that are not worth being written.
const GAP: usize = 16;

/// Of each file its path below [`DIR`], a NUL, its length (u32), and what is in it: place (u32), length
/// (u32) and bytes of each piece between zeros, and a piece without bytes.
pub fn pack(files: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (path, bytes) in files {
        let name = path.strip_prefix(DIR).expect("below the log's folder");
        packed.extend(name.to_str().expect("text").as_bytes());
        packed.push(0);
        packed.extend((bytes.len() as u32).to_le_bytes());
        let mut at = 0;
        while let Some(from) = bytes[at..].iter().position(|&b| b != 0).map(|n| at + n) {
            let zeros = bytes[from..]
                .windows(GAP)
                .position(|w| w.iter().all(|&b| b == 0));
            let to = zeros.map_or(bytes.len(), |n| from + n);
            packed.extend((from as u32).to_le_bytes());
            packed.extend(((to - from) as u32).to_le_bytes());
            packed.extend(&bytes[from..to]);
            at = to;
        }
        packed.extend([0; 8]);
    }
    packed
}

/// What [`pack`] packed.
pub fn unpack(mut packed: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    fn number(packed: &mut &[u8]) -> usize {
        let (number, rest) = packed.split_first_chunk::<4>().expect("four bytes");
        *packed = rest;
        u32::from_le_bytes(*number) as usize
    }
    let mut files = Vec::new();
    while let Some(end) = packed.iter().position(|&b| b == 0) {
        let name = std::str::from_utf8(&packed[..end]).expect("text");
        packed = &packed[end + 1..];
        let mut bytes = vec![0; number(&mut packed)];
        loop {
            let (at, len) = (number(&mut packed), number(&mut packed));
            let (piece, rest) = packed.split_at(len);
            packed = rest;
            if len == 0 {
                break;
            }
            bytes[at..at + len].copy_from_slice(piece);
        }
        files.push((Path::new(DIR).join(name), bytes));
    }
    files
}

/// Makes the checksums of the checkpoint right, so that what stands behind them is read.
pub fn seal_state(bytes: &mut Vec<u8>) {
    let Some(line) = bytes.iter().position(|&b| b == b'\n') else {
        return;
    };
    let body = bytes.split_off(line + 1);
    let crc = crc32c::crc32c(&body);
    *bytes = format!("outbox-log-state 1 crc32c={crc:08x} bytes={}\n", body.len()).into_bytes();
    bytes.extend(body);
}

/// Makes the checksums of all frames right, for a log whose id has this checksum.
pub fn seal_wal(bytes: &mut [u8], seed: u32) {
    for at in (0..bytes.len()).step_by(4096) {
        let frame = &mut bytes[at..];
        if frame.len() < 64 || !frame.starts_with(b"OLW1") {
            continue;
        }
        let number = |at: usize| {
            let bytes = frame[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        let len = number(40).saturating_add(number(44));
        if let Some(body) = frame.get(64..64_usize.saturating_add(len)) {
            let crc = crc32c::crc32c(body);
            frame[48..52].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(seed, &frame[8..64]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Makes the checksum of each record batch of a segment right.
pub fn seal_segment(mut bytes: &mut [u8]) {
    // Base offset and length stand before what the length counts.
    while let Some(length) = bytes.get(8..12) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let end = (length as usize).saturating_add(12);
        let Some(batch) = bytes.get_mut(..end).filter(|batch| batch.len() > 21) else {
            return;
        };
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes = &mut bytes[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let spread = [&[0; 40][..], b"abc", &[0; 15], b"d", &[0; 16], b"e"].concat();
        let file = |name: &str, bytes: Vec<u8>| (Path::new(DIR).join(name), bytes);
        let files = vec![
            file("a/b", spread),
            file("c", vec![0; 7]),
            file("d", vec![1]),
        ];
        assert_eq!(unpack(&pack(&files)), files);
    }
}
