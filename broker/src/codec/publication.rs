//! Duplicate-proof publish over the network: what stands beside the records of a Produce request.
//!
//! Kafka's format leaves room for tagged fields that a reader may skip. Produce from version 9 on
//! may carry field 10,000, the publication, and then the answer carries field 10,000 too: its
//! outcome. A broker that does not know it answers without, so that the publisher can tell.
//!
//! ```text
//! publication  u8 version = 1, publisher (u16 length, UTF-8), epoch i64, low_water i64,
//!              done u8 (0 none, 1: lo i64, hi i64),
//!              n u32, n × (lo i64, hi i64)              the exceptions
//!              n u32, n × (seq i64, redelivery u32)     one for each record, in the order of the
//!                                                       request's topics, partitions and batches
//! outcome      u8: 0 stored
//!                  1 duplicates: n u32, n × index u32
//!                  2 fenced: epoch i64, newer i64
//!                  3 refused for good, 4 refused for now: text (u16 length, UTF-8)
//! ```
//! Everything is big-endian, as in the rest of the request.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use outbox_log_broker::{Publication, Sequence};

use super::CodecError;

/// The tag of both fields.
pub(crate) const PUBLICATION: i32 = 10_000;
/// The first version of Produce that has tagged fields.
pub(crate) const PUBLICATION_FROM: i16 = 9;

const VERSION: u8 = 1;
const RANGE_BYTES: usize = 16;
const SEQUENCE_BYTES: usize = 12;
const INDEX_BYTES: usize = 4;

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// All of it is durable, at the offsets in the rest of the answer.
    Stored,
    /// Nothing was stored: these records, by their place among all, are durable already.
    Duplicates(Vec<usize>),
    /// Nothing was stored: a newer epoch has published.
    Fenced { epoch: i64, newer: i64 },
    /// Nothing was stored, and never will be.
    Refused(String),
    /// Nothing was stored now, as far as is known.
    Unavailable(String),
}

/// Writes the publication's field.
pub(crate) fn write_publication(publication: &Publication) -> Bytes {
    let sequences = publication.sequences.len() * SEQUENCE_BYTES;
    let except = publication.except.len() * RANGE_BYTES;
    let mut out = BytesMut::with_capacity(64 + publication.publisher.len() + sequences + except);
    out.put_u8(VERSION);
    put_text(&mut out, &publication.publisher);
    out.put_i64(publication.epoch);
    out.put_i64(publication.low_water);
    match publication.done {
        None => out.put_u8(0),
        Some((lo, hi)) => {
            out.put_u8(1);
            out.put_i64(lo);
            out.put_i64(hi);
        }
    }
    out.put_u32(publication.except.len() as u32);
    for &(lo, hi) in &publication.except {
        out.put_i64(lo);
        out.put_i64(hi);
    }
    out.put_u32(publication.sequences.len() as u32);
    for sequence in &publication.sequences {
        out.put_i64(sequence.seq);
        out.put_u32(sequence.redelivery);
    }
    out.freeze()
}

/// Reads the publication's field. Every count is checked against the bytes that are there.
pub(crate) fn read_publication(mut field: Bytes) -> Result<Publication, CodecError> {
    const FIELD: &str = "publication";
    let rest = &mut field;
    let version = u8_of(rest, FIELD)?;
    if version != VERSION {
        return Err(bad("version of the publication", i64::from(version)));
    }
    let publisher = text_of(rest, "publisher")?.into();
    let (epoch, low_water) = (i64_of(rest, FIELD)?, i64_of(rest, FIELD)?);
    let done = match u8_of(rest, FIELD)? {
        0 => None,
        1 => Some(range_of(rest)?),
        other => return Err(bad("kind of the publication's range", i64::from(other))),
    };
    let exceptions = count_of(rest, RANGE_BYTES, "number of exceptions")?;
    let except = (0..exceptions)
        .map(|_| range_of(rest))
        .collect::<Result<_, _>>()?;
    let records = count_of(rest, SEQUENCE_BYTES, "number of sequences")?;
    let mut sequences = Vec::with_capacity(records);
    for _ in 0..records {
        sequences.push(Sequence {
            seq: i64_of(rest, FIELD)?,
            redelivery: u32_of(rest, FIELD)?,
        });
    }
    end_of(
        rest,
        Publication {
            publisher,
            epoch,
            sequences,
            done,
            except,
            low_water,
        },
    )
}

/// Writes the outcome's field.
pub(crate) fn write_published(published: &Published) -> Bytes {
    let mut out = BytesMut::new();
    match published {
        Published::Stored => out.put_u8(0),
        Published::Duplicates(indexes) => {
            out.put_u8(1);
            out.put_u32(indexes.len() as u32);
            for &index in indexes {
                out.put_u32(index as u32);
            }
        }
        Published::Fenced { epoch, newer } => {
            out.put_u8(2);
            out.put_i64(*epoch);
            out.put_i64(*newer);
        }
        Published::Refused(text) => {
            out.put_u8(3);
            put_text(&mut out, text);
        }
        Published::Unavailable(text) => {
            out.put_u8(4);
            put_text(&mut out, text);
        }
    }
    out.freeze()
}

