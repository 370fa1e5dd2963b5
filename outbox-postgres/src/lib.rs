//! The PostgreSQL store: enqueue inside your transaction, read the log, settle under a lease.

mod inbox;

pub use inbox::PostgresInbox;
