//! How a broker starts and stops.

use std::net::SocketAddr;

use outbox_broker::{Broker, StartError};
use proto_kafka::messages::ProduceRequest;

use crate::rig::{Client, Rig, batch, fetch_request, only_partition, options, produce_request};

#[tokio::test]
async fn an_address_that_others_reach_is_refused_in_plain_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = options(&dir);
    options.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Broker::start(options.clone()).await.expect_err("refused");
    assert!(matches!(refused, StartError::Anonymous { .. }), "{refused}");
    assert!(refused.to_string().contains("allow_anonymous_network"));
    assert!(!dir.path().join("log").exists(), "nothing was touched");
    options.allow_anonymous_network = true;
    let refused = Broker::start(options.clone()).await.expect_err("refused");
    assert!(
        matches!(refused, StartError::NotAdvertised { .. }),
        "{refused}"
    );
    options.advertised = Some("localhost:0".parse().expect("an address"));
    let broker = Broker::start(options).await.expect("a broker");
    let port = broker.local_addr().port();
    Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
}

#[tokio::test]
async fn a_stop_answers_what_was_received_and_ends_long_polls() {
    let rig = Rig::with_topic(1).await;
    let (mut writer, mut reader) = (rig.connect().await, rig.connect().await);
    let mut request = fetch_request(&[(0, 1)]);
    // The fetch waits for the second record, which never comes.
    (request.max_wait_ms, request.min_bytes) = (60_000, 1);
    writer.produce(0, batch(&["a"])).await;
    reader.send(12, &request).await;
    let request = produce_request(-1, &[(0, batch(&["b"]))]);
    let answered = only_partition(writer.call(7, &request).await);
    assert_eq!(answered.error_code, 0);
    let Rig { broker, dir } = rig;
    broker.stop().await;
    writer.expect_closed().await;
    let reopened = Broker::start(options(&dir)).await.expect("it was closed");
    let offsets = reopened.log().offsets("orders", 0).expect("there");
    assert_eq!(offsets, (0, 2));
}

#[tokio::test]
async fn requests_in_the_pipeline_are_answered_before_the_stop() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        let request = produce_request(-1, &[(0, batch(&["x"]))]);
        ids.push(client.send(7, &request).await);
    }
    // The first answer shows that they arrived.
    client.receive::<ProduceRequest>(7, ids[0]).await;
    let stopped = tokio::spawn(rig.broker.stop());
    let mut answered = 1;
    for id in &ids[1..] {
        let mut head = [0; 4];
        use tokio::io::AsyncReadExt;
        if client.stream.read_exact(&mut head).await.is_err() {
            break;
        }
        let mut body = vec![0; i32::from_be_bytes(head) as usize];
        client
            .stream
            .read_exact(&mut body)
            .await
            .expect("whole answers");
        assert_eq!(body[..4], id.to_be_bytes());
        answered += 1;
    }
    stopped.await.expect("stopped");
    let log = outbox_log_broker::Log::open(options(&rig.dir).log).expect("the log");
    let (_, end) = log.offsets("orders", 0).expect("there");
    assert_eq!(end, answered, "what was taken was answered");
}
