//! ListOffsets: first, last, and by time.

use proto_kafka::messages::ListOffsetsRequest;
use proto_kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto_kafka::messages::list_offsets_response::ListOffsetsPartitionResponse;

use crate::rig::{Client, Rig, TOPIC, batch_at, topic_name};

async fn list(client: &mut Client, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let request = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic_name(TOPIC))
            .with_partitions(vec![partition]),
    ]);
    let mut answer = client.call(version, &request).await;
    answer.topics.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn first_last_and_by_time_in_every_version() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch_at(1000, &["a", "b"])).await;
    client.produce(0, batch_at(2000, &["c"])).await;
    for version in 1..=7 {
        for (timestamp, offset, time) in [
            (-1, 3, -1),
            (-2, 0, -1),
            (0, 0, 1000),
            (1000, 0, 1000),
            (1001, 2, 2000),
            (2001, -1, -1),
        ] {
            let found = list(&mut client, version, timestamp).await;
            assert_eq!(found.error_code, 0);
            let found = (found.offset, found.timestamp);
            assert_eq!(found, (offset, time), "version {version} at {timestamp}");
        }
    }
}

#[tokio::test]
async fn the_record_with_the_latest_time_is_found_from_version_7_on() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let nothing = list(&mut client, 7, -3).await;
    assert_eq!((nothing.error_code, nothing.offset), (0, -1));
    for timestamp in [1000, 5000, 3000] {
        client.produce(0, batch_at(timestamp, &["x"])).await;
    }
    let found = list(&mut client, 7, -3).await;
    assert_eq!((found.offset, found.timestamp), (1, 5000));
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_an_error() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    assert_eq!(list(&mut client, 5, -1).await.error_code, 3);
}
