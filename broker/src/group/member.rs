//! One member of a group.

use std::sync::Arc;

use bytes::Bytes;

use super::limits;
use super::request::{Client, Join, Protocol, Ticket, protocol_bytes};

/// A member, and what it waits for.
#[derive(Debug)]
pub(super) struct Member {
    pub instance: Option<Arc<str>>,
    pub client: Client,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// The group gives the member up at this time unless it is heard of.
    pub expires_ms: u64,
    /// The join that waits for the rebalance to end.
    pub joining: Option<Ticket>,
    /// The sync that waits for the leader's.
    pub syncing: Option<Ticket>,
    /// Whether it never was in a generation: it cannot send heartbeats yet.
    pub is_new: bool,
    /// Whether its client was told its id before it joined.
    pub knows_id: bool,
    /// Whether it has asked for its assignment in this generation.
    pub synced: bool,
}

impl Member {
    pub fn new(join: &Join, now: u64) -> Self {
        Self {
            instance: join.instance.clone(),
            client: join.client.clone(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            expires_ms: now.saturating_add(limits::NEW_MEMBER_JOIN_MS),
            joining: Some(join.ticket),
            syncing: None,
            is_new: true,
            knows_id: join.member.is_some(),
            synced: false,
        }
    }

    /// Takes over what a member says of itself when it joins again.
    pub fn update(&mut self, join: &Join) {
        self.client = join.client.clone();
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.protocols = join.protocols.clone();
    }

    /// The member was heard of.
    pub fn seen(&mut self, now: u64) {
        self.expires_ms = now.saturating_add(self.session_timeout_ms);
    }

    /// When the member is given up. One that waits for an answer owes no heartbeat, unless it is
    /// new: then nothing else would end its wait.
    pub fn expires(&self) -> Option<u64> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.expires_ms)
    }

    pub fn supports(&self, name: &str) -> bool {
        self.protocols.iter().any(|p| *p.name == *name)
    }

    /// What the member said for a protocol.
    pub fn metadata(&self, name: &str) -> Bytes {
        let found = self.protocols.iter().find(|p| *p.name == *name);
        found.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// What the member holds, in bytes.
    pub fn bytes(&self, id: &str) -> usize {
        let instance = self.instance.as_ref().map_or(0, |i| i.len());
        let client = self.client.id.len() + self.client.host.len();
        let strings = id.len() + instance + client;
        limits::MEMBER_OVERHEAD_BYTES
            + strings
            + protocol_bytes(&self.protocols)
            + self.assignment.len()
    }
}
