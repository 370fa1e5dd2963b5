//! The real `outbox` binary, run on temporary folders as a person or a supervisor would.

mod bad_config;
mod bad_store;
mod broker;
mod broker_kills;
mod demo;
mod documents;
mod foreign_broker;
mod harness;
mod letters;
mod log;
mod operator;
mod relay;
mod send;
