//! The identity by which a record is recognised.

use outbox_core::Record;
use uuid::Uuid;

/// Namespace of derived ids. It must never change: old inbox rows would no longer match.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f1f_53b4_91d3_5f7e_a1d2_6c1b_7c0e_42aa);

/// The id under which `record` is accepted: its message's id, or, for a record that did not come
/// from an outbox, the UUIDv5 of `topic \n partition \n offset` in a fixed namespace.
///
/// A derived id recognises a record that is delivered again from the same place. It cannot
/// recognise a record that its producer appended twice, and a topic that is deleted and created
/// again under the same name repeats it: give the consumer a new name then.
pub fn record_id(record: &Record) -> Uuid {
    record.id.unwrap_or_else(|| {
        let place = format!(
            "{}\n{}\n{}",
            record.partition.topic, record.partition.partition, record.offset
        );
        Uuid::new_v5(&NAMESPACE, place.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn a_record_with_an_id_keeps_it() {
        let id = Uuid::now_v7();
        let mut record = record("t", "k", "x");
        record.id = Some(id);
        assert_eq!(record_id(&record), id);
    }

    #[test]
    fn a_derived_id_depends_on_the_place_alone_and_stays_the_same_for_ever() {
        let mut a = record("t", "k", "x");
        a.id = None;
        let mut b = a.clone();
        b.payload = "y".into();
        assert_eq!(record_id(&a), record_id(&b));
        assert_eq!(
            record_id(&a).to_string(),
            "9f57870d-de7c-519d-a865-43d5db299914"
        );
        b.offset = 1;
        assert_ne!(record_id(&a), record_id(&b));
        b.offset = 0;
        b.partition.partition = 1;
        assert_ne!(record_id(&a), record_id(&b));
    }
}
