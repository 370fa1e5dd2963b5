//! The consumer on real databases: applied once, in key order, whatever breaks.
//!
//! - `inbox_postgres`: the inbox' contract, with transactions that meet.
//! - `applying_postgres`, `applying_sqlite`: a consumer with handlers that write rows.
//! - `pooled`: the same behind PgBouncer.
//! - `reference`: what the documentation lists is what the code has.

mod applying_postgres;
mod applying_sqlite;
mod inbox_postgres;
mod pooled;
mod reference;
mod world;
