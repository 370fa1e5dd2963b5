//! What administrators ask: topics, their configuration, and the rest.

use proto_kafka::messages::alter_configs_request as whole;
use proto_kafka::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use proto_kafka::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use proto_kafka::messages::create_topics_response::CreatableTopicResult;
use proto_kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use proto_kafka::messages::delete_topics_request::DeleteTopicState;
use proto_kafka::messages::describe_configs_request::DescribeConfigsResource;
use proto_kafka::messages::describe_configs_response::DescribeConfigsResult;
use proto_kafka::messages::incremental_alter_configs_request as incremental;
use proto_kafka::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use proto_kafka::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest,
};
use proto_kafka::protocol::StrBytes;

use crate::rig::{Client, Rig, TOPIC, batch, topic_name, values};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
}

fn with_config(topic: CreatableTopic, name: &str, value: &str) -> CreatableTopic {
    topic.with_configs(vec![
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value))),
    ])
}

async fn create(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatableTopic>,
) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_topics(topics);
    client.call(version, &request).await.topics
}

#[tokio::test]
async fn topics_are_created_and_deleted_in_every_version() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    for version in 2..=7 {
        let name = format!("t{version}");
        let created = create(&mut client, version, vec![topic(&name, 3)]).await;
        assert_eq!(created[0].error_code, 0, "version {version}");
        if version >= 5 {
            let counted = (created[0].num_partitions, created[0].replication_factor);
            assert_eq!(counted, (3, 1));
        }
        assert_eq!(rig.broker.log().topic(&name).expect("there").partitions, 3);
        let again = create(&mut client, version, vec![topic(&name, 3)]).await;
        assert_eq!(again[0].error_code, 36);
    }
    for version in 1..=6 {
        let name = topic_name(&format!("t{}", version + 1));
        let request = match version {
            6 => DeleteTopicsRequest::default()
                .with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
            _ => DeleteTopicsRequest::default().with_topic_names(vec![name]),
        };
        let deleted = client.call(version, &request).await.responses;
        assert_eq!(deleted[0].error_code, 0, "version {version}");
        let again = client.call(version, &request).await.responses;
        assert_eq!(again[0].error_code, 3, "version {version}");
    }
    assert!(rig.broker.log().topics().is_empty());
}

#[tokio::test]
async fn a_topic_is_deleted_by_its_id_and_its_successor_starts_empty() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["old"])).await;
    let metadata = client
        .call(11, &MetadataRequest::default().with_topics(None))
        .await;
    let id = metadata.topics[0].topic_id;
    let by_id = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_topic_id(id)]);
    let deleted = client.call(6, &by_id).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.topic_id), (0, id));
    let again = client.call(6, &by_id).await.responses.remove(0);
    assert_eq!(again.error_code, 100);
    let created = create(&mut client, 7, vec![topic(TOPIC, 1)]).await;
    assert_ne!(created[0].topic_id, id);
    let fetched = client.fetch(0, 0).await;
    assert_eq!((values(&fetched).len(), fetched.high_watermark), (0, 0));
}

#[tokio::test]
async fn topics_that_cannot_be_are_refused_each_with_its_error() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let elsewhere = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(7)]);
    let assigned = topic("assigned", -1)
        .with_replication_factor(-1)
        .with_assignments(vec![elsewhere]);
    let cases = [
        (topic("a/b", 1), 17),
        (topic("none", 0), 37),
        (topic("many", 100_000), 37),
        (topic("replicated", 1).with_replication_factor(3), 38),
        (assigned, 39),
        (with_config(topic("c1", 1), "no.such.thing", "1"), 40),
        (with_config(topic("c2", 1), "cleanup.policy", "burn"), 40),
        (with_config(topic("c3", 1), "segment.bytes", "1"), 40),
    ];
    let topics: Vec<_> = cases.iter().map(|(topic, _)| topic.clone()).collect();
    let created = create(&mut client, 7, topics).await;
    for (result, (topic, code)) in created.iter().zip(&cases) {
        assert_eq!(result.error_code, *code, "{topic:?}");
        assert!(result.error_message.is_some());
    }
    let twice = create(&mut client, 5, vec![topic("x", 1), topic("x", 1)]).await;
    assert_eq!((twice.len(), twice[0].error_code), (1, 42));
    assert!(rig.broker.log().topics().is_empty());
}

#[tokio::test]
async fn a_trial_changes_nothing() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let request = CreateTopicsRequest::default()
        .with_validate_only(true)
        .with_topics(vec![topic("x", -1), topic("a/b", 1)]);
    let tried = client.call(7, &request).await.topics;
    assert_eq!((tried[0].error_code, tried[0].num_partitions), (0, 16));
    assert_eq!(tried[1].error_code, 17);
    assert!(rig.broker.log().topics().is_empty());
}