/// Reads the outcome's field.
pub(crate) fn read_published(mut field: Bytes) -> Result<Published, CodecError> {
    const FIELD: &str = "outcome of the publication";
    let rest = &mut field;
    let published = match u8_of(rest, FIELD)? {
        0 => Published::Stored,
        1 => {
            let count = count_of(rest, INDEX_BYTES, "number of duplicates")?;
            let indexes = (0..count).map(|_| Ok(u32_of(rest, FIELD)? as usize));
            Published::Duplicates(indexes.collect::<Result<_, _>>()?)
        }
        2 => Published::Fenced {
            epoch: i64_of(rest, FIELD)?,
            newer: i64_of(rest, FIELD)?,
        },
        3 => Published::Refused(text_of(rest, FIELD)?),
        4 => Published::Unavailable(text_of(rest, FIELD)?),
        other => return Err(bad(FIELD, i64::from(other))),
    };
    end_of(rest, published)
}

fn put_text(out: &mut BytesMut, text: &str) {
    let end = (0..=text.len().min(usize::from(u16::MAX)))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    out.put_u16(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn text_of(rest: &mut Bytes, field: &'static str) -> Result<String, CodecError> {
    need(rest, 2, field)?;
    let length = usize::from(rest.get_u16());
    need(rest, length, field)?;
    let bytes = rest.split_to(length).to_vec();
    String::from_utf8(bytes).map_err(|_| bad(field, -1))
}

fn range_of(rest: &mut Bytes) -> Result<(i64, i64), CodecError> {
    const FIELD: &str = "range of the publication";
    match (i64_of(rest, FIELD)?, i64_of(rest, FIELD)?) {
        (lo, hi) if lo > hi => Err(bad(FIELD, lo)),
        range => Ok(range),
    }
}

fn count_of(rest: &mut Bytes, each: usize, field: &'static str) -> Result<usize, CodecError> {
    let count = u32_of(rest, field)? as usize;
    match count <= rest.len() / each {
        true => Ok(count),
        false => Err(bad(field, count as i64)),
    }
}

fn u8_of(rest: &mut Bytes, field: &'static str) -> Result<u8, CodecError> {
    need(rest, 1, field)?;
    Ok(rest.get_u8())
}

fn u32_of(rest: &mut Bytes, field: &'static str) -> Result<u32, CodecError> {
    need(rest, 4, field)?;
    Ok(rest.get_u32())
}

fn i64_of(rest: &mut Bytes, field: &'static str) -> Result<i64, CodecError> {
    need(rest, 8, field)?;
    Ok(rest.get_i64())
}

fn need(rest: &Bytes, bytes: usize, field: &'static str) -> Result<(), CodecError> {
    match rest.len() >= bytes {
        true => Ok(()),
        false => Err(CodecError::Short { field }),
    }
}

fn end_of<T>(rest: &Bytes, value: T) -> Result<T, CodecError> {
    match rest.is_empty() {
        true => Ok(value),
        false => Err(bad(
            "number of bytes behind the publication",
            rest.len() as i64,
        )),
    }
}

fn bad(field: &'static str, value: i64) -> CodecError {
    CodecError::Field { field, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication {
            publisher: "incarnation/destination".into(),
            epoch: 7,
            sequences: vec![
                Sequence {
                    seq: 3,
                    redelivery: 0,
                },
                Sequence {
                    seq: 5,
                    redelivery: 2,
                },
            ],
            done: Some((1, 9)),
            except: vec![(4, 4), (6, 8)],
            low_water: 2,
        }
    }

    #[test]
    fn a_publication_comes_out_as_it_went_in_and_no_prefix_is_taken_for_whole() {
        let field = write_publication(&publication());
        assert_eq!(
            read_publication(field.clone()).expect("reads"),
            publication()
        );
        for cut in 0..field.len() {
            read_publication(field.slice(..cut)).expect_err("a prefix");
        }
    }

    #[test]
    fn every_outcome_comes_out_as_it_went_in() {
        for published in [
            Published::Stored,
            Published::Duplicates(vec![0, 7]),
            Published::Fenced { epoch: 1, newer: 2 },
            Published::Refused("why".to_owned()),
            Published::Unavailable("é".repeat(40_000)),
        ] {
            let read = read_published(write_published(&published)).expect("reads");
            match (&read, &published) {
                // A text may be cut, between two characters.
                (Published::Unavailable(read), Published::Unavailable(text)) => {
                    assert!(text.starts_with(read.as_str()) && read.len() > 65_000);
                }
                _ => assert_eq!(read, published),
            }
        }
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_before_anything_is_reserved() {
        let mut field = BytesMut::from(&write_publication(&publication())[..]);
        let sequences = field.len() - 2 * SEQUENCE_BYTES - 4;
        field[sequences..sequences + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let error = read_publication(field.freeze()).expect_err("too many");
        assert!(error.to_string().contains("number of sequences"), "{error}");
    }
}
