//! The statements, one file each, with the schema's name put in once.
//!
//! Each file's header says who calls it, what it locks and which index it uses. A test prepares
//! every file against a migrated database.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr, SqlStr};

/// One of the files below `sql/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement(usize);

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        /// Name and text of every file, with `{schema}` where the schema goes.
        pub const STATEMENTS: &[(&str, &str)] =
            &[$(($file, include_str!(concat!("sql/", $file, ".sql")))),*];
        statements!(@number 0usize; $($name)*);
    };
    (@number $at:expr; $name:ident $($rest:ident)*) => {
        pub(crate) const $name: Statement = Statement($at);
        statements!(@number $at + 1; $($rest)*);
    };
    (@number $at:expr;) => {};
}

statements! {
    CHECK = "check";
    INCARNATION = "incarnation";
    BEAT = "beat";
    RELAYS = "relays";
    LEASES = "leases";
    CLAIM = "claim";
    RELEASE = "release";
    LEAVE = "leave";
    OPEN_LEASE = "open_lease";
    OPEN_SESSION = "open_session";
    OPEN_GAPS = "open_gaps";
    OPEN_KEYS = "open_keys";
    ROUTES = "routes";
    POLL = "poll";
    HOLDERS = "holders";
    FLUSHED = "flushed";
    FORCE_FLUSH = "force_flush";
    SETTLE = "settle";
    DUE = "due";
    PARKED = "parked";
    REQUESTS = "requests";
    REQUESTED = "requested";
    ENQUEUE = "enqueue";
    ENQUEUE_MANY = "enqueue_many";
    ADMIN_ADOPT_GAPS = "admin_adopt_gaps";
    ADMIN_ADOPT_LEASE = "admin_adopt_lease";
    ADMIN_ADOPT_PROGRESS = "admin_adopt_progress";
    ADMIN_DECLARE_LOCK = "admin_declare_lock";
    ADMIN_DESTINATION = "admin_destination";
    ADMIN_DESTINATION_INSERT = "admin_destination_insert";
    ADMIN_DESTINATION_UPDATE = "admin_destination_update";
    ADMIN_DESTINATIONS = "admin_destinations";
    ADMIN_EXCEPTIONS = "admin_exceptions";
    ADMIN_HAS_VERSION = "admin_has_version";
    ADMIN_IMPORT_MOVE = "admin_import_move";
    ADMIN_IMPORT_POSITION = "admin_import_position";
    ADMIN_LAST_SEQ = "admin_last_seq";
    ADMIN_MESSAGE = "admin_message";
    ADMIN_MESSAGE_STATUSES = "admin_message_statuses";
    ADMIN_PROGRESS_INSERT = "admin_progress_insert";
    ADMIN_REQUEST_DEAD = "admin_request_dead";
    ADMIN_REQUEST_IDS = "admin_request_ids";
    ADMIN_REQUEST_INSERT = "admin_request_insert";
    ADMIN_REQUEST_WINDOW = "admin_request_window";
    ADMIN_ROUTE_CLOSE = "admin_route_close";
    ADMIN_ROUTE_OPEN = "admin_route_open";
    ADMIN_SEQ_AT = "admin_seq_at";
    ADMIN_STATUS = "admin_status";
    ADMIN_UNROUTED = "admin_unrouted";
    ADMIN_VERSION = "admin_version";
    DOCTOR_DEAD_TUPLES = "doctor_dead_tuples";
    DOCTOR_GAPS = "doctor_gaps";
    DOCTOR_HORIZON = "doctor_horizon";
    DOCTOR_KEYS = "doctor_keys";
    DOCTOR_PARTITIONS = "doctor_partitions";
    DOCTOR_PROGRESS = "doctor_progress";
    DOCTOR_ROLES = "doctor_roles";
    DOCTOR_SEQUENCE = "doctor_sequence";
    DOCTOR_SERVER = "doctor_server";
    DOCTOR_VACUUM_OFF = "doctor_vacuum_off";
    MAINTAIN_ATTACH = "maintain_attach";
    MAINTAIN_DEFAULT_ROWS = "maintain_default_rows";
    MAINTAIN_DROP = "maintain_drop";
    MAINTAIN_EMPTY = "maintain_empty";
    MAINTAIN_ROTATE = "maintain_rotate";
    MAINTAIN_SWEEP = "maintain_sweep";
}

/// Every statement for one schema. Cheap to clone out of.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    texts: Vec<SqlStr>,
    /// Connections may keep them prepared.
    prepared: bool,
}

impl Statements {
    /// Puts `schema` into every file.
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            texts: STATEMENTS
                .iter()
                .map(|(_, text)| in_schema(text, schema))
                .collect(),
            prepared: true,
        }
    }

    /// For a transaction-mode pooler: nothing is left on a server connection, for the next
    /// transaction may get another one.
    pub(crate) fn unprepared(mut self) -> Self {
        self.prepared = false;
        self
    }

    /// One statement, ready for its arguments.
    pub(crate) fn query(&self, statement: Statement) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(self.get(statement)).persistent(self.prepared)
    }

    /// The text of one statement.
    pub(crate) fn get(&self, statement: Statement) -> SqlStr {
        self.texts[statement.0].clone()
    }
}

/// One text with the schema put in and without the header, which would only be sent for nothing.
fn in_schema(text: &str, schema: &str) -> SqlStr {
    let body: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    AssertSqlSafe(outbox_migrations::in_schema(&body.join("\n"), schema)).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_says_who_calls_it_and_names_its_schema() {
        for (name, text) in STATEMENTS {
            assert!(text.starts_with("-- Caller: "), "{name} has no header");
            let filled = in_schema(text, "my schema");
            assert!(
                !filled.as_str().contains("{schema"),
                "{name} has an unknown placeholder"
            );
            assert!(
                !filled.as_str().contains(';'),
                "{name} is more than one statement"
            );
        }
    }

    #[test]
    fn statements_are_numbered_as_listed() {
        assert_eq!(STATEMENTS[SETTLE.0].0, "settle");
        assert_eq!(STATEMENTS[ENQUEUE_MANY.0].0, "enqueue_many");
    }
}
