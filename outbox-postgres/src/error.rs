//! What the server says, as the errors of the contract.

use outbox_core::StoreError;

/// `error`, which happened while doing `context` (as in "failed to {context}").
pub(crate) fn store_error(context: &str, error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Outage(Box::new(error)),
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            let message = database.message().to_owned();
            from_sqlstate(context, &code, &message, error)
        }
        _ => other(context, error),
    }
}

/// Sorts by SQLSTATE; Appendix A of the PostgreSQL manual lists them.
fn from_sqlstate(context: &str, code: &str, message: &str, error: sqlx::Error) -> StoreError {
    let refused = |cure: &str| StoreError::Refused {
        problem: message.to_owned(),
        cure: cure.to_owned(),
    };
    match code {
        // Connection exceptions, shutdown and start-up, too many connections, a lost sync.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => StoreError::Outage(Box::new(error)),
        _ if code.starts_with("08") => StoreError::Outage(Box::new(error)),
        "3D000" => refused("create the database, or name another in the store's url"),
        _ if code.starts_with("28") => refused("check user and password in the store's url"),
        "42501" if message.contains("row-level security") => refused(
            "let the relay's role see every row: alter table … no force row level security, or \
             alter role … bypassrls",
        ),
        "42501" => refused(
            "grant outbox_relay (for a relay), outbox_operator (to declare destinations, resend, \
             adopt or send files), outbox_writer (to enqueue) or outbox_reader (to look) to this \
             login",
        ),
        "25006" => refused("connect to the primary: this server takes no writes"),
        "3F000" | "42P01" | "42703" | "42883" => StoreError::Schema {
            problem: message.to_owned(),
            cure: "run `outbox migrate`".to_owned(),
        },
        _ => other(context, error),
    }
}

fn other(context: &str, error: sqlx::Error) -> StoreError {
    StoreError::Other {
        context: context.to_owned(),
        source: Box::new(error),
    }
}

/// An error of our own about something the store holds that cannot be.
pub(crate) fn damaged(context: &str, what: impl Into<String>) -> StoreError {
    StoreError::Other {
        context: context.to_owned(),
        source: what.into().into(),
    }
}

/// Turns `Result<_, sqlx::Error>` into the contract's, naming what was being done.
pub(crate) trait OrStoreError<T> {
    /// `context` completes "failed to …".
    fn or_store(self, context: &str) -> Result<T, StoreError>;
}

impl<T> OrStoreError<T> for Result<T, sqlx::Error> {
    fn or_store(self, context: &str) -> Result<T, StoreError> {
        self.map_err(|error| store_error(context, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::Class;

    #[test]
    fn a_broken_connection_is_an_outage_and_burns_nothing() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(store_error("poll", broken).class(), Class::Outage);
    }

    #[test]
    fn a_missing_table_says_how_to_make_it() {
        let error = from_sqlstate(
            "poll",
            "42P01",
            "relation \"x\" does not exist",
            sqlx::Error::RowNotFound,
        );
        assert!(
            error.to_string().ends_with("Cure: run `outbox migrate`"),
            "{error}"
        );
    }
}
