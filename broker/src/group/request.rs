//! What goes into a group.

use std::sync::Arc;

use bytes::Bytes;

use super::limits;

/// Stands for a request that waits for its answer. Unique for as long as the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who a member says it is; shown by describe, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's id.
    pub id: Arc<str>,
    /// Where it connected from.
    pub host: Arc<str>,
}

/// One way to share out partitions that a member offers, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: Arc<str>,
    /// What the leader is told of the member when this protocol is chosen.
    pub metadata: Bytes,
}

/// A member that wants to take part in the next generation.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// The id that the member was given; none when it comes for the first time.
    pub member: Option<Arc<str>>,
    /// The id it gets if it comes for the first time. Nobody else's.
    pub new_member: Arc<str>,
    /// The name that it keeps over restarts, if it has one.
    pub instance: Option<Arc<str>>,
    /// Whether a member that comes for the first time must come again with its id, so that one
    /// that dies meanwhile is not waited for.
    pub id_required: bool,
    /// Who it says it is.
    pub client: Client,
    /// How long it may be silent, in ms.
    pub session_timeout_ms: u64,
    /// How long a rebalance may wait for it, in ms.
    pub rebalance_timeout_ms: u64,
    /// What kind of group it thinks this is: `consumer`, `connect`.
    pub protocol_type: Arc<str>,
    /// What it offers, best first.
    pub protocols: Vec<Protocol>,
}

impl Join {
    /// What the member would hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let id = self.member.as_ref().unwrap_or(&self.new_member).len();
        let instance = self.instance.as_ref().map_or(0, |i| i.len());
        let client = self.client.id.len() + self.client.host.len();
        limits::MEMBER_OVERHEAD_BYTES + id + instance + client + protocol_bytes(&self.protocols)
    }
}

/// What a list of protocols holds, in bytes.
pub(super) fn protocol_bytes(protocols: &[Protocol]) -> usize {
    let each = protocols.iter();
    each.map(|p| p.name.len() + p.metadata.len() + size_of::<Protocol>())
        .sum()
}

/// How a member names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRef {
    /// The id it was given; empty for one that uses offsets only.
    pub id: Arc<str>,
    /// Its lasting name, if it has one.
    pub instance: Option<Arc<str>>,
}

/// A member that asks for its assignment. The leader brings everybody's.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// Who asks.
    pub member: MemberRef,
    /// The generation it was told.
    pub generation: i32,
    /// What it thinks the group is, if it says so.
    pub protocol_type: Option<Arc<str>>,
    /// Which protocol it thinks was chosen, if it says so.
    pub protocol: Option<Arc<str>>,
    /// Member id → assignment; empty unless the leader asks.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// One who leaves, or is sent away by an administrator, who knows the instance only.
pub type Leaver = MemberRef;

/// Whoever wants to commit offsets.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who; an empty id for a consumer that uses offsets only.
    pub member: MemberRef,
    /// The generation it is in; -1 for a consumer that uses offsets only.
    pub generation: i32,
    /// Whether the offsets are part of a transaction: then a producer that names no member is
    /// taken at its word, for its own epoch fences it.
    pub transactional: bool,
}
