//! A coordinator with a clock of its own, and members that are easily told apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::answer::{Answer, GroupError, JoinRefused, Joined, Synced};
use super::super::request::{Client, Commit, Join, MemberRef, Protocol, Sync, Ticket};
use super::super::{GroupOptions, GroupState, Groups};

pub const GROUP: &str = "billing";
pub const SESSION_MS: u64 = 10_000;
pub const REBALANCE_MS: u64 = 60_000;
pub const DELAY_MS: u64 = 3_000;

pub struct Rig {
    pub groups: Groups,
    pub now: u64,
    tickets: u64,
    answers: BTreeMap<Ticket, Answer>,
}

/// A join to build upon.
pub fn joining(member: &str) -> Join {
    Join {
        ticket: Ticket(0),
        member: (!member.is_empty()).then(|| member.into()),
        new_member: "".into(),
        instance: None,
        id_required: false,
        client: Client::default(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
    }
}

pub fn protocols(names: &[&str]) -> Vec<Protocol> {
    let each = names.iter().map(|name| Protocol {
        name: (*name).into(),
        metadata: subscription(&["orders"]),
    });
    each.collect()
}

pub fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.into()
}

pub fn member(id: &str) -> MemberRef {
    let instance = None;
    MemberRef {
        id: id.into(),
        instance,
    }
}

pub fn static_member(id: &str, instance: &str) -> MemberRef {
    let instance = Some(instance.into());
    MemberRef {
        id: id.into(),
        instance,
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(GroupOptions::default())
    }

    pub fn with(options: GroupOptions) -> Self {
        Self {
            groups: Groups::new(options),
            now: 1_000,
            tickets: 0,
            answers: BTreeMap::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn keep(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            let before = self.answers.insert(*ticket, answer.clone());
            assert_eq!(before, None, "a request is answered once");
        }
    }

    /// Joins as `name`: its member id when it is new.
    pub fn join(&mut self, name: &str, join: Join) -> Ticket {
        self.join_group(GROUP, name, join)
    }

    pub fn join_group(&mut self, group: &str, name: &str, mut join: Join) -> Ticket {
        join.ticket = self.ticket();
        join.new_member = name.into();
        let (ticket, mut out) = (join.ticket, Vec::new());
        self.groups.join(&group.into(), join, self.now, &mut out);
        self.keep(out);
        ticket
    }

    pub fn sync(&mut self, who: MemberRef, generation: i32, shares: &[(&str, &str)]) -> Ticket {
        let shares = shares.iter();
        let sync = Sync {
            ticket: self.ticket(),
            member: who,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: shares
                .map(|(id, share)| (Arc::from(*id), Bytes::copy_from_slice(share.as_bytes())))
                .collect(),
        };
        let (ticket, mut out) = (sync.ticket, Vec::new());
        self.groups.sync(&GROUP.into(), sync, self.now, &mut out);
        self.keep(out);
        ticket
    }

    pub fn heartbeat(&mut self, who: &MemberRef, generation: i32) -> Result<(), GroupError> {
        let mut out = Vec::new();
        let group = GROUP.into();
        let result = self
            .groups
            .heartbeat(&group, who, generation, self.now, &mut out);
        self.keep(out);
        result
    }

    pub fn leave(&mut self, who: &MemberRef) -> Result<(), GroupError> {
        let mut out = Vec::new();
        let result = self.groups.leave(&GROUP.into(), who, self.now, &mut out);
        self.keep(out);
        result
    }

    pub fn check_commit(&mut self, who: MemberRef, generation: i32) -> Result<(), GroupError> {
        let transactional = false;
        self.check(Commit {
            member: who,
            generation,
            transactional,
        })
    }

    pub fn check(&mut self, commit: Commit) -> Result<(), GroupError> {
        let mut out = Vec::new();
        let result = self
            .groups
            .check_commit(&GROUP.into(), &commit, self.now, &mut out);
        self.keep(out);
        result
    }

    pub fn abandon(&mut self, ticket: Ticket) {
        let mut out = Vec::new();
        self.groups
            .abandon(&GROUP.into(), ticket, self.now, &mut out);
        self.keep(out);
    }

    /// Lets time go by, with everything that is due at its time.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.groups.next_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.groups.expire(self.now, &mut out);
            self.keep(out);
            let next = self.groups.next_wake();
            assert!(
                next.is_none_or(|next| next > self.now),
                "what is due is done"
            );
        }
        self.now = end;
    }

    pub fn state(&self) -> Option<GroupState> {
        self.groups.state(GROUP)
    }

    pub fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub fn answered(&self) -> impl Iterator<Item = &Answer> {
        self.answers.values()
    }

    pub fn joined(&self, ticket: Ticket) -> Joined {
        match self.answers.get(&ticket) {
            Some(Answer::Join(_, Ok(joined))) => joined.clone(),
            other => panic!("{ticket:?} is not joined: {other:?}"),
        }
    }

    pub fn refused(&self, ticket: Ticket) -> JoinRefused {
        match self.answers.get(&ticket) {
            Some(Answer::Join(_, Err(refused))) => refused.clone(),
            other => panic!("{ticket:?} is not refused: {other:?}"),
        }
    }

    pub fn synced(&self, ticket: Ticket) -> Result<Synced, GroupError> {
        match self.answers.get(&ticket) {
            Some(Answer::Sync(_, result)) => result.clone(),
            other => panic!("{ticket:?} is not synced: {other:?}"),
        }
    }

    pub fn share(&self, ticket: Ticket) -> Bytes {
        self.synced(ticket).expect("a share").assignment
    }

    /// A stable group of these members, of whom the first one leads; answers its generation.
    pub fn stable(&mut self, names: &[&str]) -> i32 {
        let tickets: Vec<Ticket> = names.iter().map(|n| self.join(n, joining(""))).collect();
        self.advance(2 * DELAY_MS);
        let generation = self.joined(tickets[0]).generation;
        assert_eq!(&*self.joined(tickets[0]).leader, names[0]);
        let shares: Vec<(&str, &str)> = names.iter().map(|n| (*n, *n)).collect();
        let syncs: Vec<Ticket> = names
            .iter()
            .rev()
            .map(|n| {
                self.sync(
                    member(n),
                    generation,
                    if *n == names[0] { &shares } else { &[] },
                )
            })
            .collect();
        for (sync, name) in syncs.into_iter().zip(names.iter().rev()) {
            assert_eq!(self.share(sync), name.as_bytes());
        }
        assert_eq!(self.state(), Some(GroupState::Stable));
        generation
    }
}
