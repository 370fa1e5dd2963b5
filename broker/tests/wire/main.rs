//! What clients see: bytes over a socket.

mod admin;
mod api_versions;
mod client;
mod disk;
mod fetch;
mod groups;
mod hostile;
mod metadata;
mod offsets;
mod pipeline;
mod produce;
mod producers;
mod rig;
mod security;
mod stopping;
mod transactions;
