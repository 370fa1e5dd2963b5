//! Small real services that use the outbox.
