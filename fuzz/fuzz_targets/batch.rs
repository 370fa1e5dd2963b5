//! Record batches: checked, opened, read, and what a publication says about them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outbox_log_broker::batch::{BatchHeader, Records, open};
use outbox_log_broker::limits::OPENED_BATCH_BYTES_MAX;

fuzz_target!(
    init: outbox_fuzz::allow_allocations_up_to(2 * OPENED_BATCH_BYTES_MAX),
    |data: &[u8]| {
        outbox_broker::fuzzing::publication(data);
        let mut sealed = data.to_vec();
        read(&sealed);
        // With a checksum that is right, so that what stands behind it is read.
        if sealed.len() > 61 {
            let length = sealed.len() as i32 - 12;
            sealed[8..12].copy_from_slice(&length.to_be_bytes());
            sealed[16] = 2;
            let crc = crc32c::crc32c(&sealed[21..]);
            sealed[17..21].copy_from_slice(&crc.to_be_bytes());
            read(&sealed);
        }
    }
);

fn read(bytes: &[u8]) {
    let Ok(header) = BatchHeader::verify(bytes) else {
        return;
    };
    assert!(
        header.bytes <= bytes.len(),
        "a batch reaches beyond its bytes"
    );
    let Ok(opened) = open(bytes) else { return };
    let Ok(records) = Records::new(&opened) else {
        return;
    };
    let mut count = 0;
    for record in records {
        let Ok(record) = record else { return };
        assert!(
            record.offset >= header.base_offset,
            "an offset before its batch"
        );
        count += record.headers.count();
    }
    std::hint::black_box(count);
}
