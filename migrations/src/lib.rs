//! The SQL schema of the outbox, one folder for each store.
