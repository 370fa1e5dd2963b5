//! Looking at groups, and deleting them.

use proto_kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use proto_kafka::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use proto_kafka::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest,
};

use super::rig::*;
use crate::rig::{Client, Rig, TOPIC, topic_name};

const NON_EMPTY: i16 = 68;
const NOT_FOUND: i16 = 69;
const SUBSCRIBED: i16 = 86;

/// Commits for a topic's first partition, as somebody who uses offsets only.
async fn commit(client: &mut Client, group: &str, topic: &str) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.call(8, &request).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

async fn list(client: &mut Client, version: i16, states: &[&str]) -> Vec<(String, String, String)> {
    let states = states.iter().map(|s| text(s)).collect();
    let request = ListGroupsRequest::default().with_states_filter(states);
    let answer = client.call(version, &request).await;
    assert_eq!(answer.error_code, 0);
    let groups = answer.groups.iter();
    groups
        .map(|g| {
            (
                g.group_id.to_string(),
                g.protocol_type.to_string(),
                g.group_state.to_string(),
            )
        })
        .collect()
}

fn row(group: &str, kind: &str, state: &str) -> (String, String, String) {
    (group.to_owned(), kind.to_owned(), state.to_owned())
}

#[tokio::test]
async fn groups_are_listed_by_where_they_stand() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    commit(&mut client, "offsets-only", TOPIC).await;
    let _member = Member::alone(&rig).await;
    let both = [
        row(GROUP, "consumer", "Stable"),
        row("offsets-only", "", "Empty"),
    ];
    assert_eq!(list(&mut client, 4, &[]).await, both);
    assert_eq!(list(&mut client, 4, &["Stable"]).await, both[..1]);
    assert_eq!(list(&mut client, 4, &["empty", "Dead"]).await, both[1..]);
    for version in 0..=3 {
        let without_states = [row(GROUP, "consumer", ""), row("offsets-only", "", "")];
        assert_eq!(list(&mut client, version, &[]).await, without_states);
    }
}

#[tokio::test]
async fn a_group_is_described_with_its_members_and_their_shares() {
    let rig = hasty_broker().await;
    let member = Member::alone(&rig).await;
    let mut client = rig.connect().await;
    commit(&mut client, "offsets-only", TOPIC).await;
    for version in 0..=5 {
        let groups = [GROUP, "offsets-only", "nobody", GROUP].map(|g| GroupId(text(g)));
        let request = DescribeGroupsRequest::default().with_groups(groups.to_vec());
        let described = client.call(version, &request).await.groups;
        let states: Vec<_> = described
            .iter()
            .map(|g| (g.error_code, &*g.group_state))
            .collect();
        assert_eq!(
            states,
            [(0, "Stable"), (0, "Empty"), (0, "Dead")],
            "version {version}"
        );
        let found = &described[0];
        assert_eq!(
            (&*found.protocol_type, &*found.protocol_data),
            ("consumer", "range")
        );
        let one = &found.members[0];
        assert_eq!(
            (&*one.member_id, &*one.client_id),
            (member.id.as_str(), "test")
        );
        assert_eq!(&*one.client_host, "/127.0.0.1");
        assert_eq!(one.member_metadata, subscription());
        assert_eq!(&one.member_assignment[..], b"all");
    }
}

#[tokio::test]
async fn a_group_is_deleted_with_its_offsets_when_nobody_is_in_it() {
    let rig = hasty_broker().await;
    let mut member = Member::alone(&rig).await;
    let mut client = rig.connect().await;
    commit(&mut client, "offsets-only", TOPIC).await;
    let delete = async |client: &mut Client, version, groups: &[&str]| {
        let groups = groups.iter().map(|g| GroupId(text(g))).collect();
        let request = DeleteGroupsRequest::default().with_groups_names(groups);
        let results = client.call(version, &request).await.results;
        results.iter().map(|r| r.error_code).collect::<Vec<_>>()
    };
    let codes = delete(&mut client, 2, &[GROUP, "offsets-only", "nobody", ""]).await;
    assert_eq!(codes, [NON_EMPTY, 0, NOT_FOUND, 24]);
    assert_eq!(
        list(&mut client, 4, &[]).await,
        [row(GROUP, "consumer", "Stable")]
    );
    assert_eq!(member.leave().await, 0);
    assert_eq!(delete(&mut client, 0, &[GROUP]).await, [0]);
    assert_eq!(delete(&mut client, 1, &[GROUP]).await, [NOT_FOUND]);
    assert_eq!(list(&mut client, 4, &[]).await, []);
}

/// Deletes the offset of the first partition. Answers the group's error and the partition's.
async fn delete_offset(client: &mut Client, group: &str, topic: &str) -> (i16, Option<i16>) {
    let partition = OffsetDeleteRequestPartition::default();
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(vec![topic]);
    let answer = client.call(0, &request).await;
    let partitions = answer.topics.first().map(|t| t.partitions[0].error_code);
    (answer.error_code, partitions)
}

#[tokio::test]
async fn offsets_of_topics_that_members_read_are_not_deleted() {
    let rig: Rig = hasty_broker().await;
    rig.create_topic("refunds", 1).await;
    let mut client = rig.connect().await;
    for topic in [TOPIC, "refunds"] {
        commit(&mut client, GROUP, topic).await;
    }
    let mut member = Member::alone(&rig).await;
    assert_eq!(
        delete_offset(&mut client, GROUP, TOPIC).await,
        (0, Some(SUBSCRIBED))
    );
    assert_eq!(
        delete_offset(&mut client, GROUP, "refunds").await,
        (0, Some(0))
    );
    assert_eq!(
        delete_offset(&mut client, GROUP, "nothing").await,
        (0, Some(3))
    );
    assert_eq!(
        delete_offset(&mut client, "nobody", TOPIC).await,
        (NOT_FOUND, None)
    );
    assert_eq!(member.leave().await, 0);
    assert_eq!(delete_offset(&mut client, GROUP, TOPIC).await, (0, Some(0)));
    let log = rig.broker.log();
    assert_eq!(log.group_offsets(GROUP), []);
}
