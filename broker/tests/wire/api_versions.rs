//! ApiVersions: the first thing that every client asks, and the one most easily got wrong.

use bytes::{Buf, BufMut, BytesMut};
use proto_kafka::messages::ApiVersionsRequest;

use crate::rig::{Rig, framed};

const API_VERSIONS: i16 = 18;

async fn served(version: i16) -> Vec<(i16, i16, i16)> {
    let rig = Rig::start().await;
    let request = ApiVersionsRequest::default();
    let answer = rig.connect().await.call(version, &request).await;
    assert_eq!(answer.error_code, 0);
    let keys = answer.api_keys.iter();
    keys.map(|k| (k.api_key, k.min_version, k.max_version))
        .collect()
}

#[tokio::test]
async fn every_version_answers_the_same_table() {
    let first = served(0).await;
    assert!(first.contains(&(API_VERSIONS, 0, 4)), "{first:?}");
    for version in 1..=4 {
        assert_eq!(served(version).await, first, "version {version}");
    }
}

#[tokio::test]
async fn produce_is_advertised_from_version_0_so_that_librdkafka_compresses() {
    assert!(served(3).await.contains(&(0, 0, 9)));
}

#[tokio::test]
async fn the_versions_that_librdkafka_looks_for_are_all_there() {
    let served = served(3).await;
    for (key, version) in [(0, 3), (0, 7), (1, 4), (1, 10), (2, 1)] {
        let found = served.iter().find(|(k, ..)| *k == key);
        let (_, min, max) = found.expect("the API is served");
        assert!(
            (min..=max).contains(&&version),
            "API {key} version {version}"
        );
    }
}

#[tokio::test]
async fn an_unknown_version_is_answered_in_version_0_with_error_35_and_its_own_range() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    for version in [5_i16, 99, i16::MAX, -1] {
        let mut request = BytesMut::new();
        request.put_i16(API_VERSIONS);
        request.put_i16(version);
        request.put_i32(77);
        request.put_slice(b"\0\x01xwhatever this version has");
        client.send_raw(&framed(&request)).await;
        let mut expected = BytesMut::new();
        expected.put_i32(77);
        expected.put_i16(35);
        expected.put_i32(1);
        expected.put_i16(API_VERSIONS);
        expected.put_i16(0);
        expected.put_i16(4);
        assert_eq!(client.receive_raw().await, expected, "version {version}");
    }
    // The connection is still good: the client tries again on it.
    client.call(3, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn the_answer_has_a_head_of_version_0_and_no_tagged_fields() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let id = client.send(3, &ApiVersionsRequest::default()).await;
    let mut answer = client.receive_raw().await;
    assert_eq!(answer.get_i32(), id);
    // No tagged fields in the head: the error code follows at once.
    assert_eq!(answer.get_i16(), 0);
    let count = usize::from(answer.get_u8()) - 1;
    for _ in 0..count {
        answer.advance(6);
        assert_eq!(answer.get_u8(), 0, "tagged fields of an API");
    }
    answer.advance(4);
    assert_eq!(&answer[..], [0], "tagged fields of the answer");
}
