//! Applies each message exactly once: handlers inside the inbox transaction.
//!
//! ```
//! # use std::sync::Arc;
//! # use outbox_consumer::{Consumer, ConsumerError, testing::{MemoryInbox, MemorySource}};
//! # use tokio_util::sync::CancellationToken;
//! # #[derive(serde::Deserialize)]
//! # struct Order { id: u64 }
//! # async fn example(shutdown: CancellationToken) -> Result<(), ConsumerError> {
//! # let (source, inbox) = (Arc::new(MemorySource::new()), MemoryInbox::<u64>::new());
//! Consumer::new(source, inbox)
//!     .name("billing")
//!     .on("orders.placed", |record, mut tx| async move {
//!         let order: Order = record.json()?;
//!         tx.push(order.id); // with sqlx: query("…").bind(order.id).execute(&mut **tx).await?
//!         Ok(())
//!     })
//!     .run(shutdown)
//!     .await
//! # }
//! ```
//!
//! The handler's writes and the inbox row that says "this id was applied" commit in one
//! transaction, and the offset is committed after it. A crash anywhere in between means that the
//! record is read again, found in the inbox, and skipped.
//!
//! A tour, in reading order:
//!
//! - [`Consumer`]: the builder, and the start and the end of a run.
//! - [`HandlerTx`], [`HandlerError`]: what a handler is given and what it may answer.
//! - `reader`: one task that fetches, spreads records over the workers by key, commits offsets.
//! - `queue`: the bounded queue in front of each worker.
//! - `worker`, `transaction`: one task for each queue; batches, retries, dead letters.
//! - `progress`: which offset of a partition may be committed. Pure.
//! - [`record_id`]: the identity by which a record is recognised.
//! - [`metrics`], `notices`: what an operator sees.
//! - [`testing`]: a source and an inbox in memory, to test handlers with.

pub mod limits;
pub mod metrics;
pub mod testing;

mod consumer;
mod error;
mod handler;
mod identity;
mod notices;
mod progress;
mod queue;
mod reader;
mod transaction;
mod worker;

#[cfg(test)]
mod tests;

pub use consumer::{Consumer, DeadPolicy};
pub use error::ConsumerError;
pub use handler::{HandlerError, HandlerTx};
pub use identity::record_id;
