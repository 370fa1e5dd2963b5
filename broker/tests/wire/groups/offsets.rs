//! What groups commit, and find again.

use outbox_log_broker::OffsetCommit;
use proto_kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use proto_kafka::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use proto_kafka::messages::offset_fetch_response::OffsetFetchResponsePartition;
use proto_kafka::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest};

use super::rig::*;
use crate::rig::{Client, Rig, TOPIC, topic_name};

/// Commits as somebody who uses offsets only. (partition, offset, metadata)
fn commit_request(offsets: &[(i32, i64, &str)]) -> OffsetCommitRequest {
    let partitions = offsets.iter().map(|&(partition, offset, metadata)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(metadata)))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(TOPIC))
        .with_partitions(partitions.collect());
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

async fn commit(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let answer = client.call(version, request).await;
    let partitions = answer.topics.iter().flat_map(|t| &t.partitions);
    partitions.map(|p| p.error_code).collect()
}

fn fetch_request(partitions: &[i32]) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic_name(TOPIC))
        .with_partition_indexes(partitions.to_vec());
    OffsetFetchRequest::default()
        .with_group_id(group())
        .with_topics(Some(vec![topic]))
}

async fn fetch(
    client: &mut Client,
    version: i16,
    request: &OffsetFetchRequest,
) -> Vec<OffsetFetchResponsePartition> {
    let answer = client.call(version, request).await;
    assert_eq!(answer.error_code, 0);
    let topics = answer.topics.into_iter();
    topics.flat_map(|topic| topic.partitions).collect()
}

#[tokio::test]
async fn every_version_commits_and_every_version_finds_it_again() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    for version in 2..=8 {
        let words = format!("by version {version}");
        let mut request = commit_request(&[(1, i64::from(version), &words)]);
        if version >= 6 {
            request.topics[0].partitions[0].committed_leader_epoch = 4;
        }
        assert_eq!(commit(&mut client, version, &request).await, [0]);
        for version in 1..=7 {
            let found = fetch(&mut client, version, &fetch_request(&[1, 0])).await;
            let none = &found[0];
            assert_eq!((none.partition_index, none.committed_offset), (0, -1));
            assert_eq!((none.metadata.as_deref(), none.error_code), (Some(""), 0));
            assert_eq!(found[1].metadata.as_deref(), Some(words.as_str()));
        }
    }
    let found = fetch(&mut client, 5, &fetch_request(&[1])).await;
    assert_eq!(
        (found[0].committed_offset, found[0].committed_leader_epoch),
        (8, 4)
    );
}

#[tokio::test]
async fn offsets_survive_a_restart_of_the_broker() {
    let rig = hasty_broker().await;
    let request = commit_request(&[(0, 17, "halfway"), (1, 4, "")]);
    let committed = commit(&mut rig.connect().await, 8, &request).await;
    assert_eq!(committed, [0, 0]);
    let Rig { broker, dir } = rig;
    broker.stop().await;
    let options = crate::rig::options(&dir);
    let broker = outbox_broker::Broker::start(options)
        .await
        .expect("a broker");
    let rig = Rig { broker, dir };
    let mut all = fetch_request(&[]);
    all.topics = None;
    let found = fetch(&mut rig.connect().await, 7, &all).await;
    let offsets: Vec<_> = found
        .iter()
        .map(|p| (p.partition_index, p.committed_offset, p.metadata.as_deref()))
        .collect();
    assert_eq!(offsets, [(0, 17, Some("halfway")), (1, 4, Some(""))]);
}

#[tokio::test]
async fn a_partition_that_cannot_be_committed_does_not_hold_up_the_others() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    let long = "x".repeat(5_000);
    let request = commit_request(&[
        (0, 1, ""),
        (9, 1, ""),
        (-1, 1, ""),
        (1, 1, &long),
        (1, -2, ""),
    ]);
    assert_eq!(commit(&mut client, 8, &request).await, [0, 3, 3, 12, 42]);
    let found = fetch(&mut client, 5, &fetch_request(&[0, 1])).await;
    assert_eq!(
        (found[0].committed_offset, found[1].committed_offset),
        (1, -1)
    );
}

#[tokio::test]
async fn only_members_commit_while_there_are_members() {
    let rig = hasty_broker().await;
    let mut member = Member::alone(&rig).await;
    let mut stranger = rig.connect().await;
    assert_eq!(
        commit(&mut stranger, 8, &commit_request(&[(0, 5, "")])).await,
        [25]
    );
    let mut request = commit_request(&[(0, 5, "")]);
    request.member_id = text(&member.id);
    request.generation_id_or_member_epoch = member.generation;
    assert_eq!(commit(&mut member.client, 8, &request).await, [0]);
    request.generation_id_or_member_epoch -= 1;
    assert_eq!(commit(&mut member.client, 8, &request).await, [22]);
    assert_eq!(member.leave().await, 0);
    assert_eq!(
        commit(&mut stranger, 8, &commit_request(&[(0, 6, "")])).await,
        [0]
    );
}

#[tokio::test]
async fn several_groups_are_asked_for_at_once() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    commit(&mut client, 8, &commit_request(&[(0, 3, "a")])).await;
    let one = OffsetFetchRequestTopics::default()
        .with_name(topic_name(TOPIC))
        .with_partition_indexes(vec![0, 1, 0]);
    let some = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics(Some(vec![one]));
    let all = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("other")))
        .with_topics(None);
    let groups = vec![some.clone(), all, some];
    let request = OffsetFetchRequest::default().with_groups(groups);
    let answer = client.call(8, &request).await;
    assert_eq!(answer.groups.len(), 2, "each group once");
    let found = &answer.groups[0].topics[0].partitions;
    let offsets: Vec<_> = found
        .iter()
        .map(|p| (p.partition_index, p.committed_offset))
        .collect();
    assert_eq!(offsets, [(0, 3), (1, -1)]);
    assert_eq!(
        (answer.groups[1].error_code, answer.groups[1].topics.len()),
        (0, 0)
    );
}

#[tokio::test]
async fn whoever_wants_stable_offsets_waits_for_open_transactions() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    commit(&mut client, 8, &commit_request(&[(0, 1, ""), (1, 1, "")])).await;
    let log = rig.broker.log();
    let producer = log
        .init_producer(Some("tx"), 60_000, None)
        .await
        .expect("a producer");
    log.transaction_add_group("tx", producer, GROUP)
        .await
        .expect("added");
    let pending = [OffsetCommit::new(TOPIC.into(), 0, 9)];
    let stored = log
        .transaction_commit_offsets("tx", producer, GROUP, &pending)
        .await;
    stored.expect("stored");
    let mut request = fetch_request(&[0, 1]);
    let offsets = async |client: &mut Client, request: &OffsetFetchRequest| {
        let found = fetch(client, 7, request).await;
        found
            .iter()
            .map(|p| (p.committed_offset, p.error_code))
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(&mut client, &request).await, [(1, 0), (1, 0)]);
    request.require_stable = true;
    assert_eq!(offsets(&mut client, &request).await, [(-1, 88), (1, 0)]);
    log.transaction_end("tx", producer, true)
        .await
        .expect("committed");
    assert_eq!(offsets(&mut client, &request).await, [(9, 0), (1, 0)]);
}
