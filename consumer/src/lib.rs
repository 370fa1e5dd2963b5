//! Applies each message exactly once: handlers inside the inbox transaction.