#[tokio::test]
async fn an_assignment_to_this_broker_gives_the_number_of_partitions() {
    let rig = Rig::start().await;
    let here = |index| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(1)])
    };
    let assigned = topic("x", -1)
        .with_replication_factor(-1)
        .with_assignments(vec![here(1), here(0)]);
    let created = create(&mut rig.connect().await, 6, vec![assigned]).await;
    assert_eq!((created[0].error_code, created[0].num_partitions), (0, 2));
}

#[tokio::test]
async fn topics_grow_and_never_shrink() {
    let rig = Rig::with_topic(2).await;
    let mut client = rig.connect().await;
    let assignment = |id| {
        Some(vec![
            CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(id)]),
        ])
    };
    for (name, count, assignments, only_try, code) in [
        (TOPIC, 2, None, false, 37),
        (TOPIC, 1, None, false, 37),
        ("nowhere", 4, None, false, 3),
        (TOPIC, 3, assignment(9), false, 39),
        (TOPIC, 4, assignment(1), false, 39),
        (TOPIC, 3, assignment(1), true, 0),
        (TOPIC, 3, assignment(1), false, 0),
        (TOPIC, 5, None, false, 0),
    ] {
        let grown = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(assignments);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![grown])
            .with_validate_only(only_try);
        for version in 0..=3 {
            // A change can be made once only.
            if code != 0 || only_try || version == 3 {
                let answer = client.call(version, &request).await;
                assert_eq!(answer.results[0].error_code, code, "{name} to {count}");
            }
        }
    }
    assert_eq!(rig.broker.log().topic(TOPIC).expect("there").partitions, 5);
    assert_eq!(client.produce(4, batch(&["new"])).await.error_code, 0);
}

async fn describe(
    client: &mut Client,
    version: i16,
    kind: i8,
    name: &str,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    client.call(version, &request).await.results.remove(0)
}

/// Value, source, and whether it is read-only.
fn setting(described: &DescribeConfigsResult, name: &str) -> (String, i8, bool) {
    let found = described.configs.iter().find(|c| *c.name == *name);
    let found = found.unwrap_or_else(|| panic!("{name} is not described"));
    let value = found.value.clone().unwrap_or_default().to_string();
    (value, found.config_source, found.read_only)
}

#[tokio::test]
async fn the_configuration_of_a_topic_is_described_and_says_what_an_acknowledgement_means() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let relaxed = with_config(topic("relaxed", 1), "flush", "async");
    create(&mut client, 7, vec![relaxed, topic("strict", 1)]).await;
    for version in 1..=4 {
        let described = describe(&mut client, version, 2, "relaxed").await;
        assert_eq!(setting(&described, "flush"), ("async".to_owned(), 1, false));
        let described = describe(&mut client, version, 2, "strict").await;
        assert_eq!(setting(&described, "flush"), ("sync".to_owned(), 5, false));
        let replicas = setting(&described, "min.insync.replicas");
        assert_eq!(replicas, ("1".to_owned(), 5, true));
    }
    assert_eq!(describe(&mut client, 4, 2, "nowhere").await.error_code, 3);
    assert_eq!(describe(&mut client, 4, 4, "9").await.error_code, 42);
    let broker = describe(&mut client, 4, 4, "1").await;
    assert_eq!(
        setting(&broker, "num.partitions"),
        ("16".to_owned(), 4, true)
    );
}

