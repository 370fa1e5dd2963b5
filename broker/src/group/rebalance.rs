//! A rebalance: it begins, it waits, it ends with a new generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::{Answer, GroupError};
use super::limits;
use super::member::Member;
use super::state::{Context, Group, Initial, Phase};

impl Group {
    /// Begins a rebalance, unless one has begun already.
    pub fn rebalance(&mut self, cx: &mut Context<'_>) {
        let timeout = self.rebalance_timeout_ms();
        let (wait, initial) = match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty { .. } => {
                let wait = cx.options.initial_rebalance_delay_ms;
                let left_ms = timeout.saturating_sub(wait);
                let member_added = false;
                (
                    wait,
                    Some(Initial {
                        left_ms,
                        member_added,
                    }),
                )
            }
            Phase::Completing | Phase::Stable => (timeout, None),
        };
        self.refuse_syncs(GroupError::RebalanceInProgress, cx);
        self.sync_deadline_ms = None;
        self.prepare(wait, initial, cx);
        if wait == 0 && initial.is_some() {
            return self.complete(cx);
        }
        self.complete_if_all_joined(cx);
    }

    fn prepare(&mut self, wait: u64, initial: Option<Initial>, cx: &Context<'_>) {
        let deadline_ms = cx.now.saturating_add(wait);
        self.phase = Phase::Preparing {
            deadline_ms,
            initial,
        };
        self.wake_by(deadline_ms);
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    /// Everybody who waits for the leader's assignments is told to do something else.
    pub fn refuse_syncs(&mut self, error: GroupError, cx: &mut Context<'_>) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.seen(cx.now);
                cx.refuse_sync(ticket, error);
            }
        }
    }

    /// Ends the rebalance when there is nobody left to wait for.
    pub fn complete_if_all_joined(&mut self, cx: &mut Context<'_>) {
        let Phase::Preparing { initial, .. } = self.phase else {
            return;
        };
        let joined = self.members.values().all(|m| m.joining.is_some());
        // The first rebalance of an empty group waits for members that nobody knows yet.
        let waits = initial.is_some() && !self.members.is_empty();
        if joined && self.pending.is_empty() && !waits {
            self.complete(cx);
        }
    }

    /// The rebalance has waited long enough.
    pub fn rebalance_timed_out(&mut self, cx: &mut Context<'_>) {
        let Phase::Preparing { initial, .. } = self.phase else {
            return;
        };
        match initial {
            Some(Initial {
                left_ms,
                member_added: true,
            }) if left_ms > 0 => {
                let wait = cx.options.initial_rebalance_delay_ms.min(left_ms);
                let left_ms = left_ms - wait;
                let member_added = false;
                self.prepare(
                    wait,
                    Some(Initial {
                        left_ms,
                        member_added,
                    }),
                    cx,
                );
            }
            _ => self.complete(cx),
        }
    }

    fn complete(&mut self, cx: &mut Context<'_>) {
        let late = |m: &&Member| m.joining.is_none() && m.instance.is_none();
        let late = self.members.iter().filter(|(_, m)| late(m));
        let late: Vec<Arc<str>> = late.map(|(id, _)| id.clone()).collect();
        for id in late {
            self.remove(&id, cx);
        }
        if self.members.is_empty() {
            return self.become_empty(cx.now);
        }
        if !self.elect_leader() {
            // Only static members are left, and none has joined again: their sessions decide.
            let wait = self.rebalance_timeout_ms().max(limits::NOBODY_JOINED_MS);
            return self.prepare(wait, None, cx);
        }
        self.begin_generation(cx);
    }

    pub fn become_empty(&mut self, now: u64) {
        self.generation = next_generation(self.generation);
        self.protocol = None;
        self.leader = None;
        self.sync_deadline_ms = None;
        self.phase = Phase::Empty { since_ms: now };
        self.wake_by(now.saturating_add(limits::EMPTY_GROUP_KEPT_MS));
    }

    /// The leader must have joined, for somebody has to share out.
    fn elect_leader(&mut self) -> bool {
        let joined = |m: Option<&Member>| m.is_some_and(|m| m.joining.is_some());
        let leader = self.leader.clone();
        if joined(leader.and_then(|id| self.members.get(&id))) {
            return true;
        }
        let first = self.members.iter().find(|(_, m)| m.joining.is_some());
        let Some(id) = first.map(|(id, _)| id.clone()) else {
            return false;
        };
        self.leader = Some(id);
        true
    }

    fn begin_generation(&mut self, cx: &mut Context<'_>) {
        self.generation = next_generation(self.generation);
        self.protocol = self.vote();
        self.phase = Phase::Completing;
        let deadline = cx.now.saturating_add(self.rebalance_timeout_ms());
        self.sync_deadline_ms = Some(deadline);
        self.wake_by(deadline);
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            self.bytes -= member.assignment.len();
            member.assignment = Bytes::new();
            member.is_new = false;
            member.synced = false;
            let joining = member.joining.take();
            self.seen(&id, cx.now);
            if let Some(ticket) = joining {
                let joined = Ok(self.joined(&id));
                cx.answers.push(Answer::Join(ticket, joined));
            }
        }
    }

    /// The protocol that most members like best, of those that all support. The name decides
    /// where votes are equal, so that the same members always choose the same.
    pub fn vote(&self) -> Option<Arc<str>> {
        let supported = |name: &str| self.members.values().all(|m| m.supports(name));
        let first = self.members.values().next()?;
        let offered = first.protocols.iter().map(|p| &p.name);
        let mut votes: BTreeMap<&Arc<str>, usize> =
            offered.filter(|n| supported(n)).map(|n| (n, 0)).collect();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|p| &p.name);
            if let Some(count) = names.find(|n| votes.contains_key(n)) {
                *votes.entry(count).or_default() += 1;
            }
        }
        let best = votes.iter().rev().max_by_key(|(_, votes)| **votes);
        best.map(|(name, _)| (*name).clone())
    }
}

/// Generations count up, and begin anew at the end of the number line.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}
