//! What the tests share: real servers, ledgers and the conformance suites.
//!
//! - [`postgres`]: PostgreSQL servers that may be filled, killed, copied and promoted.

pub mod postgres;