#[tokio::test]
async fn only_the_settings_that_are_named_are_described() {
    let rig = Rig::with_topic(1).await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configuration_keys(Some(vec![text("retention.ms"), text("what")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = rig.connect().await.call(4, &request).await;
    let names: Vec<_> = answer.results[0]
        .configs
        .iter()
        .map(|c| c.name.to_string())
        .collect();
    assert_eq!(names, ["retention.ms"]);
}

async fn increment(client: &mut Client, changes: &[(&str, i8, Option<&str>)]) -> i16 {
    let changes = changes.iter().map(|(name, operation, value)| {
        incremental::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(changes.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).await.responses[0].error_code
}

#[tokio::test]
async fn single_settings_are_changed_and_the_others_stay() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let retention = [("retention.ms", 0, Some("3600000"))];
    assert_eq!(increment(&mut client, &retention).await, 0);
    let both = [
        ("cleanup.policy", 2, Some("compact")),
        ("max.message.bytes", 0, Some("1000")),
    ];
    assert_eq!(increment(&mut client, &both).await, 0);
    let half = [
        ("retention.ms", 1, None),
        ("cleanup.policy", 0, Some("burn")),
    ];
    assert_eq!(increment(&mut client, &half).await, 40, "all or nothing");
    let described = describe(&mut client, 4, 2, TOPIC).await;
    assert_eq!(setting(&described, "retention.ms").0, "3600000");
    assert_eq!(setting(&described, "cleanup.policy").0, "compact,delete");
    let large = batch(&["x".repeat(2000).as_str()]);
    assert_eq!(client.produce(0, large.clone()).await.error_code, 10);
    let smaller = [
        ("cleanup.policy", 3, Some("compact")),
        ("max.message.bytes", 1, None),
    ];
    assert_eq!(increment(&mut client, &smaller).await, 0);
    assert_eq!(client.produce(0, large).await.error_code, 0);
}

#[tokio::test]
async fn a_whole_configuration_is_replaced() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let retention = [("retention.ms", 0, Some("3600000"))];
    assert_eq!(increment(&mut client, &retention).await, 0);
    let config = whole::AlterableConfig::default()
        .with_name(text("retention.bytes"))
        .with_value(Some(text("1000000")));
    let resource = whole::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    for (version, only_try, retention) in
        [(0, true, "3600000"), (1, true, "3600000"), (2, false, "-1")]
    {
        let request = request.clone().with_validate_only(only_try);
        let answer = client.call(version, &request).await;
        assert_eq!(answer.responses[0].error_code, 0);
        let described = describe(&mut client, 4, 2, TOPIC).await;
        assert_eq!(setting(&described, "retention.ms").0, retention);
    }
    let described = describe(&mut client, 4, 2, TOPIC).await;
    assert_eq!(setting(&described, "retention.bytes").0, "1000000");
}

#[tokio::test]
async fn records_before_an_offset_are_given_up() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    for value in ["a", "b", "c"] {
        client.produce(0, batch(&[value])).await;
    }
    for (version, partition, offset, code, low) in [
        (0, 0, 1, 0, 1),
        (1, 0, 9, 1, -1),
        (2, 5, 0, 3, -1),
        (2, 0, -1, 0, 3),
    ] {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(TOPIC))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let answer = client.call(version, &request).await;
        let found = &answer.topics[0].partitions[0];
        assert_eq!((found.error_code, found.low_watermark), (code, low));
    }
    assert_eq!(client.fetch(0, 0).await.error_code, 1);
    assert_eq!(client.fetch(0, 3).await.log_start_offset, 3);
}

#[tokio::test]
async fn the_one_epoch_ends_where_the_records_do() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["a", "b"])).await;
    for version in 2..=4 {
        for (current, epoch, expected) in [
            (-1, 0, (0, 0, 2)),
            (0, 1, (0, -1, -1)),
            (4, 0, (75, -1, -1)),
        ] {
            let partition = OffsetForLeaderPartition::default()
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic_name(TOPIC))
                .with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let answer = client.call(version, &request).await;
            let found = &answer.topics[0].partitions[0];
            let found = (found.error_code, found.leader_epoch, found.end_offset);
            assert_eq!(found, expected, "version {version} epoch {epoch}");
        }
    }
}

#[tokio::test]
async fn the_cluster_is_this_broker() {
    let rig = Rig::with_topic(2).await;
    let mut client = rig.connect().await;
    for version in 0..=1 {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let cluster = client.call(version, &request).await;
        assert_eq!((cluster.error_code, cluster.controller_id.0), (0, 1));
        assert_eq!(
            (cluster.brokers.len(), cluster.brokers[0].broker_id.0),
            (1, 1)
        );
        assert_eq!(cluster.cluster_authorized_operations, 0b1101_1110_0000);
    }
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    assert_eq!(client.call(1, &controllers).await.error_code, 114);
    let none = ListPartitionReassignmentsRequest::default().with_topics(None);
    let none = client.call(0, &none).await;
    assert_eq!((none.error_code, none.topics.len()), (0, 0));
    client.produce(1, batch(&["a"])).await;
    for version in 1..=4 {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let dirs = client.call(version, &request).await.results;
        assert_eq!((dirs.len(), dirs[0].error_code), (1, 0));
        let partitions = &dirs[0].topics[0].partitions;
        assert_eq!(partitions.len(), 2);
        assert!(partitions[0].partition_size == 0 && partitions[1].partition_size > 60);
    }
}

#[tokio::test]
async fn what_a_client_may_do_is_told_when_it_asks() {
    let rig = Rig::with_topic(1).await;
    let mut client = rig.connect().await;
    let silent = MetadataRequest::default().with_topics(None);
    let answer = client.call(8, &silent).await;
    assert_eq!(answer.topics[0].topic_authorized_operations, i32::MIN);
    let asking = silent
        .with_include_topic_authorized_operations(true)
        .with_include_cluster_authorized_operations(true);
    let answer = client.call(8, &asking).await;
    assert_eq!(
        answer.topics[0].topic_authorized_operations,
        0b1101_1111_1000
    );
    assert_eq!(answer.cluster_authorized_operations, 0b1101_1110_0000);
}
