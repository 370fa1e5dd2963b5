//! Opens compressed batches: for whoever looks into records, never on the way to a reader.

use std::borrow::Cow;
use std::io::Read;

use super::decode::DecodeError;
use super::header::{BatchHeader, HEADER_BYTES};
use crate::limits::OPENED_BATCH_BYTES_MAX;

/// What xerial's Snappy stream, which Kafka's clients write, begins with.
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Its magic and two version numbers.
const XERIAL_HEAD_BYTES: usize = 16;

/// The batch that `bytes` starts with, uncompressed: as it stands if it is that already, and
/// otherwise with its head and checksum made anew. Its checksum is verified.
///
/// # Errors
/// When it is not a whole batch, cannot be decompressed, or is larger than
/// [`OPENED_BATCH_BYTES_MAX`] when it is.
pub fn open(bytes: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    let header = BatchHeader::verify(bytes)?;
    if !header.is_compressed() {
        return Ok(Cow::Borrowed(&bytes[..header.bytes]));
    }
    let packed = &bytes[HEADER_BYTES..header.bytes];
    let records = unpack(header.codec(), packed).map_err(|problem| DecodeError::Compression {
        base_offset: header.base_offset,
        problem,
    })?;
    Ok(Cow::Owned(rebuild(&header, header.records, &records)))
}

/// A batch of `records`, encoded and uncompressed, in the place of the one with that head.
pub(crate) fn rebuild(header: &BatchHeader, count: i32, records: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; HEADER_BYTES];
    batch.extend_from_slice(records);
    let header = BatchHeader {
        bytes: batch.len(),
        records: count,
        ..header.uncompressed()
    };
    header.write(&mut batch);
    BatchHeader::seal(&mut batch);
    batch
}

fn unpack(codec: u8, packed: &[u8]) -> Result<Vec<u8>, String> {
    match codec {
        1 => drain(flate2::read::MultiGzDecoder::new(packed)),
        2 => snappy(packed),
        3 => drain(lz4_flex::frame::FrameDecoder::new(packed)),
        4 => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed);
            drain(decoder.map_err(|e| e.to_string())?)
        }
        other => Err(format!("codec {other} is unknown")),
    }
}

fn drain(from: impl Read) -> Result<Vec<u8>, String> {
    let mut records = Vec::new();
    let mut from = from.take(OPENED_BATCH_BYTES_MAX as u64 + 1);
    from.read_to_end(&mut records).map_err(|e| e.to_string())?;
    check_size(records.len())?;
    Ok(records)
}

fn check_size(bytes: usize) -> Result<(), String> {
    if bytes > OPENED_BATCH_BYTES_MAX {
        return Err(format!(
            "it is larger than {OPENED_BATCH_BYTES_MAX} bytes when it is opened"
        ));
    }
    Ok(())
}

/// Snappy, as one block or as xerial's stream of blocks with their lengths before them.
fn snappy(packed: &[u8]) -> Result<Vec<u8>, String> {
    if !packed.starts_with(XERIAL_MAGIC) {
        return snappy_block(packed, 0);
    }
    let mut rest = packed.get(XERIAL_HEAD_BYTES..).ok_or("it ends early")?;
    let mut records = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let block = tail.split_at_checked(u32::from_be_bytes(*length) as usize);
        let (block, tail) = block.ok_or("a block ends early")?;
        rest = tail;
        records.extend(snappy_block(block, records.len())?);
    }
    Ok(records)
}

fn snappy_block(block: &[u8], before: usize) -> Result<Vec<u8>, String> {
    let bytes = snap::raw::decompress_len(block).map_err(|e| e.to_string())?;
    check_size(before.saturating_add(bytes))?;
    let mut decoder = snap::raw::Decoder::new();
    decoder.decompress_vec(block).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::batch::{BatchEncoder, HeaderBlock, RecordFields, Records};

    fn plain(records: usize) -> Vec<u8> {
        let (mut buffer, none) = (Vec::new(), HeaderBlock::default());
        let mut encoder = BatchEncoder::begin(&mut buffer);
        for n in 0..records {
            encoder.record(&RecordFields {
                timestamp: n as i64,
                key: Some(format!("key-{n}").as_bytes()),
                value: Some(&[b'x'; 300]),
                shared: &none,
                own: &none,
            });
        }
        encoder.finish();
        buffer
    }

    /// The same batch, its records packed as `packed`.
    fn compressed(batch: &[u8], codec: i16, packed: &[u8]) -> Vec<u8> {
        let header = BatchHeader::parse(batch).expect("a batch");
        let mut made = vec![0; HEADER_BYTES];
        made.extend_from_slice(packed);
        let header = BatchHeader {
            attributes: codec,
            bytes: made.len(),
            ..header
        };
        header.write(&mut made);
        BatchHeader::seal(&mut made);
        made
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).expect("packed");
        encoder.finish().expect("packed")
    }

    /// As the Java client packs: blocks of 32 KiB in xerial's stream.
    fn xerial(bytes: &[u8]) -> Vec<u8> {
        let mut packed = XERIAL_MAGIC.to_vec();
        packed.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        for block in bytes.chunks(32 * 1024) {
            let block = snap::raw::Encoder::new()
                .compress_vec(block)
                .expect("packed");
            packed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            packed.extend_from_slice(&block);
        }
        packed
    }

    #[test]
    fn a_batch_of_every_codec_opens_to_what_was_packed() {
        let batch = plain(300);
        let records = &batch[HEADER_BYTES..];
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(records).expect("packed");
        let zstd =
            ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest);
        let packed = [
            (1, gzip(records)),
            (
                2,
                snap::raw::Encoder::new()
                    .compress_vec(records)
                    .expect("packed"),
            ),
            (2, xerial(records)),
            (3, lz4.finish().expect("packed")),
            (4, zstd),
        ];
        for (codec, packed) in &packed {
            assert!(packed.len() < records.len(), "codec {codec}");
            let made = compressed(&batch, *codec, packed);
            assert!(
                Records::new(&made).is_err(),
                "codec {codec}: it is compressed"
            );
            let opened = open(&made).unwrap_or_else(|e| panic!("codec {codec}: {e}"));
            assert_eq!(opened[..], batch[..], "codec {codec}");
            for cut in [1, packed.len() / 2, packed.len() - 1] {
                let torn = compressed(&batch, *codec, &packed[..cut]);
                // A codec without an end mark may stop early; nothing is ever made up.
                let opened = open(&torn);
                let made_up = opened.is_ok_and(|b| !records.starts_with(&b[HEADER_BYTES..]));
                assert!(!made_up, "codec {codec}, cut at {cut}");
            }
        }
        assert!(
            open(&compressed(&batch, 5, records)).is_err(),
            "no such codec"
        );
    }

    #[test]
    fn a_small_batch_that_claims_to_be_huge_is_refused() {
        let huge = vec![0; OPENED_BATCH_BYTES_MAX + 1];
        let batch = plain(1);
        for (codec, packed) in [
            (1, gzip(&huge)),
            (
                2,
                snap::raw::Encoder::new()
                    .compress_vec(&huge)
                    .expect("packed"),
            ),
        ] {
            let error = open(&compressed(&batch, codec, &packed)).expect_err("refused");
            assert!(error.to_string().contains("larger than"), "{error}");
        }
    }
}
