//! Heartbeats, leaving, and who may commit offsets.

use super::answer::GroupError;
use super::request::{Commit, Leaver, MemberRef};
use super::state::{Context, Group, Phase};

impl Group {
    /// A member says that it lives; it is told when it has to join again.
    pub fn heartbeat(
        &mut self,
        member: &MemberRef,
        generation: i32,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        self.check_generation(member, generation)?;
        self.seen(&member.id, cx.now);
        match self.phase {
            Phase::Empty { .. } => Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// A member leaves, or is sent away by the name of its instance.
    pub fn leave(&mut self, leaver: &Leaver, cx: &mut Context<'_>) -> Result<(), GroupError> {
        if leaver.id.is_empty() {
            let instance = leaver.instance.as_ref();
            let id = instance.and_then(|i| self.instances.get(i)).cloned();
            let id = id.ok_or(GroupError::UnknownMember)?;
            self.remove_and_rebalance(&id, cx);
        } else if self.pending.remove(&leaver.id).is_some() {
            self.complete_if_all_joined(cx);
        } else {
            self.check_member(leaver)?;
            self.remove_and_rebalance(&leaver.id, cx);
        }
        Ok(())
    }

    /// Takes a member out of the group, whose others share out anew.
    pub fn remove_and_rebalance(&mut self, id: &str, cx: &mut Context<'_>) {
        self.remove(id, cx);
        match self.phase {
            Phase::Empty { .. } => {}
            Phase::Preparing { .. } => self.complete_if_all_joined(cx),
            Phase::Completing | Phase::Stable => self.rebalance(cx),
        }
    }

    /// Says whether somebody may commit offsets now.
    pub fn check_commit(
        &mut self,
        commit: &Commit,
        cx: &mut Context<'_>,
    ) -> Result<(), GroupError> {
        let member = &commit.member;
        let named = commit.generation >= 0 || !member.id.is_empty() || member.instance.is_some();
        if !named {
            let alone = commit.transactional || self.is_empty();
            return alone.then_some(()).ok_or(GroupError::UnknownMember);
        }
        // A consumer that uses offsets only may name itself, as long as there is no member.
        if commit.generation < 0 && self.is_empty() {
            return Ok(());
        }
        self.check_generation(member, commit.generation)?;
        if self.phase == Phase::Completing && !commit.transactional {
            // It knows of the new generation, but has no share in it that it could commit for.
            return Err(GroupError::RebalanceInProgress);
        }
        if !commit.transactional {
            self.seen(&member.id, cx.now);
        }
        Ok(())
    }
}
