//! Members ask for their shares, and the leader brings them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::{Answer, GroupError};
use super::limits;
use super::request::Sync;
use super::state::{Context, Group, Phase};

impl Group {
    /// A member asks for its share. It is answered now, or when the leader has shared out.
    /// `room` is how many more bytes all groups together may hold.
    pub fn sync(&mut self, sync: Sync, room: usize, cx: &mut Context<'_>) {
        if let Err(error) = self.check_sync(&sync) {
            return cx.refuse_sync(sync.ticket, error);
        }
        let id = sync.member.id.clone();
        self.mark_synced(&id);
        if self.phase == Phase::Stable {
            self.seen(&id, cx.now);
            if let Some(member) = self.members.get(&id) {
                let share = Ok(self.share(member));
                cx.answers.push(Answer::Sync(sync.ticket, share));
            }
            return;
        }
        if let Some(member) = self.members.get_mut(&id)
            && let Some(earlier) = member.syncing.replace(sync.ticket)
        {
            cx.refuse_sync(earlier, GroupError::RebalanceInProgress);
        }
        if self.is_leader(&id) {
            self.share_out(sync.assignments, room, cx);
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check_generation(&sync.member, sync.generation)?;
        let other_type = sync
            .protocol_type
            .as_ref()
            .is_some_and(|t| *t != self.protocol_type);
        let other = sync.protocol.is_some() && sync.protocol != self.protocol;
        if other_type || other {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.phase {
            Phase::Empty { .. } => Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    fn mark_synced(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.synced = true;
        }
        if self.members.values().all(|m| m.synced) {
            self.sync_deadline_ms = None;
        }
    }

    /// Hands the shares out. A member that the leader has forgotten gets an empty one; shares of
    /// those who are not in the group are dropped.
    fn share_out(&mut self, shares: Vec<(Arc<str>, Bytes)>, room: usize, cx: &mut Context<'_>) {
        let known = shares
            .into_iter()
            .filter(|(id, _)| self.members.contains_key(id));
        let mut shares: BTreeMap<Arc<str>, Bytes> = known.collect();
        let bytes: usize = shares.values().map(Bytes::len).sum();
        if bytes > room || self.bytes + bytes > limits::GROUP_BYTES_MAX {
            self.refuse_syncs(GroupError::AssignmentTooLarge, cx);
            return self.rebalance(cx);
        }
        self.bytes += bytes;
        self.phase = Phase::Stable;
        for (id, member) in &mut self.members {
            member.assignment = shares.remove(id).unwrap_or_default();
        }
        self.answer_syncs(cx);
    }

    fn answer_syncs(&mut self, cx: &mut Context<'_>) {
        let waiting = self.members.iter_mut().filter_map(|(id, member)| {
            let ticket = member.syncing.take()?;
            Some((id.clone(), ticket))
        });
        for (id, ticket) in waiting.collect::<Vec<_>>() {
            self.seen(&id, cx.now);
            if let Some(member) = self.members.get(&id) {
                let share = Ok(self.share(member));
                cx.answers.push(Answer::Sync(ticket, share));
            }
        }
    }
}
