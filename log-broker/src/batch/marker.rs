//! Transaction markers: the control batches that end a transaction in one partition.
//!
//! One record: key version i16 (0), kind i16 (0 abort, 1 commit); value version i16 (0),
//! coordinator epoch i32 (0).

use super::decode::Records;
use super::encode::{BatchEncoder, HeaderBlock, RecordFields};
use super::header::{BatchHeader, CONTROL_BIT, TRANSACTIONAL_BIT};
use crate::producer::Producer;

const ABORT: u8 = 0;
const COMMIT: u8 = 1;

/// Appends a marker to `buf`; answers its size in bytes.
pub(crate) fn write_marker(
    buf: &mut Vec<u8>,
    producer: Producer,
    commits: bool,
    timestamp: i64,
) -> usize {
    let start = buf.len();
    let none = HeaderBlock::default();
    let mut encoder = BatchEncoder::begin(buf);
    encoder.record(&RecordFields {
        timestamp,
        key: Some(&[0, 0, 0, if commits { COMMIT } else { ABORT }]),
        value: Some(&[0; 6]),
        shared: &none,
        own: &none,
    });
    let bytes = encoder.finish().bytes;
    let batch = &mut buf[start..];
    if let Ok(mut header) = BatchHeader::parse(batch) {
        header.attributes = TRANSACTIONAL_BIT | CONTROL_BIT;
        header.producer_id = producer.id;
        header.producer_epoch = producer.epoch;
        header.write(batch);
        BatchHeader::seal(batch);
    }
    bytes
}

/// Whether the marker that `bytes` starts with commits; `None` when it is none.
pub(crate) fn marker_commits(bytes: &[u8]) -> Option<bool> {
    let mut records = Records::new(bytes).ok()?;
    if !records.header().is_control() {
        return None;
    }
    match records.next()?.ok()?.key? {
        [_, _, 0, ABORT, ..] => Some(false),
        [_, _, 0, COMMIT, ..] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_the_control_batch_that_clients_know() {
        let producer = Producer { id: 9, epoch: 4 };
        for commits in [true, false] {
            let mut buf = vec![0xaa; 3];
            let bytes = write_marker(&mut buf, producer, commits, 1234);
            let batch = &buf[3..];
            assert_eq!(bytes, batch.len());
            let header = BatchHeader::verify(batch).expect("whole");
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer(), header.records), (producer, 1));
            assert_eq!((header.base_sequence, header.max_timestamp), (-1, 1234));
            assert_eq!(marker_commits(batch), Some(commits));
            // As Apache Kafka 3.7 writes it: size, attributes, deltas, key and value.
            let record = [
                32,
                0,
                0,
                0,
                8,
                0,
                0,
                0,
                u8::from(commits),
                12,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            assert_eq!(batch[61..], record);
        }
    }

    #[test]
    fn a_batch_of_records_is_no_marker() {
        let mut buf = Vec::new();
        let none = HeaderBlock::default();
        let mut encoder = BatchEncoder::begin(&mut buf);
        encoder.record(&RecordFields {
            timestamp: 1,
            key: Some(&[0, 0, 0, COMMIT]),
            value: None,
            shared: &none,
            own: &none,
        });
        encoder.finish();
        assert_eq!(marker_commits(&buf), None);
    }
}
