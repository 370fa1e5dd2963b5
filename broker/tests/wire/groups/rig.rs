//! Members of groups.

use bytes::Bytes;
use outbox_broker::BrokerOptions;
use proto_kafka::messages::join_group_request::JoinGroupRequestProtocol;
use proto_kafka::messages::join_group_response::JoinGroupResponse;
use proto_kafka::messages::leave_group_request::MemberIdentity;
use proto_kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use proto_kafka::messages::sync_group_response::SyncGroupResponse;
use proto_kafka::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use proto_kafka::protocol::StrBytes;

use crate::rig::{Client, Rig, TOPIC};

pub const GROUP: &str = "billing";
/// The newest versions served.
pub const JOIN: i16 = 7;
pub const SYNC: i16 = 5;
pub const HEARTBEAT: i16 = 4;
pub const LEAVE: i16 = 4;

/// Groups that begin as soon as a member comes, and sessions as short as one likes.
pub fn hasty(options: &mut BrokerOptions) {
    options.groups.initial_rebalance_delay_ms = 0;
    options.groups.session_timeout_min_ms = 1;
}

pub async fn hasty_broker() -> Rig {
    let rig = Rig::start_with(hasty).await;
    rig.create_topic(TOPIC, 2).await;
    rig
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn group() -> GroupId {
    GroupId(text(GROUP))
}

/// What a consumer of the topic says of itself.
pub fn subscription() -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, TOPIC.len() as u8];
    bytes.extend(TOPIC.as_bytes());
    bytes.into()
}

pub fn join_request(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription());
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

pub fn sync_request(member: &str, generation: i32, shares: &[(&str, &str)]) -> SyncGroupRequest {
    let shares = shares.iter().map(|(id, share)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(Bytes::copy_from_slice(share.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_assignments(shares.collect())
}

/// One member, on a connection of its own.
pub struct Member {
    pub client: Client,
    pub id: String,
    pub generation: i32,
}

impl Member {
    /// A member that was told its id, and has not joined.
    pub async fn new(rig: &Rig) -> Self {
        let mut client = rig.connect().await;
        let told = client.call(JOIN, &join_request("")).await;
        assert_eq!(told.error_code, 79, "come again with the id");
        let id = told.member_id.to_string();
        assert!(
            id.starts_with("test-"),
            "the client's id and a number: {id}"
        );
        let generation = -1;
        Self {
            client,
            id,
            generation,
        }
    }

    /// A group of this one member, stable.
    pub async fn alone(rig: &Rig) -> Self {
        let mut member = Self::new(rig).await;
        member.join().await;
        let (id, generation) = (member.id.clone(), member.generation);
        let share = member.sync(&[(&id, "all")]).await;
        assert_eq!((share.error_code, &share.assignment[..]), (0, &b"all"[..]));
        assert_eq!(member.heartbeat().await, 0, "generation {generation}");
        member
    }

    pub async fn begin_join(&mut self) -> i32 {
        self.client.send(JOIN, &join_request(&self.id)).await
    }

    pub async fn end_join(&mut self, id: i32) -> JoinGroupResponse {
        let joined = self.client.receive::<JoinGroupRequest>(JOIN, id).await;
        assert_eq!(joined.error_code, 0);
        assert_eq!(&*joined.member_id, self.id);
        self.generation = joined.generation_id;
        joined
    }

    pub async fn join(&mut self) -> JoinGroupResponse {
        let id = self.begin_join().await;
        self.end_join(id).await
    }

    pub async fn sync(&mut self, shares: &[(&str, &str)]) -> SyncGroupResponse {
        let request = sync_request(&self.id, self.generation, shares);
        self.client.call(SYNC, &request).await
    }

    pub async fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(&self.id))
            .with_generation_id(self.generation);
        self.client.call(HEARTBEAT, &request).await.error_code
    }

    pub async fn leave(&mut self) -> i16 {
        let me = MemberIdentity::default().with_member_id(text(&self.id));
        let request = LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![me]);
        let left = self.client.call(LEAVE, &request).await;
        assert_eq!(left.error_code, 0);
        left.members[0].error_code
    }
}
