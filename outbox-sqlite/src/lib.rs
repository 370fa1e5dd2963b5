//! The embedded SQLite store: the same contract in one file.
