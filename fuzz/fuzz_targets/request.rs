//! Any request of Kafka's protocol, as the broker reads it.
//!
//! One byte chooses the request, one its version; the rest is its body.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: outbox_fuzz::allow_allocations_up_to(16 << 20),
    |data: &[u8]| outbox_broker::fuzzing::request(data)
);
