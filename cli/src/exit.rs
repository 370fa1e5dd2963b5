//! How the process ends: one enum, one mapping from every error, one table in `docs/cli.md`.

use outbox_broker_adapters::ConnectError;
use outbox_core::StoreError;
use serde::Serialize;

use crate::redact::redact;

/// Exit status of the process. A test holds this list and the table in `docs/cli.md` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It ran, and what it looked for is not well: the demo lost a message, the doctor found an
    /// error; or something unforeseen failed.
    Failed = 1,
    /// Unknown flag, missing argument. Nothing was read.
    Usage = 2,
    /// `outbox.toml`, an `OUTBOX_*` variable or a flag's value is wrong.
    Config = 3,
    /// The input of `outbox send` is wrong; what was valid before it is enqueued.
    Input = 4,
    /// The store or a broker cannot be reached: the same command may pass later.
    Unreachable = 5,
    /// The schema is missing, older or newer than this program.
    Schema = 6,
    /// The store or the broker refuses, and a person has to decide: a copy, a sequence behind, in
    /// recovery; a group that has members, a topic that is there already, a wrong password.
    Refused = 7,
    /// No such destination, message, topic or group.
    NotFound = 8,
    /// Ended by SIGINT or SIGTERM before it was done. What was reported is done.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in the order of the table.
    #[cfg(test)]
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Config,
        Self::Input,
        Self::Unreachable,
        Self::Schema,
        Self::Refused,
        Self::NotFound,
        Self::Interrupted,
    ];

    /// The status the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The word used in `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Input => "input",
            Self::Unreachable => "unreachable",
            Self::Schema => "schema",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a command ended early. Its text completes "outbox: failed to …".
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// How the process ends.
    pub exit: Exit,
    /// What, where, the limit and the cure, with every password masked.
    pub text: String,
}

impl Problem {
    /// A problem with `text`; passwords in URLs are masked here, for all commands alike.
    pub fn new(exit: Exit, text: impl AsRef<str>) -> Self {
        Self {
            exit,
            text: redact(text.as_ref()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Outage(_) => Exit::Unreachable,
            StoreError::Schema { .. } => Exit::Schema,
            StoreError::Foreign { .. }
            | StoreError::SequenceBehind { .. }
            | StoreError::Refused { .. }
            | StoreError::LeaseLost { .. } => Exit::Refused,
            StoreError::Invalid(_) => Exit::Input,
            StoreError::NotFound { .. } => Exit::NotFound,
            // `Other`, and whatever the store learns to say later.
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<&ConnectError> for Exit {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Url { .. } | ConnectError::NotOurs(_) => Self::Config,
            _ => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_manual_lists_every_exit_status() {
        let manual = include_str!("../../docs/cli.md");
        for exit in Exit::ALL {
            let row = format!("| {} | `{}` |", exit.code(), exit.word());
            assert!(manual.contains(&row), "docs/cli.md lacks the row {row:?}");
        }
    }

    #[test]
    fn a_password_in_any_error_text_is_masked() {
        let error = StoreError::Outage("connect to postgres://app:hunter2@db/x failed".into());
        let problem = Problem::from(error);
        assert_eq!(problem.exit, Exit::Unreachable);
        assert!(!problem.text.contains("hunter2"), "{}", problem.text);
    }
}
