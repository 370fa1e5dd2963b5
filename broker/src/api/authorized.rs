//! What a client may do, as the numbers that some answers hold.

use super::Call;
use crate::security::{Operation, Resource};

/// The client did not ask.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// The bit of each operation.
const BITS: [(Operation, u32); 8] = [
    (Operation::Read, 3),
    (Operation::Write, 4),
    (Operation::Create, 5),
    (Operation::Delete, 6),
    (Operation::Alter, 7),
    (Operation::Describe, 8),
    (Operation::DescribeConfigs, 10),
    (Operation::AlterConfigs, 11),
];

/// What this client may do with a topic.
pub(super) fn allowed_on_topic(call: &Call<'_>, topic: &str) -> i32 {
    allowed(call, Resource::Topic(topic), &BITS)
}

/// What this client may do with the cluster, of which there are no records to read or write.
pub(super) fn allowed_on_cluster(call: &Call<'_>) -> i32 {
    allowed(call, Resource::Cluster, &BITS[2..])
}

fn allowed(call: &Call<'_>, resource: Resource<'_>, bits: &[(Operation, u32)]) -> i32 {
    let allowed = bits
        .iter()
        .filter(|(operation, _)| call.authorize(*operation, resource));
    allowed.fold(0, |sum, (_, bit)| sum | 1 << bit)
}
