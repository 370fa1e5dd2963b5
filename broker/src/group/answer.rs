//! What comes out of a group.

use std::sync::Arc;

use bytes::Bytes;

use super::request::Ticket;

/// Why a group says no. What a client does about it is in Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group's id is empty, or too long.
    #[error(
        "the group's id must have 1 to {} bytes",
        super::limits::GROUP_ID_BYTES_MAX
    )]
    InvalidGroupId,
    /// The session timeout is out of bounds.
    #[error("the session timeout is not within the broker's bounds")]
    InvalidSessionTimeout,
    /// A name is too long, or there are too many protocols.
    #[error("a name is too long, or there are too many protocols")]
    InvalidRequest,
    /// The member is not one of the group: it must join anew.
    #[error("the group has no such member")]
    UnknownMember,
    /// The member must join again with the id that it is given here.
    #[error("join again with the id given")]
    MemberIdRequired,
    /// The generation is not the group's.
    #[error("the generation is not the group's")]
    IllegalGeneration,
    /// The group is about to share out anew: join again.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// The member offers nothing that all others support too.
    #[error("no protocol is supported by all members")]
    InconsistentProtocol,
    /// Another member has taken over this instance's name.
    #[error("another member has this instance's name now")]
    FencedInstance,
    /// The group is full.
    #[error("the group has as many members as it may have")]
    GroupFull,
    /// The coordinator has no room for more: try later.
    #[error("the coordinator has no room for more groups or members")]
    NoRoom,
    /// The leader's assignments are larger than a group may hold.
    #[error(
        "the assignments hold more than {} bytes",
        super::limits::GROUP_BYTES_MAX
    )]
    AssignmentTooLarge,
    /// The group still has members.
    #[error("the group has members")]
    NonEmpty,
    /// There is no such group.
    #[error("there is no such group")]
    NotFound,
}

/// An answer to a request that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a [`super::Join`].
    Join(Ticket, Result<Joined, JoinRefused>),
    /// To a [`super::Sync`].
    Sync(Ticket, Result<Synced, GroupError>),
}

/// A member is part of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: Arc<str>,
    /// The protocol that was chosen.
    pub protocol: Arc<str>,
    /// The leader's member id.
    pub leader: Arc<str>,
    /// The member's own id.
    pub member: Arc<str>,
    /// All members, for the leader, who shares out; empty for the others.
    pub members: Vec<JoinedMember>,
}

/// What a leader is told of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name, if it has one.
    pub instance: Option<Arc<str>>,
    /// What it said for the protocol that was chosen.
    pub metadata: Bytes,
}

/// A member is not part of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why not.
    pub error: GroupError,
    /// The member id to answer with.
    pub member: Arc<str>,
}

/// What a member has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: Arc<str>,
    /// The protocol that was chosen.
    pub protocol: Arc<str>,
    /// The member's share, in the protocol's own format.
    pub assignment: Bytes,
}
