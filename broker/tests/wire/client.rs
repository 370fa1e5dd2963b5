//! The project's own client, as operators use it.

use outbox_broker::client::{Admin, ClientError, ClientLogin, ClientOptions, ResetTo};
use outbox_log_broker::OffsetCommit;

use crate::groups::rig::{GROUP, Member, hasty_broker};
use crate::rig::{Rig, TOPIC, batch};
use crate::security::rig::{PASSWORD, guarded};

async fn admin(rig: &Rig) -> Admin {
    let options = ClientOptions::new(rig.broker.local_addr().to_string());
    Admin::connect(&options).await.expect("a connection")
}

/// A group that has read two of three records of the first partition.
async fn behind() -> Rig {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    client.produce(0, batch(&["a", "b", "c"])).await;
    let commits = [OffsetCommit::new(TOPIC.into(), 0, 2)];
    rig.broker
        .log()
        .commit(GROUP, &commits)
        .await
        .expect("stored");
    rig
}

#[tokio::test]
async fn topics_are_listed_and_a_missing_one_is_named() {
    let rig = hasty_broker().await;
    let mut admin = admin(&rig).await;
    let topics = admin.topics().await.expect("topics");
    let found: Vec<_> = topics
        .iter()
        .map(|t| (t.name.as_str(), t.partitions))
        .collect();
    assert_eq!(found, [(TOPIC, 2)]);
    let missing = admin
        .describe_topic("nothing")
        .await
        .expect_err("not there");
    assert!(matches!(missing, ClientError::NotFound { .. }), "{missing}");
    assert!(missing.to_string().contains("\"nothing\""), "{missing}");
}

#[tokio::test]
async fn a_group_is_described_with_its_lag_and_deleted() {
    let rig = behind().await;
    let mut admin = admin(&rig).await;
    let groups = admin.groups().await.expect("groups");
    assert_eq!(
        (groups[0].group.as_str(), groups[0].state.as_str()),
        (GROUP, "Empty")
    );
    let detail = admin.describe_group(GROUP).await.expect("a group");
    let offset = &detail.offsets[0];
    assert_eq!(
        (offset.committed, offset.end, offset.lag()),
        (2, Some(3), Some(1))
    );
    admin.delete_group(GROUP).await.expect("deleted");
    let gone = admin.describe_group(GROUP).await.expect_err("gone");
    assert!(matches!(gone, ClientError::NotFound { .. }), "{gone}");
    let gone = admin.delete_group(GROUP).await.expect_err("gone");
    assert!(matches!(gone, ClientError::NotFound { .. }), "{gone}");
}

#[tokio::test]
async fn offsets_are_reset_and_a_dry_run_changes_nothing() {
    let rig = behind().await;
    let mut admin = admin(&rig).await;
    let mut reset = async |to, commit| {
        let resets = admin.reset_offsets(GROUP, TOPIC, Some(0), to, commit).await;
        let resets = resets.expect("reset");
        (resets[0].before, resets[0].after)
    };
    assert_eq!(reset(ResetTo::Earliest, false).await, (Some(2), 0));
    assert_eq!(reset(ResetTo::Latest, true).await, (Some(2), 3));
    assert_eq!(reset(ResetTo::Offset(1), true).await, (Some(3), 1));
    // The records are of the time 1000.
    assert_eq!(reset(ResetTo::Time(1_000), true).await, (Some(1), 0));
    assert_eq!(reset(ResetTo::Time(1_001), true).await, (Some(0), 3));
    let committed = rig.broker.log().committed(GROUP, TOPIC, 0);
    assert_eq!(committed.map(|c| c.next_offset), Some(3));
    let missing = admin
        .reset_offsets(GROUP, TOPIC, Some(9), ResetTo::Latest, true)
        .await;
    assert!(matches!(missing, Err(ClientError::NotFound { .. })));
}

#[tokio::test]
async fn a_group_with_members_is_neither_reset_nor_deleted() {
    let rig = behind().await;
    let _member = Member::alone(&rig).await;
    let mut admin = admin(&rig).await;
    let refused = admin
        .reset_offsets(GROUP, TOPIC, None, ResetTo::Earliest, true)
        .await;
    let refused = refused.expect_err("it has members");
    assert!(refused.to_string().contains("1 members"), "{refused}");
    let refused = admin.delete_group(GROUP).await.expect_err("it has members");
    assert!(
        matches!(refused, ClientError::Refused { code: 68, .. }),
        "{refused}"
    );
    assert_eq!(
        admin
            .describe_group(GROUP)
            .await
            .expect("a group")
            .members
            .len(),
        1
    );
}

#[tokio::test]
async fn the_client_logs_in_and_says_when_it_cannot() {
    let rig = guarded(|_| {}).await;
    let mut options = ClientOptions::new(rig.broker.local_addr().to_string());
    let mut connect = async |user: &str, password: &str| {
        let (user, password) = (user.to_owned(), password.to_owned());
        options.login = Some(ClientLogin { user, password });
        assert!(!format!("{options:?}").contains(PASSWORD));
        Admin::connect(&options).await
    };
    let mut admin = connect("shop", PASSWORD).await.expect("logged in");
    assert_eq!(admin.topics().await.expect("topics"), []);
    let refused = connect("shop", "guess").await.expect_err("refused");
    assert!(matches!(refused, ClientError::Login { .. }), "{refused}");
    assert!(!refused.to_string().contains("guess"), "{refused}");
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_named() {
    // Nobody listens on port 1.
    let options = ClientOptions::new("127.0.0.1:1");
    let refused = Admin::connect(&options).await.expect_err("nobody there");
    assert!(
        matches!(refused, ClientError::Unreachable { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");
}

#[tokio::test]
async fn a_topic_is_created_described_changed_grown_and_deleted() {
    let rig = hasty_broker().await;
    let mut admin = admin(&rig).await;
    let retention = |ms: &str| ("retention.ms".to_owned(), ms.to_owned());
    let configs = [retention("60000")];
    let created = admin.create_topic("refunds", Some(3), &configs);
    created.await.expect("created");
    let again = admin
        .create_topic("refunds", Some(3), &[])
        .await
        .expect_err("there");
    assert!(
        matches!(again, ClientError::Refused { code: 36, .. }),
        "{again}"
    );
    let value = async |admin: &mut Admin| {
        let detail = admin.describe_topic("refunds").await.expect("a topic");
        let entry = detail.configs.iter().find(|c| c.name == "retention.ms");
        let entry = entry.expect("an entry");
        (detail.partitions.len(), entry.value.clone(), entry.default)
    };
    assert_eq!(
        value(&mut admin).await,
        (3, Some("60000".to_owned()), false)
    );
    let (key, ms) = retention("120000");
    let change = [(key.clone(), Some(ms))];
    admin
        .alter_topic("refunds", &change)
        .await
        .expect("altered");
    assert_eq!(
        value(&mut admin).await,
        (3, Some("120000".to_owned()), false)
    );
    admin
        .alter_topic("refunds", &[(key, None)])
        .await
        .expect("altered");
    admin.grow_topic("refunds", 5).await.expect("grown");
    let (partitions, value, _) = value(&mut admin).await;
    assert_eq!(partitions, 5);
    assert_ne!(value.as_deref(), Some("120000"), "back to the default");
    admin.delete_topic("refunds").await.expect("deleted");
    let gone = admin.delete_topic("refunds").await.expect_err("gone");
    assert!(matches!(gone, ClientError::NotFound { .. }), "{gone}");
}
