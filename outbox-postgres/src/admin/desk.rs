//! How the operator's calls talk to the server.

use outbox_core::StoreError;
use sqlx::postgres::{PgArguments, PgPool};
use sqlx::{Postgres, Transaction};

use super::version;
use crate::PostgresStore;
use crate::error::OrStoreError;
use crate::sql::{Statement, Statements};

/// One schema of one database, for statements that run now and then.
pub(crate) struct Desk<'a> {
    pub(crate) pool: &'a PgPool,
    pub(crate) schema: &'a str,
    pub(crate) statements: &'a Statements,
}

impl PostgresStore {
    /// The operator's side of this store.
    pub(crate) fn desk(&self) -> Desk<'_> {
        Desk {
            pool: self.pool(),
            schema: self.schema(),
            statements: self.statements(),
        }
    }
}

impl Desk<'_> {
    /// A transaction on a schema of the right version.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut tx = self.begin_anywhere().await?;
        version::check(self, &mut tx).await?;
        Ok(tx)
    }

    /// A transaction, whatever the schema is like.
    pub(crate) async fn begin_anywhere(
        &self,
    ) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool.begin().await.or_store("begin a transaction")
    }

    /// One of the statements. Not kept by the connection: a pooler may give the next transaction
    /// to another server process, which would not know it.
    pub(crate) fn query(
        &self,
        statement: Statement,
    ) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        sqlx::query(self.statements.get(statement)).persistent(false)
    }

    /// The schema's name as SQL shows it in a cure.
    pub(crate) fn quoted(&self) -> String {
        outbox_migrations::quote_identifier(self.schema)
    }
}
