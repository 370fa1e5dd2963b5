//! A member joins: for the first time, again, or in the place of an earlier self.

use std::sync::Arc;

use super::answer::{Answer, GroupError, Joined};
use super::limits;
use super::member::Member;
use super::request::{Join, MemberRef, Ticket};
use super::state::{Context, Group, Phase};

impl Group {
    /// A member wants to be part of the next generation. It is answered now, or by the rebalance.
    pub fn join(&mut self, join: Join, cx: &mut Context<'_>) {
        let told = join.member.clone().unwrap_or_else(|| "".into());
        if let Err(error) = self.check_join(&join, cx) {
            return cx.refuse_join(join.ticket, error, &told);
        }
        match &join.member {
            None => self.join_first(join, cx),
            Some(id) if self.pending.contains_key(id) => {
                let id = id.clone();
                self.add_and_rebalance(id, &join, cx);
            }
            Some(id) => self.join_again(&id.clone(), join, cx),
        }
        self.complete_if_all_joined(cx);
    }

    fn check_join(&self, join: &Join, cx: &Context<'_>) -> Result<(), GroupError> {
        let in_place_of = join.instance.as_ref().and_then(|i| self.instances.get(i));
        let comes_back = match &join.member {
            Some(id) => self.members.contains_key(id) || self.pending.contains_key(id),
            None => in_place_of.is_some(),
        };
        if let Some(id) = join
            .member
            .clone()
            .filter(|id| !self.pending.contains_key(id))
        {
            let instance = join.instance.clone();
            self.check_member(&MemberRef { id, instance })?;
        }
        if !comes_back && self.members.len() + self.pending.len() >= cx.options.members_max {
            return Err(GroupError::GroupFull);
        }
        let consistent = self.supports(join);
        consistent
            .then_some(())
            .ok_or(GroupError::InconsistentProtocol)
    }

    /// Whether everybody who is here supports something that the joining member offers.
    fn supports(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let mut offered = join.protocols.iter();
        self.protocol_type == join.protocol_type
            && offered.any(|p| self.members.values().all(|m| m.supports(&p.name)))
    }

    fn join_first(&mut self, join: Join, cx: &mut Context<'_>) {
        let id = join.new_member.clone();
        let known = join.instance.as_ref().and_then(|i| self.instances.get(i));
        if let Some(old) = known.cloned() {
            self.replace(&old, id, join, cx);
        } else if join.id_required && join.instance.is_none() {
            let until = cx.now.saturating_add(join.session_timeout_ms);
            self.pending.insert(id.clone(), until);
            self.wake_by(until);
            cx.refuse_join(join.ticket, GroupError::MemberIdRequired, &id);
        } else {
            self.add_and_rebalance(id, &join, cx);
        }
    }

