//! All groups of a broker.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::answer::{Answer, GroupError, JoinRefused};
use super::describe::{Described, Listed, Subscribed};
use super::request::{Commit, Join, Leaver, MemberRef, Sync, Ticket};
use super::state::{Context, Group, GroupState, Phase};
use super::{GroupOptions, join, limits};

/// The groups that have, or lately had, members.
///
/// Each event gets the time, in ms of any clock that does not go back, and where to put its
/// answers: its own, and those of requests that waited for it.
#[derive(Debug, Default)]
pub struct Groups {
    options: GroupOptions,
    groups: HashMap<Arc<str>, Group>,
    /// When which group wants to be woken.
    wakes: BTreeSet<(u64, Arc<str>)>,
    /// What all members hold.
    bytes: usize,
}

impl Groups {
    /// No groups yet.
    pub fn new(options: GroupOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// A member wants to be part of the group's next generation.
    pub fn join(&mut self, group: &Arc<str>, join: Join, now: u64, answers: &mut Vec<Answer>) {
        if let Err(error) = self.admit(group, &join, now, answers) {
            let member = join.member.clone().unwrap_or_else(|| "".into());
            let refused = JoinRefused { error, member };
            return answers.push(Answer::Join(join.ticket, Err(refused)));
        }
        self.with(group, now, answers, |g, cx| g.join(join, cx));
    }

    /// Says whether a join may reach its group, and makes the group for a first member.
    fn admit(
        &mut self,
        group: &Arc<str>,
        join: &Join,
        now: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<(), GroupError> {
        check_id(group)?;
        let options = &self.options;
        join::check(
            join,
            &Context {
                now,
                options,
                answers,
            },
        )?;
        let held = self.groups.get(group).map_or(0, |g| g.bytes);
        if held + join.bytes() > limits::GROUP_BYTES_MAX {
            return Err(GroupError::GroupFull);
        }
        if self.bytes + join.bytes() > limits::COORDINATOR_BYTES_MAX {
            return Err(GroupError::NoRoom);
        }
        if self.groups.contains_key(group) {
            return Ok(());
        }
        if join.member.is_some() {
            return Err(GroupError::UnknownMember);
        }
        self.make_room()?;
        self.groups.insert(group.clone(), Group::new(now));
        Ok(())
    }

    /// Forgets the group that has been empty for longest, if there are as many as there may be.
    fn make_room(&mut self) -> Result<(), GroupError> {
        if self.groups.len() < self.options.groups_max {
            return Ok(());
        }
        let empty = self.groups.iter().filter_map(|(id, g)| match g.phase {
            Phase::Empty { since_ms } if g.pending.is_empty() => Some((since_ms, id.clone())),
            _ => None,
        });
        let (_, id) = empty.min().ok_or(GroupError::NoRoom)?;
        self.forget(&id);
        Ok(())
    }

    /// A member asks for its share; the leader brings everybody's.
    pub fn sync(&mut self, group: &Arc<str>, sync: Sync, now: u64, answers: &mut Vec<Answer>) {
        let room = limits::COORDINATOR_BYTES_MAX.saturating_sub(self.bytes);
        let error = match check_id(group) {
            Ok(()) if self.groups.contains_key(group) => {
                return self
                    .with(group, now, answers, |g, cx| g.sync(sync, room, cx))
                    .unwrap_or_default();
            }
            Ok(()) => GroupError::UnknownMember,
            Err(error) => error,
        };
        answers.push(Answer::Sync(sync.ticket, Err(error)));
    }

    /// A member says that it lives.
    ///
    /// # Errors
    /// What the member has to do instead.
    pub fn heartbeat(
        &mut self,
        group: &Arc<str>,
        member: &MemberRef,
        generation: i32,
        now: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<(), GroupError> {
        check_id(group)?;
        self.with(group, now, answers, |g, cx| {
            g.heartbeat(member, generation, cx)
        })
        .unwrap_or(Err(GroupError::UnknownMember))
    }

    /// A member leaves, or is sent away.
    ///
    /// # Errors
    /// When there is no such member, or its name is another's now.
    pub fn leave(
        &mut self,
        group: &Arc<str>,
        leaver: &Leaver,
        now: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<(), GroupError> {
        check_id(group)?;
        self.with(group, now, answers, |g, cx| g.leave(leaver, cx))
            .unwrap_or(Err(GroupError::UnknownMember))
    }

    /// Says whether somebody may commit offsets for a group now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_commit(
        &mut self,
        group: &Arc<str>,
        commit: &Commit,
        now: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<(), GroupError> {
        check_id(group)?;
        let checked = self.with(group, now, answers, |g, cx| g.check_commit(commit, cx));
        // Nobody has joined since the broker started. Who names a generation is from before that.
        let unknown = if commit.generation < 0 {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        };
        checked.unwrap_or(unknown)
    }

    /// The connection of a request that waits is gone.
    pub fn abandon(&mut self, group: &Arc<str>, ticket: Ticket, now: u64, out: &mut Vec<Answer>) {
        self.with(group, now, out, |g, cx| g.abandon(ticket, cx));
    }

    /// When [`Groups::expire`] should be called next, if ever.
    pub fn next_wake(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Does everything that is due.
    pub fn expire(&mut self, now: u64, answers: &mut Vec<Answer>) {
        while let Some((at, group)) = self.wakes.first().cloned()
            && at <= now
        {
            let forget = self.with(&group, now, answers, |g, cx| g.expire(cx));
            if forget.unwrap_or(true) {
                self.forget(&group);
                self.wakes.remove(&(at, group));
            }
        }
    }

    /// Where a group stands; none when it has, and lately had, no members.
    pub fn state(&self, group: &str) -> Option<GroupState> {
        self.groups.get(group).map(Group::state)
    }

    /// Every group that has, or lately had, members.
    pub fn list(&self) -> Vec<Listed> {
        let groups = self.groups.iter();
        let listed = groups.map(|(id, group)| Listed {
            group: id.clone(),
            protocol_type: group.protocol_type.clone(),
            state: group.state(),
        });
        listed.collect()
    }

    /// A group, looked at closely.
    pub fn describe(&self, group: &str) -> Option<Described> {
        self.groups.get(group).map(Group::describe)
    }

    /// Which topics the members of a group read: nobody, nothing.
    ///
    /// # Errors
    /// [`GroupError::NonEmpty`] when the members are no consumers, so that it cannot be told.
    pub fn subscribed(&self, group: &str) -> Result<Subscribed, GroupError> {
        match self.groups.get(group) {
            Some(g) if !g.is_empty() && *g.protocol_type != *"consumer" => {
                Err(GroupError::NonEmpty)
            }
            Some(g) => Ok(g.subscribed()),
            None => Ok(Subscribed::To(BTreeSet::new())),
        }
    }

    /// Forgets a group that has no members. Members that were only told their id must begin anew.
    ///
    /// # Errors
    /// [`GroupError::NonEmpty`], and [`GroupError::NotFound`] when it is not in memory: it may
    /// still have offsets.
    pub fn delete(&mut self, group: &str) -> Result<(), GroupError> {
        match self.groups.get(group) {
            None => Err(GroupError::NotFound),
            Some(g) if !g.is_empty() => Err(GroupError::NonEmpty),
            Some(_) => {
                self.forget(group);
                Ok(())
            }
        }
    }

    /// Runs an event of one group, and keeps count of its bytes and of when it wants to be woken.
    fn with<R>(
        &mut self,
        id: &Arc<str>,
        now: u64,
        answers: &mut Vec<Answer>,
        event: impl FnOnce(&mut Group, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let options = &self.options;
        let group = self.groups.get_mut(id)?;
        let (bytes, wake) = (group.bytes, group.wake_ms);
        let mut cx = Context {
            now,
            options,
            answers,
        };
        let result = event(group, &mut cx);
        self.bytes = self.bytes - bytes + group.bytes;
        if group.wake_ms != wake {
            if let Some(at) = wake {
                self.wakes.remove(&(at, id.clone()));
            }
            if let Some(at) = group.wake_ms {
                self.wakes.insert((at, id.clone()));
            }
        }
        Some(result)
    }

    /// Counts anew what is otherwise kept count of.
    #[cfg(test)]
    pub(super) fn check_books(&self) {
        for group in self.groups.values() {
            let held = group.members.iter().map(|(id, member)| member.bytes(id));
            assert_eq!(group.bytes, held.sum::<usize>());
        }
        assert_eq!(
            self.bytes,
            self.groups.values().map(|g| g.bytes).sum::<usize>()
        );
        let wakes = self
            .groups
            .iter()
            .filter_map(|(id, g)| Some((g.wake_ms?, id.clone())));
        assert_eq!(self.wakes, wakes.collect::<BTreeSet<_>>());
    }

    fn forget(&mut self, id: &str) {
        if let Some((id, group)) = self.groups.remove_entry(id) {
            self.bytes -= group.bytes;
            if let Some(at) = group.wake_ms {
                self.wakes.remove(&(at, id));
            }
        }
    }
}

fn check_id(group: &str) -> Result<(), GroupError> {
    let allowed = 1..=limits::GROUP_ID_BYTES_MAX;
    let fits = allowed.contains(&group.len());
    fits.then_some(()).ok_or(GroupError::InvalidGroupId)
}
