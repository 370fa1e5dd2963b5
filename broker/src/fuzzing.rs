//! Entrances for the fuzz targets, which reach what is not public otherwise.

use bytes::Bytes;

use crate::api::{APIS, reads};
use crate::codec::{read_assignment, read_publication, read_published, read_subscription};

/// Reads a request: one byte chooses which, one its version, the rest is its body.
pub fn request(data: &[u8]) {
    let [which, version, body @ ..] = data else {
        return;
    };
    let api = APIS[usize::from(*which) % APIS.len()];
    let versions = i16::from(*version) % (api.max - api.min + 1);
    reads(api, api.min + versions, &Bytes::copy_from_slice(body));
    let body = Bytes::copy_from_slice(body);
    let _ = read_subscription(body.clone());
    let _ = read_assignment(body);
}

/// Reads what a publish says beside its records, and what it is answered.
pub fn publication(data: &[u8]) {
    let field = Bytes::copy_from_slice(data);
    let _ = read_publication(field.clone());
    let _ = read_published(field);
}
