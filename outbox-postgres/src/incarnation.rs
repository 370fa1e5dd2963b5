//! Which store this is: a copy of it must not publish, a promotion of it must forget.

use std::fmt;
use std::str::FromStr;

use outbox_core::StoreError;
use sqlx::{PgConnection, Row};

use crate::error::{OrStoreError, damaged};
use crate::sql::{INCARNATION, Statements};

/// System identifier, timeline and database, written `pg-<system>-<timeline>-<database>`.
///
/// - The same in all three: the store we know.
/// - Another timeline: the store was promoted, or restored to a point in time and went on. What
///   was remembered outside of it is void; what it holds itself is true.
/// - Another system or database: a copy. It stops until somebody says that it takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    /// Made by `initdb`; a base backup keeps it, a dump does not.
    pub(crate) system: String,
    /// Grows with each promotion.
    pub(crate) timeline: String,
    /// Oid of the database: `CREATE DATABASE … TEMPLATE` changes it.
    pub(crate) database: String,
}

impl Incarnation {
    /// Asks the server.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        statements: &Statements,
    ) -> Result<Self, StoreError> {
        let row = statements
            .query(INCARNATION)
            .fetch_one(connection)
            .await
            .or_store("read the store's identity")?;
        let text: String = row.try_get(0).or_store("read the store's identity")?;
        text.parse()
    }

    /// Whether `stored` progress belongs to this store, on whatever timeline.
    pub(crate) fn same_store(&self, stored: &Self) -> bool {
        self.system == stored.system && self.database == stored.database
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pg-{}-{}-{}", self.system, self.timeline, self.database)
    }
}

impl FromStr for Incarnation {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('-').collect();
        match parts[..] {
            ["pg", system, timeline, database] => Ok(Self {
                system: system.to_owned(),
                timeline: timeline.to_owned(),
                database: database.to_owned(),
            }),
            _ => Err(damaged(
                "read the store's identity",
                format!("{text:?} is no pg-<system>-<timeline>-<database>"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(text: &str) -> Incarnation {
        text.parse().expect("valid")
    }

    #[test]
    fn a_promotion_is_the_same_store_and_a_copy_is_not() {
        let here = incarnation("pg-7369-2-16384");
        assert!(here.same_store(&incarnation("pg-7369-1-16384")));
        assert!(!here.same_store(&incarnation("pg-7370-2-16384")));
        assert!(!here.same_store(&incarnation("pg-7369-2-16385")));
        assert_eq!(here.to_string(), "pg-7369-2-16384");
    }

    #[test]
    fn another_stores_identity_is_refused() {
        assert!("sqlite-1".parse::<Incarnation>().is_err());
    }
}
