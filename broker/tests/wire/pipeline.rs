//! Many requests of one connection at a time.

use proto_kafka::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};

use crate::rig::{
    Rig, batch, fetch_request, only_fetched, only_partition, produce_request, values,
};

#[tokio::test]
async fn many_produce_requests_are_stored_and_answered_in_their_order() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let mut ids = Vec::new();
    for n in 0..500 {
        let records = batch(&[&n.to_string()]);
        ids.push(client.send(7, &produce_request(-1, &[(0, records)])).await);
    }
    for (offset, id) in (0..).zip(ids) {
        let answer = only_partition(client.receive::<ProduceRequest>(7, id).await);
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    }
    let fetched = client.fetch(0, 0).await;
    let expected: Vec<_> = (0..500).map(|n| (n, n.to_string())).collect();
    assert_eq!(values(&fetched), expected);
}

#[tokio::test]
async fn a_request_sees_what_those_before_it_did() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let first = client
        .send(7, &produce_request(-1, &[(0, batch(&["a"]))]))
        .await;
    let silent = produce_request(0, &[(0, batch(&["b"]))]);
    client.send(7, &silent).await;
    let fetch = client.send(12, &fetch_request(&[(0, 0)])).await;
    let versions = client.send(3, &ApiVersionsRequest::default()).await;
    let last = client
        .send(7, &produce_request(-1, &[(0, batch(&["c"]))]))
        .await;
    let metadata = client.send(9, &MetadataRequest::default()).await;
    client.receive::<ProduceRequest>(7, first).await;
    let fetched = only_fetched(client.receive::<FetchRequest>(12, fetch).await);
    assert_eq!(values(&fetched).len(), 2);
    client.receive::<ApiVersionsRequest>(3, versions).await;
    let answer = only_partition(client.receive::<ProduceRequest>(7, last).await);
    assert_eq!(answer.base_offset, 2);
    client.receive::<MetadataRequest>(9, metadata).await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_is_still_answered() {
    use tokio::io::AsyncWriteExt;
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let request = produce_request(-1, &[(0, batch(&["a"]))]);
    let id = client.send(7, &request).await;
    client.stream.shutdown().await.expect("closed");
    let answer = only_partition(client.receive::<ProduceRequest>(7, id).await);
    assert_eq!(answer.error_code, 0);
    client.expect_closed().await;
}
