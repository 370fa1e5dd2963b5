//! A durable single-node log of Kafka record batches: an ack means fsynced.
