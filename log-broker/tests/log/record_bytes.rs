//! Record batches: what is written is read back, and nothing that is not one is accepted.

use outbox_log_broker::batch::{
    BatchEncoder, BatchHeader, HeaderBlock, RecordFields, Records, record_bytes,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Fields {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    shared: usize,
}

fn fields() -> impl Strategy<Value = Fields> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let header = ("[a-z_-]{0,20}", prop::collection::vec(any::<u8>(), 0..40));
    let headers = prop::collection::vec(header, 0..5);
    (
        any::<i64>(),
        prop::option::of(bytes()),
        prop::option::of(bytes()),
        headers,
        0usize..5,
    )
        .prop_map(|(timestamp, key, value, headers, shared)| Fields {
            timestamp: timestamp >> 4,
            key,
            value,
            shared: shared.min(headers.len()),
            headers,
        })
}

fn block(headers: &[(String, Vec<u8>)]) -> HeaderBlock {
    let mut block = HeaderBlock::default();
    for (name, value) in headers {
        block.push(name, value);
    }
    block
}

fn encode(buffer: &mut Vec<u8>, records: &[Fields]) -> usize {
    let mut encoder = BatchEncoder::begin(buffer);
    for f in records {
        let (shared, own) = f.headers.split_at(f.shared);
        let (shared, own) = (block(shared), block(own));
        let fields = RecordFields {
            timestamp: f.timestamp,
            key: f.key.as_deref(),
            value: f.value.as_deref(),
            shared: &shared,
            own: &own,
        };
        let before = encoder.bytes();
        encoder.record(&fields);
        assert!(encoder.bytes() - before <= record_bytes(&fields));
    }
    encoder.finish().bytes
}

proptest! {
    #[test]
    fn a_batch_reads_back_as_written(records in prop::collection::vec(fields(), 1..20)) {
        let mut buffer = b"before".to_vec();
        let bytes = encode(&mut buffer, &records);
        let batch = &buffer[6..];
        prop_assert_eq!(batch.len(), bytes);
        let header = BatchHeader::verify(batch).expect("a batch");
        prop_assert_eq!(header.records as usize, records.len());
        let latest = records.iter().map(|r| r.timestamp).max();
        prop_assert_eq!(Some(header.max_timestamp), latest);
        let read = Records::new(batch).expect("a batch");
        for (n, (read, written)) in read.zip(&records).enumerate() {
            let read = read.expect("a record");
            prop_assert_eq!(read.offset, n as i64);
            prop_assert_eq!(read.timestamp, written.timestamp);
            prop_assert_eq!(read.key, written.key.as_deref());
            prop_assert_eq!(read.value, written.value.as_deref());
            let headers: Vec<_> = read
                .headers
                .map(|h| (h.name.to_vec(), h.value.unwrap_or_default().to_vec()))
                .collect();
            let expected: Vec<_> = written
                .headers
                .iter()
                .map(|(n, v)| (n.clone().into_bytes(), v.clone()))
                .collect();
            prop_assert_eq!(headers, expected);
        }
        for cut in 0..batch.len() {
            prop_assert!(BatchHeader::verify(&batch[..cut]).is_err());
        }
    }

    /// With a right checksum around wrong records, as a hostile client would send.
    #[test]
    fn hostile_records_are_errors_and_never_panics(
        body in prop::collection::vec(any::<u8>(), 0..200),
        count in 1i32..50,
    ) {
        let mut batch = Vec::new();
        encode(&mut batch, &[Fields {
            timestamp: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            shared: 0,
        }]);
        batch.truncate(61);
        batch.extend_from_slice(&body);
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        let records = Records::new(&batch).expect("the head is fine");
        prop_assert!(records.filter(Result::is_ok).count() <= count as usize);
    }

    #[test]
    fn random_bytes_are_no_batch(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(BatchHeader::verify(&bytes).is_err());
    }
}

#[test]
fn the_bytes_are_those_that_kafka_writes() {
    let mut batch = Vec::new();
    encode(
        &mut batch,
        &[Fields {
            timestamp: 1_600_000_000_000,
            key: Some(b"k".to_vec()),
            value: Some(b"hello".to_vec()),
            headers: vec![("h".to_owned(), b"v".to_vec())],
            shared: 1,
        }],
    );
    // Record: length 16 (zigzag 32), attributes, timestamp delta, offset delta, key, value,
    // one header.
    let record = [
        &[32, 0, 0, 0, 2][..],
        b"k",
        &[10],
        b"hello",
        &[2, 2],
        b"h",
        &[2],
        b"v",
    ]
    .concat();
    assert_eq!(&batch[61..], record);
    assert_eq!(&batch[8..12], &(49 + record.len() as i32).to_be_bytes());
    assert_eq!(batch[16], 2);
}
