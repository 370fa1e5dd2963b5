//! The embedded SQLite store: the same contract in one file, nothing to install.
//!
//! A tour, in reading order:
//!
//! - [`pool`]: connections with the pragmas that the promises rest on.
//! - [`Outbox`]: enqueue inside the caller's own transaction.
//! - [`SqliteStore`]: the [`Store`](outbox_core::Store) that relays lead, and the
//!   [`Admin`](outbox_core::Admin) that operators use.
//! - [`SqliteInbox`]: what a consumer has applied, in its own file.
//!
//! # How it differs from PostgreSQL
//! Writers take turns, so a seq is visible as soon as it is taken: there are no gaps, no late
//! commits and no fences. Readers never wait and never block a writer (WAL). All writes of one
//! [`SqliteStore`] go through one connection; each settle is one transaction and one fsync. Retention
//! deletes rows in small transactions.
//!
//! # One file, many processes
//! Any number of processes may share the file on one machine; SQLite's locks do not work over
//! network file systems. A copy of the file stops until `outbox adopt`: a store remembers the inode
//! and the birth of the file it is at home in. Moving the file is not a copy. A backup written over
//! the file in place is found by `<file>-witness`, which keeps the highest seq that was handed out:
//! it stops too, and `outbox adopt` lets it go on behind that seq. A clone of the whole disk cannot
//! be seen: adopt it before its relay runs.
//!
//! # The write-ahead log
//! SQLite can start its log again only when no reader is in the middle of it. Every read here is one
//! page of bounded size, so that moment comes; house-keeping asks for it when the log is longer
//! than 64 MiB, and `outbox doctor` says when it grows all the same, because some other program
//! holds a read transaction open.

mod connect;
mod enqueue;
mod error;
mod identity;
pub mod limits;
mod row;
mod transaction;
mod witness;

mod store;

mod coverage;
mod filling;
mod opening;
mod parking;
mod requested;
mod session;
mod settle;
mod unrouted;

mod admin;
mod adopt;
mod declare;
mod doctor;
mod maintain;
mod migrate;
mod request;
mod status;

mod dead_letters;
mod inbox;

pub use connect::pool;
pub use enqueue::Outbox;
pub use inbox::SqliteInbox;
pub use store::SqliteStore;
