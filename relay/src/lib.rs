//! Sends what is pending: one clear loop for each destination.
