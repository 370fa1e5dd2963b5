//! The outbox command: relay daemon, demo and operator's tools.

fn main() {}
