//! Fetch: what is read, and when.

use std::time::{Duration, Instant};

use proto_kafka::messages::FetchRequest;

use crate::rig::{Rig, batch, fetch_request, only_fetched, values};

#[tokio::test]
async fn every_version_reads_what_was_produced() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["a", "b"])).await;
    for version in 4..=12 {
        let fetched = only_fetched(client.call(version, &fetch_request(&[(0, 0)])).await);
        let expected = [(0, "a".to_owned()), (1, "b".to_owned())];
        assert_eq!(values(&fetched), expected, "version {version}");
        assert_eq!((fetched.error_code, fetched.high_watermark), (0, 2));
        assert_eq!(fetched.last_stable_offset, 2);
        assert_eq!(fetched.log_start_offset, if version >= 5 { 0 } else { -1 });
        assert_eq!(fetched.aborted_transactions, None, "nobody asked");
    }
}

#[tokio::test]
async fn answers_that_are_sent_from_their_files_come_whole_and_in_their_places() {
    let rig = Rig::with_topic(3).await;
    let mut client = rig.connect().await;
    // Two partitions with so much that it is sent from their files, and one between them with little.
    let large = |n: i32, i: usize| format!("{n}/{i}:{}", "v".repeat(9_000));
    let of = |n: i32| -> Vec<String> { (0..30).map(|i| large(n, i)).collect() };
    for n in [0, 2] {
        for value in of(n) {
            client.produce(n, batch(&[&value])).await;
        }
    }
    client.produce(1, batch(&["little"])).await;
    for version in [4, 11, 12] {
        let request = fetch_request(&[(0, 3), (1, 0), (2, 0)]);
        let answer = client.call(version, &request).await;
        let partitions = &answer.responses[0].partitions;
        let found = partitions.iter().map(|p| {
            let values = values(p).into_iter();
            values.map(|(_, value)| value).collect::<Vec<_>>()
        });
        let due = [of(0).split_off(3), vec!["little".to_owned()], of(2)];
        assert!(found.eq(due), "version {version}");
    }
}

#[tokio::test]
async fn an_offset_inside_a_batch_gives_the_whole_batch() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["a", "b", "c"])).await;
    let fetched = client.fetch(0, 2).await;
    assert_eq!(values(&fetched).len(), 3);
}

#[tokio::test]
async fn a_reader_of_committed_records_gets_a_list_of_aborted_transactions() {
    let rig = Rig::with_topic(1).await;
    let mut request = fetch_request(&[(0, 0)]);
    request.isolation_level = 1;
    let fetched = only_fetched(rig.connect().await.call(11, &request).await);
    assert_eq!(fetched.aborted_transactions, Some(Vec::new()));
}

#[tokio::test]
async fn offsets_that_are_not_there_are_errors_at_once() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["a"])).await;
    for (partition, offset, code) in [(0, 2, 1), (0, -5, 1), (3, 0, 3), (-1, 0, 3)] {
        let mut request = fetch_request(&[(partition, offset)]);
        request.max_wait_ms = 60_000;
        let fetched = only_fetched(client.call(12, &request).await);
        assert_eq!(fetched.error_code, code, "{partition} at {offset}");
    }
}

#[tokio::test]
async fn a_leader_epoch_that_never_was_is_refused() {
    let rig = Rig::with_topic(1).await;
    let mut request = fetch_request(&[(0, 0)]);
    request.topics[0].partitions[0].current_leader_epoch = 3;
    let fetched = only_fetched(rig.connect().await.call(12, &request).await);
    assert_eq!(fetched.error_code, 75);
}

#[tokio::test]
async fn a_long_poll_ends_when_records_come() {
    let rig = Rig::with_topic(2).await;
    let (mut reader, mut writer) = (rig.connect().await, rig.connect().await);
    let mut request = fetch_request(&[(0, 0), (1, 0)]);
    request.max_wait_ms = 60_000;
    let started = Instant::now();
    let id = reader.send(12, &request).await;
    writer.produce(1, batch(&["news"])).await;
    let answer = reader.receive::<FetchRequest>(12, id).await;
    let partitions = &answer.responses[0].partitions;
    assert_eq!(values(&partitions[1]), [(0, "news".to_owned())]);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_long_poll_without_records_ends_with_its_time() {
    let rig = Rig::with_topic(1).await;
    let mut request = fetch_request(&[(0, 0)]);
    request.max_wait_ms = 50;
    let started = Instant::now();
    let fetched = only_fetched(rig.connect().await.call(12, &request).await);
    assert!(values(&fetched).is_empty());
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_long_poll_waits_for_as_many_bytes_as_it_wants() {
    let rig = Rig::with_topic(1).await;
    let (mut reader, mut writer) = (rig.connect().await, rig.connect().await);
    let one = batch(&["x"]);
    let mut request = fetch_request(&[(0, 0)]);
    (request.max_wait_ms, request.min_bytes) = (60_000, 3 * one.len() as i32);
    let id = reader.send(12, &request).await;
    for _ in 0..3 {
        writer.produce(0, one.clone()).await;
    }
    let fetched = only_fetched(reader.receive::<FetchRequest>(12, id).await);
    assert_eq!(values(&fetched).len(), 3);
}

#[tokio::test]
async fn the_answer_keeps_to_the_bytes_that_the_reader_allows() {
    let rig = Rig::with_topic(2).await;
    let mut client = rig.connect().await;
    let value = "x".repeat(1000);
    for _ in 0..4 {
        client.produce(0, batch(&[&value])).await;
        client.produce(1, batch(&[&value])).await;
    }
    let mut request = fetch_request(&[(0, 0), (1, 0)]);
    request.max_bytes = 3500;
    request.topics[0].partitions[0].partition_max_bytes = 2500;
    let answer = client.call(12, &request).await;
    let counts = answer.responses[0].partitions.iter();
    let counts: Vec<_> = counts.map(|p| values(p).len()).collect();
    assert_eq!(counts, [2, 1]);
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_an_error() {
    let rig = Rig::start().await;
    let fetched = rig.connect().await.fetch(0, 0).await;
    assert_eq!(fetched.error_code, 3);
}
