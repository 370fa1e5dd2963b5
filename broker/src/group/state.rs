//! One group: what it knows. Its events are in the modules beside this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::{Answer, GroupError, JoinRefused, Joined, JoinedMember, Synced};
use super::member::Member;
use super::options::GroupOptions;
use super::request::{MemberRef, Ticket};

/// Where a group stands, for those who look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// It has no members; it may have offsets.
    Empty,
    /// It waits for its members to join again.
    PreparingRebalance,
    /// It waits for the leader to share out.
    CompletingRebalance,
    /// Every member has its share, or can ask for it.
    Stable,
    /// There is no such group.
    Dead,
}

impl GroupState {
    /// The name by which Kafka's protocol calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// Where a group stands, with what only matters there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Empty {
        /// Since when.
        since_ms: u64,
    },
    Preparing {
        /// Whoever has not joined by then is left out.
        deadline_ms: u64,
        /// Set for the first rebalance of an empty group, which waits although all have joined.
        initial: Option<Initial>,
    },
    Completing,
    Stable,
}

/// How the first rebalance of an empty group goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initial {
    /// How much longer it may be put off, in ms.
    pub left_ms: u64,
    /// Whether somebody joined since it was put off last.
    pub member_added: bool,
}

/// What an event has at hand: the time, the options, and where its answers go.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// Any clock in ms that does not go back.
    pub now: u64,
    pub options: &'a GroupOptions,
    pub answers: &'a mut Vec<Answer>,
}

impl Context<'_> {
    pub fn refuse_join(&mut self, ticket: Ticket, error: GroupError, member: &Arc<str>) {
        let member = member.clone();
        let refused = Err(JoinRefused { error, member });
        self.answers.push(Answer::Join(ticket, refused));
    }

    pub fn refuse_sync(&mut self, ticket: Ticket, error: GroupError) {
        self.answers.push(Answer::Sync(ticket, Err(error)));
    }
}

/// One group with its members.
#[derive(Debug)]
pub(super) struct Group {
    pub phase: Phase,
    pub generation: i32,
    pub protocol_type: Arc<str>,
    /// Chosen for this generation; none before the first one and while the group is empty.
    pub protocol: Option<Arc<str>>,
    pub leader: Option<Arc<str>>,
    pub members: BTreeMap<Arc<str>, Member>,
    /// Lasting name → member id.
    pub instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Member ids that were given out, until when their owners must have come with them.
    pub pending: BTreeMap<Arc<str>, u64>,
    /// Members of this generation that have not asked for their assignment by then are given up.
    pub sync_deadline_ms: Option<u64>,
    /// What the members hold.
    pub bytes: usize,
    /// No later than the next time at which something expires. Heartbeats do not move it: waking
    /// up in vain now and then is cheaper than looking at every member for each heartbeat.
    pub wake_ms: Option<u64>,
}

impl Group {
    pub fn new(now: u64) -> Self {
        Self {
            phase: Phase::Empty { since_ms: now },
            generation: 0,
            protocol_type: "".into(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            sync_deadline_ms: None,
            bytes: 0,
            wake_ms: None,
        }
    }

    pub fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty { .. } => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.phase, Phase::Empty { .. })
    }

    pub fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Wants to be woken at `at` or before.
    pub fn wake_by(&mut self, at: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at, |earlier| earlier.min(at)));
    }

    /// Says whether a member is who it says it is.
    pub fn check_member(&self, member: &MemberRef) -> Result<(), GroupError> {
        if let Some(instance) = &member.instance {
            return match self.instances.get(instance) {
                None => Err(GroupError::UnknownMember),
                Some(id) if *id != member.id => Err(GroupError::FencedInstance),
                Some(_) => Ok(()),
            };
        }
        let known = self.members.contains_key(&member.id);
        known.then_some(()).ok_or(GroupError::UnknownMember)
    }

    /// As [`Group::check_member`], and the generation must be the group's.
    pub fn check_generation(&self, member: &MemberRef, generation: i32) -> Result<(), GroupError> {
        self.check_member(member)?;
        let same = generation == self.generation;
        same.then_some(()).ok_or(GroupError::IllegalGeneration)
    }

    /// The member was heard of.
    pub fn seen(&mut self, id: &str, now: u64) {
        if let Some(member) = self.members.get_mut(id) {
            member.seen(now);
            let expires = member.expires_ms;
            self.wake_by(expires);
        }
    }

    pub fn add(&mut self, id: Arc<str>, member: Member) {
        self.bytes += member.bytes(&id);
        self.wake_by(member.expires_ms);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        self.members.insert(id, member);
    }

    /// Takes a member out; whoever waits for its answers is told that nobody knows it.
    pub fn remove(&mut self, id: &str, cx: &mut Context<'_>) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        self.bytes -= member.bytes(id);
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(ticket) = member.joining {
            cx.refuse_join(ticket, GroupError::UnknownMember, &"".into());
        }
        if let Some(ticket) = member.syncing {
            cx.refuse_sync(ticket, GroupError::UnknownMember);
        }
    }

    /// What a member that is part of the current generation is told.
    pub fn joined(&self, id: &Arc<str>) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_else(|| "".into());
        let everybody = || {
            self.members.iter().map(|(id, member)| JoinedMember {
                id: id.clone(),
                instance: member.instance.clone(),
                metadata: member.metadata(&protocol),
            })
        };
        let members = if self.is_leader(id) {
            everybody().collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            member: id.clone(),
            members,
            protocol,
        }
    }

    /// What a member is told to do.
    pub fn share(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_else(|| "".into()),
            assignment: member.assignment.clone(),
        }
    }
}
