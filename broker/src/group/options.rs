//! What may be configured.

use super::limits;

/// How groups behave. The defaults are Apache Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long the first member of an empty group waits for others, in ms, default 3,000. Each
    /// member that joins meanwhile begins the wait anew, up to the members' rebalance timeout. 0:
    /// not at all, so that members which start together cause a rebalance each.
    pub initial_rebalance_delay_ms: u64,
    /// Shortest session timeout that a member may ask for, in ms, default 6,000.
    pub session_timeout_min_ms: u64,
    /// Longest session timeout that a member may ask for, in ms, default 1,800,000.
    pub session_timeout_max_ms: u64,
    /// Most members of one group, default and at most 2,000.
    pub members_max: usize,
    /// Most groups with members, default and at most 10,000.
    pub groups_max: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            members_max: limits::GROUP_MEMBERS_MAX,
            groups_max: limits::GROUPS_MAX,
        }
    }
}
