//! Joining, sharing out, leaving, dying.

use proto_kafka::messages::find_coordinator_request::FindCoordinatorRequest;
use proto_kafka::messages::leave_group_request::MemberIdentity;
use proto_kafka::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};

use super::rig::*;
use crate::rig::Rig;

const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const FENCED: i16 = 82;

#[tokio::test]
async fn two_members_share_out_what_there_is() {
    let rig = hasty_broker().await;
    let mut first = Member::alone(&rig).await;
    let mut second = Member::new(&rig).await;
    let waits = second.begin_join().await;
    // It is told on its next heartbeat, whenever the other's join has arrived.
    while first.heartbeat().await != REBALANCE {
        tokio::task::yield_now().await;
    }
    let joined = first.join().await;
    assert_eq!(
        (&*joined.leader, joined.members.len()),
        (first.id.as_str(), 2)
    );
    assert!(joined.members.iter().all(|m| m.metadata == subscription()));
    let followed = second.end_join(waits).await;
    assert_eq!(
        (&*followed.leader, followed.members.len()),
        (first.id.as_str(), 0)
    );
    assert_eq!(followed.generation_id, joined.generation_id);
    assert_eq!(followed.protocol_name.as_deref(), Some("range"));
    assert_eq!(followed.protocol_type.as_deref(), Some("consumer"));
    let request = sync_request(&second.id, second.generation, &[]);
    let waits = second.client.send(SYNC, &request).await;
    let (id, other) = (first.id.clone(), second.id.clone());
    let share = first.sync(&[(&id, "0"), (&other, "1")]).await;
    assert_eq!((share.error_code, &share.assignment[..]), (0, &b"0"[..]));
    let share = second.client.receive::<SyncGroupRequest>(SYNC, waits).await;
    assert_eq!((share.error_code, &share.assignment[..]), (0, &b"1"[..]));
    assert_eq!(share.protocol_name.as_deref(), Some("range"));
}

#[tokio::test]
async fn every_version_of_the_requests_of_a_member_is_served() {
    for version in 0..=7 {
        let rig = hasty_broker().await;
        let mut client = rig.connect().await;
        let mut request = join_request("");
        if version == 0 {
            request.rebalance_timeout_ms = -1;
        }
        let mut joined = client.call(version, &request).await;
        if version >= 4 {
            assert_eq!(joined.error_code, 79);
            joined = client.call(version, &join_request(&joined.member_id)).await;
        }
        assert_eq!(
            (joined.error_code, joined.generation_id),
            (0, 1),
            "version {version}"
        );
        assert_eq!(
            (&joined.leader, joined.members.len()),
            (&joined.member_id, 1)
        );
        let id = joined.member_id.to_string();
        let request = sync_request(&id, 1, &[(&id, "all")]);
        let share = client.call(version.min(5), &request).await;
        assert_eq!(&share.assignment[..], b"all", "version {version}");
        let beat = HeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(&id))
            .with_generation_id(1);
        assert_eq!(client.call(version.min(4), &beat).await.error_code, 0);
        let leave = LeaveGroupRequest::default().with_group_id(group());
        let leave = match version {
            ..3 => leave.with_member_id(text(&id)),
            _ => leave.with_members(vec![MemberIdentity::default().with_member_id(text(&id))]),
        };
        let left = client.call(version.min(4), &leave).await;
        assert_eq!(left.error_code, 0, "version {version}");
        assert_eq!(
            client.call(version.min(4), &beat).await.error_code,
            UNKNOWN_MEMBER
        );
    }
}

#[tokio::test]
async fn the_coordinator_of_everything_is_this_broker() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let port = i32::from(rig.broker.local_addr().port());
    for version in 0..=3 {
        let request = FindCoordinatorRequest::default().with_key(text(GROUP));
        let found = client.call(version, &request).await;
        assert_eq!(
            (found.error_code, found.port),
            (0, port),
            "version {version}"
        );
        assert_eq!((found.node_id.0, &*found.host), (1, "127.0.0.1"));
    }
    let keys = vec![text("a"), text("b"), text("a")];
    let request = FindCoordinatorRequest::default()
        .with_key_type(1)
        .with_coordinator_keys(keys);
    let found = client.call(4, &request).await.coordinators;
    let keys: Vec<_> = found
        .iter()
        .map(|c| (&*c.key, c.error_code, c.port))
        .collect();
    assert_eq!(keys, [("a", 0, port), ("b", 0, port)]);
    let request = FindCoordinatorRequest::default().with_key_type(7);
    assert_eq!(client.call(3, &request).await.error_code, 42);
}

