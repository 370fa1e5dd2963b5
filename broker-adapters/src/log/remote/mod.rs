//! The bundled log behind an address: consuming from a broker over the network.
//!
//! A tour, in reading order:
//!
//! - [`RemoteLogSource`]: the source. Several processes with the same group share the partitions.
//! - `membership`: one task that keeps this process a member of its group.
//! - `readahead`: what was fetched and not yet asked for; one request reads all partitions.

mod membership;
mod readahead;
mod source;

pub use source::RemoteLogSource;
