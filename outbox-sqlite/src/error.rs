//! One mapping of what SQLite says to what the contract knows.

use outbox_core::StoreError;

/// What makes or mends the schema.
pub(crate) const MIGRATE: &str = "run `outbox migrate`";

/// SQLite's primary result codes that matter here: <https://www.sqlite.org/rescode.html>.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READ_ONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IO: i32 = 10;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANNOT_OPEN: i32 = 14;
    pub(super) const NOT_A_DATABASE: i32 = 26;
    /// The low byte of an extended code is its primary code.
    pub(super) const PRIMARY: i32 = 0xff;
}

/// The contract's error for `source`, met while trying to `context` ("read a page").
pub(crate) fn failed(context: &str, source: sqlx::Error) -> StoreError {
    match &source {
        sqlx::Error::Database(e) if is_missing_table(e.message()) => StoreError::Schema {
            problem: format!("{} in this file", e.message()),
            cure: MIGRATE.to_owned(),
        },
        sqlx::Error::Database(_) => match primary_code(&source) {
            Some(code::READ_ONLY) => StoreError::Refused {
                problem: format!("the file cannot be written: {source}"),
                cure: "give this user the right to write the file and its folder".to_owned(),
            },
            Some(code::NOT_A_DATABASE) => StoreError::Refused {
                problem: "the file is not an SQLite database".to_owned(),
                cure: "give the path of another file, or of none yet".to_owned(),
            },
            Some(c) if is_outage(c) => StoreError::Outage(source.into()),
            _ => other(context, source),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Outage(source.into()),
        _ => other(context, source),
    }
}

/// Whether SQLite says that another connection has, or took, the write lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// `sqlite_sequence` is made with the first AUTOINCREMENT table, ours or a service's.
fn is_missing_table(message: &str) -> bool {
    let missing = message.strip_prefix("no such table: ");
    missing.is_some_and(|table| table.starts_with("outbox_") || table == "sqlite_sequence")
}

fn is_outage(code: i32) -> bool {
    matches!(
        code,
        code::BUSY | code::LOCKED | code::INTERRUPT | code::IO | code::FULL | code::CANNOT_OPEN
    )
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & code::PRIMARY)
}

pub(crate) fn other(
    context: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Other {
        context: context.to_owned(),
        source: source.into(),
    }
}

/// A value in the file that this program cannot have written.
pub(crate) fn corrupt(what: &str, value: impl std::fmt::Display) -> StoreError {
    other(
        "read the store",
        format!("{what} {value} makes no sense: is the file damaged?"),
    )
}