#[tokio::test]
async fn a_member_that_falls_silent_makes_room_for_one_that_waits() {
    let rig = hasty_broker().await;
    let mut dead = Member::new(&rig).await;
    let mut request = join_request(&dead.id);
    request.session_timeout_ms = 300;
    let joined = dead.client.call(JOIN, &request).await;
    assert_eq!(joined.error_code, 0);
    drop(dead);
    let mut second = Member::new(&rig).await;
    // Answered by the clock alone.
    let joined = second.join().await;
    assert_eq!(joined.members.len(), 1);
}

#[tokio::test]
async fn a_member_without_an_id_whose_connection_breaks_is_not_waited_for() {
    let rig = hasty_broker().await;
    let mut first = Member::alone(&rig).await;
    let mut ghost = rig.connect().await;
    ghost.send(3, &join_request("")).await;
    while first.heartbeat().await != REBALANCE {
        tokio::task::yield_now().await;
    }
    drop(ghost);
    // The group waits for its one member only, whether the broker has noticed by now or not.
    let mut joined = first.join().await;
    while joined.members.len() > 1 {
        joined = first.join().await;
    }
    assert_eq!(first.heartbeat().await, 0);
}

#[tokio::test]
async fn a_static_member_that_restarts_fences_its_earlier_self() {
    let rig = hasty_broker().await;
    let mut old = rig.connect().await;
    let mut request = join_request("");
    request.group_instance_id = Some(text("one"));
    let joined = old.call(5, &request).await;
    assert_eq!(joined.error_code, 0, "static members need not come again");
    let id = joined.member_id.to_string();
    assert!(id.starts_with("one-"), "{id}");
    let mut sync = sync_request(&id, joined.generation_id, &[(&id, "all")]);
    sync.group_instance_id = Some(text("one"));
    assert_eq!(old.call(3, &sync).await.error_code, 0);

    let mut new = rig.connect().await;
    let again = new.call(5, &request).await;
    assert_eq!(
        (again.error_code, again.generation_id),
        (0, joined.generation_id)
    );
    assert_ne!(again.member_id, joined.member_id);
    let mut sync = sync_request(&again.member_id, again.generation_id, &[]);
    sync.group_instance_id = Some(text("one"));
    assert_eq!(&new.call(3, &sync).await.assignment[..], b"all");
    let beat = HeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(joined.member_id.clone())
        .with_group_instance_id(Some(text("one")))
        .with_generation_id(joined.generation_id);
    assert_eq!(old.call(3, &beat).await.error_code, FENCED);
    // An administrator sends it away by its name.
    let members = [("", "one"), ("", "two"), ("nobody", "")].map(|(id, instance)| {
        let instance = (!instance.is_empty()).then(|| text(instance));
        MemberIdentity::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance)
    });
    let leave = LeaveGroupRequest::default()
        .with_group_id(group())
        .with_members(members.to_vec());
    let left = old.call(4, &leave).await;
    let codes: Vec<i16> = left.members.iter().map(|m| m.error_code).collect();
    assert_eq!(codes, [0, UNKNOWN_MEMBER, UNKNOWN_MEMBER]);
}

#[tokio::test]
async fn after_a_restart_of_the_broker_members_join_again() {
    let rig = hasty_broker().await;
    let mut member = Member::alone(&rig).await;
    let Rig { broker, dir } = rig;
    broker.stop().await;
    let mut options = crate::rig::options(&dir);
    hasty(&mut options);
    let broker = outbox_broker::Broker::start(options)
        .await
        .expect("a broker");
    let rig = Rig { broker, dir };
    member.client = rig.connect().await;
    assert_eq!(member.heartbeat().await, UNKNOWN_MEMBER);
    let refused = member.client.call(JOIN, &join_request(&member.id)).await;
    assert_eq!(refused.error_code, UNKNOWN_MEMBER);
    Member::alone(&rig).await;
}

#[tokio::test]
async fn refusals_say_what_clients_expect() {
    let rig = hasty_broker().await;
    let mut client = rig.connect().await;
    let mut ask = async |change: fn(&mut JoinGroupRequest)| {
        let mut request = join_request("");
        change(&mut request);
        let refused = client.call(JOIN, &request).await;
        assert_eq!(refused.generation_id, -1);
        refused.error_code
    };
    assert_eq!(ask(|r| r.group_id.0 = text("")).await, 24);
    assert_eq!(ask(|r| r.session_timeout_ms = 0).await, 26);
    assert_eq!(ask(|r| r.session_timeout_ms = -5).await, 26);
    assert_eq!(ask(|r| r.protocols.clear()).await, 23);
    assert_eq!(
        ask(|r| r.member_id = text("stranger")).await,
        UNKNOWN_MEMBER
    );
}

#[tokio::test]
async fn a_stop_of_the_broker_does_not_wait_for_groups() {
    let rig = hasty_broker().await;
    let _first = Member::alone(&rig).await;
    let mut second = Member::new(&rig).await;
    second.begin_join().await;
    rig.broker.stop().await;
    second.client.expect_closed().await;
}