    fn add_and_rebalance(&mut self, id: Arc<str>, join: &Join, cx: &mut Context<'_>) {
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type.clone();
        }
        if let Phase::Preparing {
            initial: Some(initial),
            ..
        } = &mut self.phase
            && self.generation == 0
        {
            initial.member_added = true;
        }
        self.add(id, Member::new(join, cx.now));
        self.rebalance(cx);
    }

    /// A member of the group joins again. Only what may change the shares causes a rebalance.
    fn join_again(&mut self, id: &Arc<str>, join: Join, cx: &mut Context<'_>) {
        let Some(member) = self.members.get(id) else {
            return cx.refuse_join(join.ticket, GroupError::UnknownMember, id);
        };
        let same = member.protocols == join.protocols;
        let answered = match self.phase {
            // It did not get its answer, for it would not ask again otherwise.
            Phase::Completing => same,
            // A leader that joins again wants to share out anew: its topics have changed.
            Phase::Stable => same && !self.is_leader(id),
            Phase::Empty { .. } | Phase::Preparing { .. } => false,
        };
        if answered {
            self.seen(id, cx.now);
            let joined = Ok(self.joined(id));
            return cx.answers.push(Answer::Join(join.ticket, joined));
        }
        self.update_member(id, &join);
        self.wait_to_join(id, &join, cx);
        self.rebalance(cx);
    }

    fn update_member(&mut self, id: &str, join: &Join) {
        if let Some(member) = self.members.get_mut(id) {
            let before = member.bytes(id);
            member.update(join);
            self.bytes = self.bytes - before + member.bytes(id);
        }
    }

    fn wait_to_join(&mut self, id: &Arc<str>, join: &Join, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if member.is_new {
            member.expires_ms = cx.now.saturating_add(limits::NEW_MEMBER_JOIN_MS);
        }
        if let Some(earlier) = member.joining.replace(join.ticket) {
            // Its client has given that one up, but nobody's request is left unanswered.
            cx.refuse_join(earlier, GroupError::RebalanceInProgress, id);
        }
    }

    /// A static member has restarted: it takes the place of its earlier self.
    fn replace(&mut self, old: &Arc<str>, id: Arc<str>, join: Join, cx: &mut Context<'_>) {
        let leader_before = self.leader.clone();
        if !self.rename(old, &id, cx) {
            return cx.refuse_join(join.ticket, GroupError::UnknownMember, &"".into());
        }
        self.update_member(&id, &join);
        self.seen(&id, cx.now);
        let unchanged = self.phase == Phase::Stable && self.protocol == self.vote();
        if !unchanged {
            self.wait_to_join(&id, &join, cx);
            return self.rebalance(cx);
        }
        // It must not share out anew, for nobody else joins: a leader is told that its earlier
        // self still leads, so that it asks for its share as the others do.
        let leader = leader_before.unwrap_or_else(|| "".into());
        let joined = Joined {
            leader,
            members: Vec::new(),
            ..self.joined(&id)
        };
        cx.answers.push(Answer::Join(join.ticket, Ok(joined)));
    }

    /// Gives a member another id. Whoever waits under the old one is fenced.
    fn rename(&mut self, old: &Arc<str>, id: &Arc<str>, cx: &mut Context<'_>) -> bool {
        let Some(mut member) = self.members.remove(old) else {
            return false;
        };
        self.bytes -= member.bytes(old);
        if let Some(ticket) = member.joining.take() {
            cx.refuse_join(ticket, GroupError::FencedInstance, old);
        }
        if let Some(ticket) = member.syncing.take() {
            cx.refuse_sync(ticket, GroupError::FencedInstance);
        }
        if self.is_leader(old) {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.bytes += member.bytes(id);
        self.members.insert(id.clone(), member);
        true
    }

    /// The connection of a join that waits is gone. A new member whose client never learnt its id
    /// cannot come back, so the rebalance need not wait for it, nor give it a share.
    pub fn abandon(&mut self, ticket: Ticket, cx: &mut Context<'_>) {
        let waiting = |m: &Member| m.joining == Some(ticket) && m.is_new && !m.knows_id;
        let gone = self
            .members
            .iter()
            .find(|(_, m)| waiting(m) && m.instance.is_none());
        if let Some(id) = gone.map(|(id, _)| id.clone()) {
            self.remove(&id, cx);
            self.complete_if_all_joined(cx);
        }
    }
}

/// What can be said about a join before its group is looked at.
pub(super) fn check(join: &Join, cx: &Context<'_>) -> Result<(), GroupError> {
    let session = cx.options.session_timeout_min_ms..=cx.options.session_timeout_max_ms;
    if !session.contains(&join.session_timeout_ms) {
        return Err(GroupError::InvalidSessionTimeout);
    }
    let names = [
        join.member.as_ref(),
        join.instance.as_ref(),
        Some(&join.protocol_type),
    ];
    let protocols = join.protocols.iter().map(|p| &p.name);
    let mut names = names.into_iter().flatten().chain(protocols);
    let long = names.any(|name| name.len() > limits::NAME_BYTES_MAX);
    if long || join.protocols.len() > limits::MEMBER_PROTOCOLS_MAX {
        return Err(GroupError::InvalidRequest);
    }
    Ok(())
}
