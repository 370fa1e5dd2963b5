//! The PostgreSQL store: enqueue inside your transaction, read the log, settle under a lease.
//!
//! A tour, in reading order:
//!
//! - [`Outbox`]: the service's side, inside its own `sqlx` transaction.
//! - [`PostgresStore`]: connections, the check, leases (`lease`); implements
//!   [`Store`](outbox_core::Store) and [`Admin`](outbox_core::Admin) (`admin`, `doctor`, `maintain`).
//! - `incarnation`: which store this is, so that a copy does not publish.
//! - `session`: one leader's conversation: `page` (its statement in `page_statement`, its rows in
//!   `page_rows`), `gaps`, `settle`, `session_waiting`, `session_routes`.
//! - `sql`: every statement, one file each.
//! - [`PostgresInbox`]: the consumer's side.
//!
//! `docs/gaps.md` says why a page is read the way it is.

mod admin;
mod dead_letters;
mod doctor;
mod enqueue;
mod error;
mod gaps;
mod inbox;
mod incarnation;
mod lease;
mod maintain;
mod page;
mod page_rows;
mod page_statement;
mod session;
mod session_routes;
mod session_waiting;
mod settle;
mod sql;
mod store;

pub use enqueue::Outbox;
pub use inbox::PostgresInbox;
pub use sql::STATEMENTS;
pub use store::{PostgresOptions, PostgresStore};
