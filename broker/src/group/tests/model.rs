//! Members that join, sync, beat, leave and die at random, against the promises of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::answer::{Answer, GroupError};
use super::super::request::{Join, MemberRef, Ticket};
use super::super::{GroupOptions, limits};
use super::rig::*;

const CLIENTS: usize = 5;
const MEMBERS_MAX: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Join {
        client: usize,
        offer: usize,
        id_required: bool,
    },
    Sync {
        client: usize,
        stale: bool,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    /// The process dies and starts anew without a word: it has forgotten who it was.
    Restart {
        client: usize,
    },
    Disconnect {
        client: usize,
    },
    Commit {
        client: usize,
    },
    Wait {
        ms: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (client.clone(), 0..4usize, any::<bool>())
            .prop_map(|(client, offer, id_required)| Op::Join { client, offer, id_required }),
        6 => (client.clone(), prop::bool::weighted(0.1))
            .prop_map(|(client, stale)| Op::Sync { client, stale }),
        3 => client.clone().prop_map(|client| Op::Heartbeat { client }),
        1 => client.clone().prop_map(|client| Op::Leave { client }),
        1 => client.clone().prop_map(|client| Op::Restart { client }),
        1 => client.clone().prop_map(|client| Op::Disconnect { client }),
        1 => client.prop_map(|client| Op::Commit { client }),
        4 => prop_oneof![1..500u64, 2_000..7_000u64, 20_000..80_000u64]
            .prop_map(|ms| Op::Wait { ms }),
    ]
}

/// What one process remembers.
#[derive(Clone, Debug, Default)]
struct Process {
    id: Option<Arc<str>>,
    generation: i32,
    leads: Option<Vec<Arc<str>>>,
    waits: Option<Ticket>,
}

struct Play {
    rig: Rig,
    processes: Vec<Process>,
    ids: usize,
    /// What each generation is known to be, by everybody's word.
    generations: BTreeMap<i32, (Arc<str>, Arc<str>)>,
    /// Who was told to share out, for each generation.
    leaders: BTreeMap<i32, BTreeSet<Arc<str>>>,
    /// Ticket of a sync → member and generation.
    syncs: BTreeMap<Ticket, (Arc<str>, i32)>,
    tickets: BTreeSet<Ticket>,
    seen: BTreeSet<Ticket>,
}

/// The last two clients are static members.
fn instance(client: usize) -> Option<Arc<str>> {
    (client >= CLIENTS - 2).then(|| format!("static-{client}").into())
}

fn offer(n: usize) -> &'static [&'static str] {
    [
        &["range"][..],
        &["range", "robin"],
        &["robin", "range"],
        &["robin"],
    ][n]
}

