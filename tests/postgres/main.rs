//! What only PostgreSQL can do, and every trap that it sets.

mod admin;
mod bad_input;
mod conformance;
mod doctor;
mod doctor_server;
mod dump;
mod enqueue;
mod gaps;
mod incarnation;
mod leases;
mod partitions;
mod pooler;
mod roles;
mod servers;
mod stage;
mod statements;
