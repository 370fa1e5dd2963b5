//! The coordinator at work: the groups, a clock, and the requests that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, GroupError, JoinRefused, Joined, Synced};
use super::describe::{Described, Listed, Subscribed};
use super::request::{Commit, Join, Leaver, MemberRef, Sync, Ticket};
use super::state::GroupState;
use super::{GroupOptions, Groups};

/// All groups of a running broker.
pub(crate) struct Coordinator {
    inner: Mutex<Inner>,
    /// Something is due earlier than the timer knows.
    earlier: Notify,
    started: Instant,
}

struct Inner {
    groups: Groups,
    /// At most one for each connection.
    waiting: HashMap<Ticket, Waiting>,
    tickets: u64,
}

/// Who waits for an answer.
enum Waiting {
    Join(oneshot::Sender<Result<Joined, JoinRefused>>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
}

/// Takes a request that nobody waits for any more out of the coordinator.
struct Guard<'a> {
    coordinator: &'a Coordinator,
    group: &'a Arc<str>,
    ticket: Ticket,
}

impl Coordinator {
    /// No groups yet. [`Coordinator::keep_time`] must run beside it.
    pub fn new(options: GroupOptions) -> Self {
        Self {
            inner: Mutex::new(Inner {
                groups: Groups::new(options),
                waiting: HashMap::new(),
                tickets: 0,
            }),
            earlier: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Does what is due, when it is due, until `stop`.
    pub async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.lock().groups.next_wake();
            let due = async {
                match next {
                    Some(at) => {
                        let at = self.started.checked_add(Duration::from_millis(at));
                        // A time that the clock cannot express is never reached.
                        match at {
                            Some(at) => tokio::time::sleep_until(at).await,
                            None => std::future::pending().await,
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            // Dropping any of these loses nothing: what is due stays due.
            tokio::select! {
                () = due => self.with(|groups, now, answers| groups.expire(now, answers)),
                () = self.earlier.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Joins a group; returns when its next generation begins. The join's ticket is given here.
    ///
    /// # Errors
    /// Why the member is not part of it.
    ///
    /// # Cancellation
    /// The member stays in the group, unless its client cannot know its id.
    pub async fn join(&self, group: &Arc<str>, mut join: Join) -> Result<Joined, JoinRefused> {
        let (sender, answer) = oneshot::channel();
        let ticket = self.take_ticket(Waiting::Join(sender));
        join.ticket = ticket;
        let _guard = Guard {
            coordinator: self,
            group,
            ticket,
        };
        self.with(|groups, now, answers| groups.join(group, join, now, answers));
        answer.await.unwrap_or_else(|_| {
            let error = GroupError::NoRoom;
            Err(JoinRefused {
                error,
                member: "".into(),
            })
        })
    }

    /// Asks for a member's share; returns when the leader has shared out. The ticket is given
    /// here.
    ///
    /// # Errors
    /// What the member has to do instead.
    ///
    /// # Cancellation
    /// The member may ask again.
    pub async fn sync(&self, group: &Arc<str>, mut sync: Sync) -> Result<Synced, GroupError> {
        let (sender, answer) = oneshot::channel();
        let ticket = self.take_ticket(Waiting::Sync(sender));
        sync.ticket = ticket;
        let _guard = Guard {
            coordinator: self,
            group,
            ticket,
        };
        self.with(|groups, now, answers| groups.sync(group, sync, now, answers));
        answer.await.unwrap_or(Err(GroupError::NoRoom))
    }

    /// See [`Groups::heartbeat`].
    pub fn heartbeat(
        &self,
        group: &Arc<str>,
        member: &MemberRef,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.with(|groups, now, answers| groups.heartbeat(group, member, generation, now, answers))
    }

    /// See [`Groups::leave`].
    pub fn leave(&self, group: &Arc<str>, leaver: &Leaver) -> Result<(), GroupError> {
        self.with(|groups, now, answers| groups.leave(group, leaver, now, answers))
    }

    /// See [`Groups::check_commit`].
    pub fn check_commit(&self, group: &Arc<str>, commit: &Commit) -> Result<(), GroupError> {
        self.with(|groups, now, answers| groups.check_commit(group, commit, now, answers))
    }

    /// See [`Groups::delete`].
    pub fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.lock().groups.delete(group)
    }

    /// See [`Groups::state`].
    pub fn state(&self, group: &str) -> Option<GroupState> {
        self.lock().groups.state(group)
    }

    /// See [`Groups::list`].
    pub fn list(&self) -> Vec<Listed> {
        self.lock().groups.list()
    }

    /// See [`Groups::describe`].
    pub fn describe(&self, group: &str) -> Option<Described> {
        self.lock().groups.describe(group)
    }

    /// See [`Groups::subscribed`].
    pub fn subscribed(&self, group: &str) -> Result<Subscribed, GroupError> {
        self.lock().groups.subscribed(group)
    }

    fn take_ticket(&self, waiting: Waiting) -> Ticket {
        let mut inner = self.lock();
        inner.tickets += 1;
        let ticket = Ticket(inner.tickets);
        inner.waiting.insert(ticket, waiting);
        ticket
    }

    /// Runs an event, and hands its answers to those who wait for them.
    fn with<R>(&self, event: impl FnOnce(&mut Groups, u64, &mut Vec<Answer>) -> R) -> R {
        let mut inner = self.lock();
        let before = inner.groups.next_wake();
        let mut answers = Vec::new();
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let result = event(&mut inner.groups, now, &mut answers);
        for answer in answers {
            inner.answer(answer);
        }
        let next = inner.groups.next_wake();
        if next.is_some_and(|next| before.is_none_or(|before| next < before)) {
            self.earlier.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn answer(&mut self, answer: Answer) {
        let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
        let waiting = self.waiting.remove(ticket);
        // Whoever is not there any more has given up.
        match (answer, waiting) {
            (Answer::Join(_, answer), Some(Waiting::Join(sender))) => {
                let _ = sender.send(answer);
            }
            (Answer::Sync(_, answer), Some(Waiting::Sync(sender))) => {
                let _ = sender.send(answer);
            }
            _ => {}
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let waited = self
            .coordinator
            .lock()
            .waiting
            .remove(&self.ticket)
            .is_some();
        if waited {
            let (group, ticket) = (self.group, self.ticket);
            self.coordinator
                .with(|groups, now, answers| groups.abandon(group, ticket, now, answers));
        }
    }
}
