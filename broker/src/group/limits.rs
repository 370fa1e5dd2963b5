//! Every bound of the group coordinator, with what it costs to raise it.

/// Most groups with members, or whose last member left within [`EMPTY_GROUP_KEPT_MS`]. A group
/// with one member takes about a kilobyte.
pub const GROUPS_MAX: usize = 10_000;

/// Most members of one group, those included that were only told their id so far. A rebalance
/// costs one answer for each, and the leader's answer holds the metadata of all.
pub const GROUP_MEMBERS_MAX: usize = 2_000;

/// Most bytes that one group's members hold: metadata, ids and assignments. It bounds the answer
/// to a leader.
pub const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes that the members of all groups hold.
pub const COORDINATOR_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one member is counted as, beside its strings and byte strings.
pub const MEMBER_OVERHEAD_BYTES: usize = 512;

/// Longest group id, in bytes: the log keeps offsets under it.
pub const GROUP_ID_BYTES_MAX: usize = outbox_log_broker::limits::GROUP_NAME_BYTES_MAX;

/// Longest member id, instance id, client id or protocol name, in bytes. Longer ones are
/// refused, but for client ids, which are cut: they are for people only.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Most protocols that one member may offer. Votes are counted by comparing each member's.
pub const MEMBER_PROTOCOLS_MAX: usize = 32;

/// How long a member that joins for the first time may wait for its rebalance, in ms. It cannot
/// send heartbeats while it waits, so nothing else would tell that it is gone.
pub const NEW_MEMBER_JOIN_MS: u64 = 5 * 60 * 1_000;

/// How long a rebalance waits at least when only static members are left and none of them has
/// joined again, in ms: until their sessions decide.
pub const NOBODY_JOINED_MS: u64 = 1_000;

/// How long a group without members is remembered, in ms: its generation goes on counting, and
/// listings know its protocol type. Its committed offsets are the log's, and stay.
pub const EMPTY_GROUP_KEPT_MS: u64 = 10 * 60 * 1_000;

const _: () = assert!(GROUP_BYTES_MAX <= COORDINATOR_BYTES_MAX);
const _: () = assert!(GROUP_MEMBERS_MAX * MEMBER_OVERHEAD_BYTES < GROUP_BYTES_MAX);
