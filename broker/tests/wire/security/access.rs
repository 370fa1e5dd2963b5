//! Rules.

use outbox_broker::{Operation, Pattern, Rule};
use proto_kafka::messages::{ListGroupsRequest, MetadataRequest};

use super::rig::*;
use crate::groups::rig::{JOIN, join_request};
use crate::rig::{TOPIC, batch};

const TOPIC_REFUSED: i16 = 29;
const GROUP_REFUSED: i16 = 30;

fn rule(user: &str, allow: &[Operation]) -> Rule {
    Rule {
        users: vec![user.to_owned()],
        allow: allow.to_vec(),
        ..Rule::default()
    }
}

#[tokio::test]
async fn users_do_what_a_rule_allows_and_see_what_they_may_see() {
    let rig = guarded(|options| {
        options.security.rules = vec![
            Rule {
                topics: vec![Pattern::from("ord*")],
                ..rule("shop", &[Operation::Write, Operation::Create])
            },
            Rule {
                topics: vec![Pattern::from("ord*")],
                groups: vec![Pattern::from("mail-*")],
                ..rule("mail", &[Operation::Read])
            },
        ];
    })
    .await;
    rig.create_topic(TOPIC, 1).await;
    rig.create_topic("secrets", 1).await;
    let mut shop = logged_in(&rig, "shop").await;
    let mut mail = logged_in(&rig, "mail").await;

    assert_eq!(shop.produce(0, batch(&["x"])).await.error_code, 0);
    assert_eq!(shop.fetch(0, 0).await.error_code, TOPIC_REFUSED);
    assert_eq!(mail.fetch(0, 0).await.error_code, 0);
    assert_eq!(
        mail.produce(0, batch(&["x"])).await.error_code,
        TOPIC_REFUSED
    );

    let all = MetadataRequest::default().with_topics(None);
    let seen = shop.call(9, &all).await;
    let names: Vec<_> = seen.topics.iter().filter_map(|t| t.name.as_ref()).collect();
    assert_eq!(names.len(), 1, "secrets stay secret: {names:?}");

    let refused = mail.call(JOIN, &join_request("")).await;
    assert_eq!(refused.error_code, GROUP_REFUSED);
    let mut request = join_request("");
    request.group_id.0 = "mail-1".to_owned().into();
    assert_eq!(mail.call(JOIN, &request).await.error_code, 79);
    assert_eq!(shop.call(JOIN, &request).await.error_code, GROUP_REFUSED);
    let groups = shop.call(4, &ListGroupsRequest::default()).await.groups;
    assert_eq!(groups, []);
}