impl Play {
    fn new() -> Self {
        let options = GroupOptions {
            members_max: MEMBERS_MAX,
            ..GroupOptions::default()
        };
        Self {
            rig: Rig::with(options),
            processes: vec![Process::default(); CLIENTS],
            ids: 0,
            generations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            syncs: BTreeMap::new(),
            tickets: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    fn who(&self, client: usize) -> MemberRef {
        let id = self.processes[client]
            .id
            .clone()
            .unwrap_or_else(|| "".into());
        MemberRef {
            id,
            instance: instance(client),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Join {
                client,
                offer: n,
                id_required,
            } => {
                self.ids += 1;
                let name = format!("{client}-{}", self.ids);
                let join = Join {
                    member: self.processes[client].id.clone(),
                    instance: instance(client),
                    id_required,
                    protocols: protocols(offer(n)),
                    ..joining("")
                };
                let ticket = self.rig.join(&name, join);
                self.processes[client].waits = Some(ticket);
                self.tickets.insert(ticket);
            }
            Op::Sync { client, stale } => self.sync(client, stale),
            Op::Heartbeat { client } => {
                let generation = self.processes[client].generation;
                let told = self.rig.heartbeat(&self.who(client), generation);
                if matches!(
                    told,
                    Err(GroupError::UnknownMember | GroupError::FencedInstance)
                ) {
                    self.processes[client].id = None;
                }
            }
            Op::Leave { client } => {
                if self.rig.leave(&self.who(client)).is_ok() {
                    self.processes[client].id = None;
                }
            }
            Op::Restart { client } => self.processes[client] = Process::default(),
            Op::Disconnect { client } => {
                if let Some(ticket) = self.processes[client].waits.take() {
                    self.rig.abandon(ticket);
                }
            }
            Op::Commit { client } => {
                let generation = self.processes[client].generation;
                let _ = self.rig.check_commit(self.who(client), generation);
            }
            Op::Wait { ms } => self.rig.advance(ms),
        }
    }

    /// Asks for a share. A leader gives each member its own id and the generation as a share.
    fn sync(&mut self, client: usize, stale: bool) {
        let process = &self.processes[client];
        let generation = process.generation - i32::from(stale);
        let members = process.leads.clone().unwrap_or_default();
        let shares: Vec<(String, String)> = members
            .iter()
            .map(|id| (id.to_string(), format!("{id}@{generation}")))
            .collect();
        let shares: Vec<(&str, &str)> = shares
            .iter()
            .map(|(id, share)| (id.as_str(), share.as_str()))
            .collect();
        let who = self.who(client);
        let ticket = self.rig.sync(who.clone(), generation, &shares);
        self.syncs.insert(ticket, (who.id, generation));
        self.tickets.insert(ticket);
        self.processes[client].waits = Some(ticket);
    }

    /// Hears what was answered since the last time, and holds it against the promises.
    fn hear(&mut self) {
        let answers: Vec<Answer> = self.rig.answered().cloned().collect();
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            if !self.seen.insert(*ticket) {
                continue;
            }
            let waiting = self.processes.iter().position(|p| p.waits == Some(*ticket));
            match answer {
                Answer::Join(_, Ok(joined)) => {
                    let told = (joined.protocol.clone(), joined.protocol_type.clone());
                    let before = self
                        .generations
                        .entry(joined.generation)
                        .or_insert(told.clone());
                    assert_eq!(*before, told, "a generation has one protocol");
                    let names: Vec<Arc<str>> =
                        joined.members.iter().map(|m| m.id.clone()).collect();
                    if !names.is_empty() {
                        assert!(names.contains(&joined.member));
                        assert!(names.len() <= MEMBERS_MAX);
                        let leaders = self.leaders.entry(joined.generation).or_default();
                        leaders.insert(joined.member.clone());
                        assert_eq!(leaders.len(), 1, "one leader for each generation");
                    }
                    if let Some(client) = waiting {
                        let process = &mut self.processes[client];
                        process.id = Some(joined.member.clone());
                        process.generation = joined.generation;
                        process.leads = (!names.is_empty()).then_some(names);
                    }
                }
                Answer::Join(_, Err(refused)) => {
                    if let Some(client) = waiting {
                        self.processes[client].id = match refused.error {
                            GroupError::MemberIdRequired => Some(refused.member),
                            GroupError::UnknownMember | GroupError::FencedInstance => None,
                            _ => self.processes[client].id.clone(),
                        };
                    }
                }
                Answer::Sync(ticket, Ok(synced)) => {
                    let (id, generation) = &self.syncs[&ticket];
                    let told = (synced.protocol.clone(), synced.protocol_type.clone());
                    assert_eq!(self.generations.get(generation), Some(&told));
                    // A static member gets the share of its earlier self, whose id had its name.
                    let share = String::from_utf8(synced.assignment.to_vec()).expect("text");
                    let client = id.split('-').next().expect("a client");
                    let own = share.starts_with(&format!("{client}-"))
                        && share.ends_with(&format!("@{generation}"));
                    assert!(share.is_empty() || own, "{id} in {generation} got {share}");
                }
                Answer::Sync(_, Err(_)) => {}
            }
            if let Some(client) = waiting {
                self.processes[client].waits = None;
            }
        }
    }

    fn check_bounds(&self) {
        if let Some(group) = self.rig.groups.describe(GROUP) {
            assert!(group.members.len() <= MEMBERS_MAX);
            let instances = group.members.iter().filter_map(|m| m.instance.clone());
            let instances: Vec<Arc<str>> = instances.collect();
            let names: BTreeSet<_> = instances.iter().collect();
            assert_eq!(names.len(), instances.len(), "an instance is one member");
        }
        self.rig.groups.check_books();
    }

    /// When everybody has fallen silent, everything must be over.
    fn end(&mut self) {
        self.rig
            .advance(3 * limits::NEW_MEMBER_JOIN_MS + limits::EMPTY_GROUP_KEPT_MS);
        self.hear();
        let open: Vec<_> = self.tickets.difference(&self.seen).collect();
        assert!(open.is_empty(), "not answered: {open:?}");
        assert_eq!(self.rig.groups.list(), []);
        self.rig.groups.check_books();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_group_keeps_its_promises_whatever_its_members_do(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut play = Play::new();
        for op in &ops {
            play.apply(op);
            play.hear();
            play.check_bounds();
        }
        play.end();
    }
}
