//! The SQL schema of the outbox, one folder for each store.
//!
//! The files say why each table is as it is; this crate only embeds them and puts the schema's
//! name in. It runs nothing: the store crates do.

use sqlx::AssertSqlSafe;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr, SqlStr};

mod sqlite;

pub use sqlite::{SQLITE_INBOX, SQLITE_VERSION, Script, sqlite};

/// The PostgreSQL migrations, in order: version, description, text.
const POSTGRES: &[(i64, &str, &str)] = &[
    (
        1,
        "tables",
        concat!(
            include_str!("../postgres/0001_tables.sql"),
            include_str!("../postgres/0001_inbox.sql")
        ),
    ),
    (2, "roles", include_str!("../postgres/0002_roles.sql")),
    (3, "enqueue", include_str!("../postgres/0003_enqueue.sql")),
    (
        4,
        "maintenance",
        include_str!("../postgres/0004_maintenance.sql"),
    ),
    (5, "outgoing", include_str!("../postgres/0005_outgoing.sql")),
    (6, "operator", include_str!("../postgres/0006_operator.sql")),
];

/// The inbox's tables alone, for a consumer's own database, with `{schema}` where the schema goes;
/// running it again does nothing.
pub const POSTGRES_INBOX: &str = include_str!("../postgres/0001_inbox.sql");

/// The PostgreSQL schema version that this program is written for.
pub const POSTGRES_VERSION: i64 = POSTGRES[POSTGRES.len() - 1].0;

/// Name of the table, inside the schema, that says which migrations were run.
pub const MIGRATIONS_TABLE: &str = "_migrations";

/// The PostgreSQL migrations for the schema `schema`, which is created if it is missing.
///
/// Two schemas live side by side in one database; a second run changes nothing.
pub fn postgres(schema: &str) -> Migrator {
    let quoted = quote_identifier(schema);
    let migrations = POSTGRES.iter().map(|&(version, description, sql)| {
        let sql: SqlStr = AssertSqlSafe(in_schema(sql, schema)).into_sql_str();
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.create_schema(quoted.clone());
    migrator.dangerous_set_table_name(format!("{quoted}.{MIGRATIONS_TABLE}"));
    migrator
}

/// `sql` with the schema's name put in: `{schema}` becomes the quoted identifier,
/// `{schema_in_text}` the same for use within a text literal, and `{schema_literal}` a whole text
/// literal of the bare name.
pub fn in_schema(sql: &str, schema: &str) -> String {
    let quoted = quote_identifier(schema);
    sql.replace("{schema_literal}", &quote_literal(schema))
        .replace("{schema_in_text}", &quoted.replace('\'', "''"))
        .replace("{schema}", &quoted)
}

/// `name` as an SQL identifier that means exactly this name.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL literal, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_cannot_leave_its_quotes() {
        let sql = in_schema("{schema}.t {schema_literal} '{schema_in_text}.t'", "a\"b'c");
        assert_eq!(sql, "\"a\"\"b'c\".t 'a\"b''c' '\"a\"\"b''c\".t'");
    }

    #[test]
    fn versions_count_up_from_one_without_a_hole() {
        let versions: Vec<i64> = POSTGRES.iter().map(|m| m.0).collect();
        let expected: Vec<i64> = (1..=POSTGRES_VERSION).collect();
        assert_eq!(versions, expected);
    }

    #[test]
    fn the_inbox_can_be_created_again() {
        let creates = POSTGRES_INBOX.matches("create table").count();
        let again = POSTGRES_INBOX.matches("create table if not exists").count();
        assert_eq!((creates, again), (2, 2));
    }

    #[test]
    fn no_placeholder_is_left_over() {
        for (version, _, sql) in POSTGRES {
            assert!(
                !in_schema(sql, "outbox").contains("{schema"),
                "migration {version}"
            );
        }
    }
}
