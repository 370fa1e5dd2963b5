//! The SQLite scripts.

/// One step of the SQLite schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Steps count up from 1 without a hole.
    pub version: i64,
    /// What it makes, in a word.
    pub description: &'static str,
    /// Its statements. They are run once each, all in one transaction.
    pub sql: &'static str,
}

const SQLITE: &[Script] = &[
    Script {
        version: 1,
        description: "tables",
        sql: include_str!("../sqlite/0001_tables.sql"),
    },
    Script {
        version: 2,
        description: "inbox",
        sql: include_str!("../sqlite/0002_inbox.sql"),
    },
];

/// The SQLite schema version that this program is written for.
pub const SQLITE_VERSION: i64 = SQLITE[SQLITE.len() - 1].version;

/// The inbox's tables alone, for a consumer's own file; running it again does nothing.
pub const SQLITE_INBOX: &str = SQLITE[1].sql;

/// The SQLite scripts, in order. Tables are called `outbox_…`, so that a service can keep its own
/// beside them in one file.
pub fn sqlite() -> &'static [Script] {
    SQLITE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_versions_count_up_from_one_without_a_hole() {
        let versions: Vec<i64> = sqlite().iter().map(|s| s.version).collect();
        assert_eq!(versions, (1..=SQLITE_VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn the_inbox_can_be_created_again() {
        let creates = SQLITE_INBOX.matches("create table").count();
        assert_eq!(
            SQLITE_INBOX.matches("create table if not exists").count(),
            creates
        );
    }
}
