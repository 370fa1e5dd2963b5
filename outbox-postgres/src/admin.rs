//! The operator's side of the store.
//!
//! One file for each thing an operator does, each with one entry point:
//!
//! - [`version`]: create or upgrade the schema; say exactly what is wrong with it.
//! - [`declare`]: destinations and their routes.
//! - [`status`], [`look`]: what stands, at a glance and in detail.
//! - [`request`]: ask the leader of a destination for something.
//! - [`adopt`]: this store, a copy, now takes over.
//! - [`import`]: a file's messages, with its position.
//!
//! Every call is one transaction of its own, without statements that outlive it: so all of it
//! (but `migrate`, whose lock belongs to a session) works behind a transaction-mode pooler.

mod adopt;
mod declare;
mod desk;
mod import;
mod look;
mod request;
mod status;
pub(crate) mod version;

use async_trait::async_trait;
use outbox_core::{
    Admin, Destination, ExceptionFilter, ExceptionRow, Finding, Message, MessageDetail,
    RequestAction, Selection, Status, StoreError,
};
use uuid::Uuid;

pub(crate) use desk::Desk;

use crate::PostgresStore;
use crate::doctor;

#[async_trait]
impl Admin for PostgresStore {
    async fn migrate(&self) -> Result<u32, StoreError> {
        version::migrate(&self.desk()).await
    }

    async fn declare(&self, destinations: &[Destination]) -> Result<(), StoreError> {
        declare::declare(&self.desk(), destinations).await
    }

    async fn status(&self) -> Result<Status, StoreError> {
        status::status(&self.desk()).await
    }

    async fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<ExceptionRow>, StoreError> {
        look::exceptions(&self.desk(), filter).await
    }

    async fn message(&self, id: Uuid) -> Result<Option<MessageDetail>, StoreError> {
        look::message(&self.desk(), id).await
    }

    async fn request(
        &self,
        destination: &str,
        action: RequestAction,
        selection: &Selection,
    ) -> Result<u64, StoreError> {
        request::request(&self.desk(), destination, action, selection).await
    }

    async fn adopt(&self) -> Result<Vec<String>, StoreError> {
        adopt::adopt(&self.desk()).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>, StoreError> {
        doctor::doctor(&self.desk()).await
    }

    async fn import(
        &self,
        source: &str,
        from: u64,
        to: u64,
        messages: &[Message],
    ) -> Result<(), StoreError> {
        import::import(&self.desk(), source, from, to, messages).await
    }

    async fn import_position(&self, source: &str) -> Result<u64, StoreError> {
        import::import_position(&self.desk(), source).await
    }
}
