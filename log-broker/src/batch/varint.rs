//! Zigzag varints, as in Kafka records.

/// Bytes that `value` takes as a zigzag varint.
pub(super) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value` as a zigzag varint.
#[inline]
pub(super) fn put(buf: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buf.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    buf.push(rest as u8);
}

/// Takes a zigzag varint off the front of `bytes`; `None` when it is cut short or longer than 64
/// bits.
#[inline]
pub(super) fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_reads_back_as_written_and_takes_the_size_announced(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            let mut buf = Vec::new();
            put(&mut buf, value);
            prop_assert_eq!(buf.len(), size(value));
            let mut rest = buf.as_slice();
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take(&mut &buf[..buf.len() - 1]), None);
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(take(&mut [0xff; 11].as_slice()), None);
        let mut eleven_bits_too_many = [0xffu8; 10];
        eleven_bits_too_many[9] = 2;
        assert_eq!(take(&mut eleven_bits_too_many.as_slice()), None);
    }
}
