//! What time does to a group.

use std::sync::Arc;

use super::limits;
use super::state::{Context, Group, Phase};

impl Group {
    /// Does what is due. Answers whether the group may be forgotten.
    pub fn expire(&mut self, cx: &mut Context<'_>) -> bool {
        self.wake_ms = None;
        self.expire_pending(cx);
        self.expire_sessions(cx);
        self.expire_syncs(cx);
        if let Phase::Preparing { deadline_ms, .. } = self.phase
            && deadline_ms <= cx.now
        {
            self.rebalance_timed_out(cx);
        }
        self.wake_ms = self.next_deadline();
        self.is_forgettable(cx.now)
    }

    fn expire_pending(&mut self, cx: &mut Context<'_>) {
        let before = self.pending.len();
        self.pending.retain(|_, until| *until > cx.now);
        if self.pending.len() < before {
            self.complete_if_all_joined(cx);
        }
    }

    fn expire_sessions(&mut self, cx: &mut Context<'_>) {
        let members = self.members.iter();
        let silent = members.filter(|(_, m)| m.expires().is_some_and(|at| at <= cx.now));
        let silent: Vec<Arc<str>> = silent.map(|(id, _)| id.clone()).collect();
        for id in silent {
            tracing::info!(member = %id, "a member was silent for its session timeout: removed");
            self.remove_and_rebalance(&id, cx);
        }
    }

    /// Members that joined a generation and never asked for their share hold it up.
    fn expire_syncs(&mut self, cx: &mut Context<'_>) {
        if self.sync_deadline_ms.is_none_or(|at| at > cx.now) {
            return;
        }
        self.sync_deadline_ms = None;
        let members = self.members.iter().filter(|(_, m)| !m.synced);
        let late: Vec<Arc<str>> = members.map(|(id, _)| id.clone()).collect();
        for id in late {
            tracing::info!(member = %id, "a member never asked for its assignment: removed");
            self.remove(&id, cx);
        }
        self.rebalance(cx);
    }

    /// When the next thing is due.
    fn next_deadline(&self) -> Option<u64> {
        let members = self.members.values().filter_map(|m| m.expires());
        let pending = self.pending.values().copied();
        let phase = match self.phase {
            // Whoever was told its id may still come: until then the group stays.
            Phase::Empty { .. } if !self.pending.is_empty() => None,
            Phase::Empty { since_ms } => Some(since_ms.saturating_add(limits::EMPTY_GROUP_KEPT_MS)),
            Phase::Preparing { deadline_ms, .. } => Some(deadline_ms),
            Phase::Completing | Phase::Stable => None,
        };
        members
            .chain(pending)
            .chain(phase)
            .chain(self.sync_deadline_ms)
            .min()
    }

    fn is_forgettable(&self, now: u64) -> bool {
        let Phase::Empty { since_ms } = self.phase else {
            return false;
        };
        let kept_until = since_ms.saturating_add(limits::EMPTY_GROUP_KEPT_MS);
        self.members.is_empty() && self.pending.is_empty() && kept_until <= now
    }
}
