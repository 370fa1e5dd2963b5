//! Brokers behind the outbox's Broker port.
