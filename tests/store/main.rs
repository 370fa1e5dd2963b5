//! The store contract, on SQLite and on PostgreSQL.

mod sqlite;
