//! Metadata: topics, and how they come into being.

use proto_kafka::messages::MetadataRequest;
use proto_kafka::messages::metadata_request::MetadataRequestTopic;

use crate::rig::{Rig, TOPIC, topic_name};

fn request(topics: Option<&[&str]>, create: bool) -> MetadataRequest {
    let topics = topics.map(|names| {
        let names = names.iter();
        names
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect()
    });
    MetadataRequest::default()
        .with_topics(topics)
        .with_allow_auto_topic_creation(create)
}

#[tokio::test]
async fn every_version_names_this_broker_and_its_topics() {
    let rig = Rig::with_topic(3).await;
    let mut client = rig.connect().await;
    let addr = rig.broker.local_addr();
    for version in 0..=11 {
        let create = version < 4;
        let answer = client.call(version, &request(Some(&[TOPIC]), create)).await;
        let broker = &answer.brokers[0];
        assert_eq!((broker.node_id.0, broker.port), (1, i32::from(addr.port())));
        assert_eq!(broker.host.to_string(), "127.0.0.1");
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
        assert!(topic.partitions.iter().all(|p| p.leader_id.0 == 1));
        if version >= 1 {
            assert_eq!(answer.controller_id.0, 1, "version {version}");
        }
        if version >= 2 {
            assert!(answer.cluster_id.is_some(), "version {version}");
        }
    }
}

#[tokio::test]
async fn every_topic_is_an_empty_list_in_version_0_and_null_from_version_1_on() {
    let rig = Rig::with_topic(1).await;
    rig.create_topic("other", 1).await;
    let mut client = rig.connect().await;
    let old = client.call(0, &request(Some(&[]), true)).await;
    assert_eq!(old.topics.len(), 2);
    let all = client.call(1, &request(None, true)).await;
    assert_eq!(all.topics.len(), 2);
    let none = client.call(1, &request(Some(&[]), true)).await;
    assert!(none.topics.is_empty());
}

#[tokio::test]
async fn a_topic_that_is_asked_for_is_created_at_once() {
    let rig = Rig::start().await;
    let answer = rig
        .connect()
        .await
        .call(9, &request(Some(&["new"]), true))
        .await;
    assert_eq!(answer.topics[0].error_code, 0);
    assert_eq!(answer.topics[0].partitions.len(), 16);
    assert!(rig.broker.log().topic("new").is_some());
}

#[tokio::test]
async fn a_topic_is_not_created_when_the_client_or_the_broker_says_so() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let answer = client.call(9, &request(Some(&["new"]), false)).await;
    assert_eq!(answer.topics[0].error_code, 3);
    let rig = Rig::start_with(|options| options.auto_create_topics = false).await;
    let mut client = rig.connect().await;
    for version in [3, 9] {
        let answer = client.call(version, &request(Some(&["new"]), true)).await;
        assert_eq!(answer.topics[0].error_code, 3);
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_is_an_error() {
    let rig = Rig::start().await;
    let names = ["a/b", "..", "", "ü"];
    let answer = rig
        .connect()
        .await
        .call(9, &request(Some(&names), true))
        .await;
    assert!(answer.topics.iter().all(|t| t.error_code == 17));
}

#[tokio::test]
async fn clients_are_told_the_address_that_is_advertised() {
    let rig = Rig::start_with(|options| {
        options.advertised = Some("broker.example.com:1234".parse().expect("an address"));
    })
    .await;
    let answer = rig.connect().await.call(9, &request(None, false)).await;
    let broker = &answer.brokers[0];
    assert_eq!(broker.host.to_string(), "broker.example.com");
    assert_eq!(broker.port, 1234);
}
