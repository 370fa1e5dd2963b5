//! CRC-32C (Castagnoli; RFC 3720, appendix B.4): of record batches, and of what the log itself writes.
//!
//! Every byte is checked when it comes, when it is read for somebody and when it is read back, so that
//! its cost is part of every figure: vector instructions where the machine has them.

use crc_fast::{CrcAlgorithm, Digest};

/// That of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// That of what `crc` is the checksum of, with `bytes` behind it.
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // A checksum is its state with all bits turned.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn the_checksum_is_that_of_another_implementation(
            bytes in prop::collection::vec(any::<u8>(), 0..5_000),
            cut in any::<prop::sample::Index>(),
        ) {
            let due = ::crc32c::crc32c(&bytes);
            prop_assert_eq!(crc32c(&bytes), due);
            let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32c_append(crc32c(front), back), due);
            prop_assert_eq!(crc32c_append(::crc32c::crc32c(front), back), due);
        }
    }
}
