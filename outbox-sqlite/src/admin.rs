//! The operator's side: each call is one short transaction.

use async_trait::async_trait;
use outbox_core::{
    Admin, Destination, ExceptionFilter, ExceptionRow, Finding, Message, MessageDetail,
    RequestAction, Selection, Status, StoreError,
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::failed;
use crate::row::get;
use crate::store::{SqliteStore, commit};
use crate::{adopt, declare, doctor, enqueue, migrate, request, status};

#[async_trait]
impl Admin for SqliteStore {
    async fn migrate(&self) -> Result<u32, StoreError> {
        migrate::run(self).await
    }

    async fn declare(&self, destinations: &[Destination]) -> Result<(), StoreError> {
        declare::declare(self, destinations).await
    }

    async fn status(&self) -> Result<Status, StoreError> {
        status::status(&mut *self.read().await?).await
    }

    async fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<ExceptionRow>, StoreError> {
        status::exceptions(&mut *self.read().await?, filter).await
    }

    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>, StoreError> {
        status::message(&mut *self.read().await?, id).await
    }

    async fn request(
        &self,
        destination: &str,
        action: RequestAction,
        selection: &Selection,
    ) -> Result<u64, StoreError> {
        request::leave(self, destination, action, selection).await
    }

    async fn adopt(&self) -> Result<Vec<String>, StoreError> {
        adopt::adopt(self).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>, StoreError> {
        doctor::examine(self).await
    }

    async fn import(
        &self,
        source: &str,
        from: u64,
        to: u64,
        messages: &[Message],
    ) -> Result<(), StoreError> {
        for message in messages {
            message.validate()?;
        }
        let mut tx = self.write().await?;
        let found = import_position(&mut tx, source).await?;
        if found != from {
            return Err(StoreError::Refused {
                problem: format!("{source:?} was imported up to {found}, not {from}"),
                cure: "end the other import, or go on from that position".to_owned(),
            });
        }
        enqueue::insert(&mut tx, messages).await?;
        move_import(&mut tx, source, to).await?;
        commit(tx).await
    }

    async fn import_position(&self, source: &str) -> Result<u64, StoreError> {
        import_position(&mut *self.read().await?, source).await
    }
}

async fn import_position(tx: &mut SqliteConnection, source: &str) -> Result<u64, StoreError> {
    const POSITION: &str = "SELECT position FROM outbox_import WHERE source = ?";
    let row = sqlx::query(POSITION)
        .bind(source.to_owned())
        .fetch_optional(tx)
        .await;
    let row = row.map_err(|e| failed("read the import's position", e))?;
    row.map_or(Ok(0), |row| get(&row, 0))
}

async fn move_import(tx: &mut SqliteConnection, source: &str, to: u64) -> Result<(), StoreError> {
    const MOVE: &str = "INSERT INTO outbox_import (source, position) VALUES (?, ?) \
         ON CONFLICT (source) DO UPDATE SET position = excluded.position";
    let to = i64::try_from(to).map_err(|e| crate::error::other("move the import's position", e))?;
    let moved = sqlx::query(MOVE)
        .bind(source.to_owned())
        .bind(to)
        .execute(tx)
        .await;
    moved
        .map(drop)
        .map_err(|e| failed("move the import's position", e))
}
