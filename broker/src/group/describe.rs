//! What can be seen of a group.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::request::Client;
use super::state::{Group, GroupState};
use super::subscription::subscribed_topics;

/// One group in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub group: Arc<str>,
    /// What kind of group it is; empty when it only has offsets.
    pub protocol_type: Arc<str>,
    /// Where it stands.
    pub state: GroupState,
}

/// One group, looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where it stands.
    pub state: GroupState,
    /// What kind of group it is; empty when it only has offsets.
    pub protocol_type: Arc<str>,
    /// The protocol that was chosen; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// One member, looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name, if it has one.
    pub instance: Option<Arc<str>>,
    /// Who it says it is.
    pub client: Client,
    /// What it said for the protocol that was chosen; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its share; empty unless the group is stable.
    pub assignment: Bytes,
}

/// Which topics a group's members read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// These, and no others.
    To(BTreeSet<String>),
    /// A member's metadata cannot be read, so it may be any.
    Unknown,
}

impl Described {
    /// A group that has committed offsets but no members, or that is not there at all.
    pub fn without_members(state: GroupState) -> Self {
        Self {
            state,
            protocol_type: "".into(),
            protocol: "".into(),
            members: Vec::new(),
        }
    }
}

impl Subscribed {
    /// Whether a topic may be among them.
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Self::To(topics) => topics.contains(topic),
            Self::Unknown => true,
        }
    }
}

impl Group {
    pub fn describe(&self) -> Described {
        let stable = self.state() == GroupState::Stable;
        let chosen = self.protocol.clone().filter(|_| stable);
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            metadata: chosen
                .as_ref()
                .map(|p| member.metadata(p))
                .unwrap_or_default(),
            assignment: if stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        });
        Described {
            state: self.state(),
            protocol_type: self.protocol_type.clone(),
            protocol: chosen.clone().unwrap_or_else(|| "".into()),
            members: members.collect(),
        }
    }

    /// Which topics the members of a group of consumers read, whatever protocol is chosen next.
    pub fn subscribed(&self) -> Subscribed {
        let mut topics = BTreeSet::new();
        for protocol in self.members.values().flat_map(|m| &m.protocols) {
            match subscribed_topics(&protocol.metadata) {
                Some(more) => topics.extend(more),
                None => return Subscribed::Unknown,
            }
        }
        Subscribed::To(topics)
    }
}
