//! What the tests share: real servers, ledgers and the conformance suites.
//!
//! - [`postgres`]: PostgreSQL servers that may be filled, killed, copied and promoted.
//! - [`conformance`]: the contract of a store, case by case.
//! - [`node`]: relay, log and consumer in one process that a test may kill.
//! - [`flights`]: real events end to end, with kills on the way.
//! - [`kafka`]: Apache Kafka from its published jars, to compare with.
//! - [`librdkafka`]: its load generator and its own tests.
//! - [`condition`]: waiting for what nobody announces.
//! - [`ledger`]: what was committed against what was applied.
//! - [`seed`]: random numbers that replay.

pub mod condition;
pub mod conformance;
pub mod flights;
pub mod kafka;
pub mod ledger;
pub mod librdkafka;
pub mod node;
pub mod postgres;
pub mod seed;

use outbox_core::{Destination, OnDead, Order, RetryPolicy, Start};

/// A destination for every topic, ordered by key.
pub fn destination(name: &str, start: Start) -> Destination {
    Destination {
        name: name.to_owned(),
        patterns: vec!["*".parse().expect("a star is a pattern")],
        broker: "log:test".to_owned(),
        order: Order::Key,
        on_dead: OnDead::BlockKey,
        retry: RetryPolicy::default(),
        start,
        paused: false,
    }
}
