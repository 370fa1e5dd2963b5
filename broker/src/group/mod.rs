//! Consumer groups, by Kafka's classic protocol.
//!
//! In reading order:
//!
//! - [`options`] and [`limits`]: what may be configured, and what is bounded.
//! - [`request`] and [`answer`]: what goes in and what comes out, free of any wire format.
//! - `state`: one group: Empty → PreparingRebalance → CompletingRebalance → Stable, and back.
//!   `join`, `sync`, `membership`, `rebalance`, `expiry` and `describe` are its events.
//! - [`groups`]: all groups of a broker, and when the next one wants to be woken.
//!
//! All of these are pure: time is an argument, and a request that must wait is a [`Ticket`] that is
//! answered by a later event. `coordinator` gives them a clock and those who wait. Members live in memory only: after a restart of the broker they are
//! told that nobody knows them, and join again. Committed offsets are the log's, and durable.

pub mod answer;
pub mod groups;
pub mod limits;
pub mod options;
pub mod request;

mod coordinator;
mod describe;
mod expiry;
mod join;
mod member;
mod membership;
mod rebalance;
mod state;
mod subscription;
mod sync;

#[cfg(test)]
mod tests;

pub use answer::{GroupError, JoinedMember};
pub(crate) use coordinator::Coordinator;
pub use describe::{Described, DescribedMember, Listed, Subscribed};
pub use groups::Groups;
pub use options::GroupOptions;
pub use request::{Client, Commit, Join, Leaver, MemberRef, Protocol, Sync, Ticket};
pub use state::GroupState;
