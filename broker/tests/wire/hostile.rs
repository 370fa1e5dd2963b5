//! Clients that misbehave: they are closed, nothing is allocated for them, nobody else notices.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use proto_kafka::messages::ApiVersionsRequest;

use crate::rig::{Client, Rig, batch, fetch_request, frame, framed};

/// Another client, who must not notice.
async fn still_served(rig: &Rig) {
    let mut client = rig.connect().await;
    client.call(3, &ApiVersionsRequest::default()).await;
}

async fn closed_on(rig: &Rig, what: &str, bytes: &[u8]) {
    let mut client = rig.connect().await;
    client.send_raw(bytes).await;
    client.expect_closed_on(what).await;
    still_served(rig).await;
}

fn head(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut request = BytesMut::new();
    request.put_i16(key);
    request.put_i16(version);
    request.put_i32(1);
    request.put_i16(-1);
    request.put_slice(body);
    framed(&request)
}

#[tokio::test]
async fn frames_that_cannot_be_close_the_connection() {
    let rig = Rig::start().await;
    closed_on(&rig, "negative", &[0xff; 16]).await;
    closed_on(&rig, "empty", &[0; 16]).await;
    closed_on(&rig, "HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    closed_on(&rig, "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    closed_on(&rig, "too large for Produce", b"\x01\x00\x00\x01\0\0\0\x07").await;
    closed_on(&rig, "too large for others", b"\0\x10\0\x01\0\x03\0\x07").await;
    closed_on(&rig, "unknown API", &head(4242, 0, b"")).await;
    closed_on(&rig, "unknown version", &head(3, 99, b"")).await;
}

#[tokio::test]
async fn a_count_that_the_bytes_cannot_hold_allocates_nothing() {
    let rig = Rig::start().await;
    // Two thousand million topics, in four bytes.
    closed_on(&rig, "Metadata", &head(3, 1, &[0x7f, 0xff, 0xff, 0xff])).await;
    closed_on(
        &rig,
        "Produce",
        &head(0, 7, b"\xff\xff\0\x01\0\0\0\0\x7f\xff\xff\xff"),
    )
    .await;
    let mut flexible = vec![0, 0, 0, 1, 0, 0, 0, 0];
    flexible.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    closed_on(&rig, "Produce 9", &head(0, 9, &flexible)).await;
}

#[tokio::test]
async fn a_request_that_ends_too_early_closes_the_connection() {
    let rig = Rig::with_topic(1).await;
    let request = crate::rig::produce_request(-1, &[(0, batch(&["a"]))]);
    for version in [3, 9] {
        let whole = frame(version, 1, &request);
        for cut in (12..whole.len() - 1).step_by(7) {
            closed_on(&rig, "cut", &framed(&whole[4..cut])).await;
        }
    }
    assert_eq!(
        rig.broker.log().offsets("orders", 0).expect("there"),
        (0, 0)
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_others_served() {
    let rig = Rig::start_with(|options| options.connections_max = 2).await;
    let mut first = rig.connect().await;
    first.call(3, &ApiVersionsRequest::default()).await;
    let mut second = rig.connect().await;
    second.call(3, &ApiVersionsRequest::default()).await;
    rig.connect().await.expect_closed().await;
    first.call(3, &ApiVersionsRequest::default()).await;
    drop(second);
    // Its place is free when the broker has seen it go.
    loop {
        let mut third = rig.connect().await;
        third
            .send_raw(&frame(0, 1, &ApiVersionsRequest::default()))
            .await;
        use tokio::io::AsyncReadExt;
        if third.stream.read_i32().await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_its_time() {
    let rig = Rig::start_with(|options| options.idle_time = Duration::from_millis(50)).await;
    rig.connect().await.expect_closed().await;
}

#[tokio::test]
async fn two_thousand_idle_connections_disturb_nobody() {
    let rig = Rig::with_topic(1).await;
    let before = resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        let mut client = rig.connect().await;
        client.send(3, &ApiVersionsRequest::default()).await;
        idle.push(client);
    }
    for client in &mut idle {
        client.receive_raw().await;
    }
    let grown = resident_bytes().saturating_sub(before);
    // Both sides of them are in this process.
    assert!(grown < 64 << 20, "{grown} bytes for 2,000 idle connections");
    let answer = rig.connect().await.produce(0, batch(&["a"])).await;
    assert_eq!(answer.error_code, 0);
}

/// What this process has in memory.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
    kib.and_then(|k| k.parse::<usize>().ok()).expect("a size") * 1024
}

#[tokio::test]
async fn readers_that_do_not_read_hold_bounded_memory_and_stop_nobody() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let value = "x".repeat(1 << 20);
    for _ in 0..16 {
        client.produce(0, batch(&[&value])).await;
    }
    let before = resident_bytes();
    let mut request = fetch_request(&[(0, 0)]);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    request.max_bytes = i32::MAX;
    let mut stuck: Vec<Client> = Vec::new();
    for _ in 0..60 {
        let mut reader = rig.connect().await;
        for _ in 0..8 {
            reader.send(12, &request).await;
        }
        stuck.push(reader);
    }
    let fetched = client.fetch(0, 3).await;
    assert_eq!(fetched.error_code, 0);
    assert!(fetched.records.is_some_and(|r| r.len() > 1 << 20));
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes for 60 stuck readers");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_a_request_are_answered_or_closed(
        key in 0_i16..4,
        version in 0_i16..13,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let rig = Rig::start().await;
            let mut client = rig.connect().await;
            client.send_raw(&head(key, version, &body)).await;
            use tokio::io::AsyncWriteExt;
            client.stream.shutdown().await.expect("closed");
            use tokio::io::AsyncReadExt;
            let mut answer = Vec::new();
            let ended = client.stream.read_to_end(&mut answer);
            let ended = tokio::time::timeout(crate::rig::PATIENCE, ended).await;
            let _ = ended.expect("answered or closed in time");
            still_served(&rig).await;
        });
    }
}
