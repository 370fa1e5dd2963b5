//! The embedded SQLite store: the same contract in one file.

mod inbox;

pub use inbox::SqliteInbox;
