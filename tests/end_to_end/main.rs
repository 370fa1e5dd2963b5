//! From the enqueueing transaction to the applied effect.
