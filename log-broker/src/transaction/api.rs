//! The methods of a log for producers and transactions.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Step, TransactionDescription};
use crate::error::{AppendError, FetchError, TransactionError};
use crate::groups::{OffsetCommit, checked_group};
use crate::limits;
use crate::log::Log;
use crate::producer::{Producer, ProducerDescription};
use crate::writer::Request;

/// Every step is durable when it is answered, and answered the same when it is asked again.
///
/// # Cancellation
/// Dropping one of these futures leaves it unknown whether the step was done; asking again is safe.
impl Log {
    /// Has the writer do a step of a producer.
    async fn step(&self, step: Step) -> Result<Producer, TransactionError> {
        self.check_writable()?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Step { step, reply }).await?;
        answer.await.unwrap_or(Err(AppendError::Closed.into()))
    }

    /// Gives out an id for a producer.
    ///
    /// With a transactional id it is always the id that belongs to it, with a new epoch: whoever held
    /// it before is shut out, and what he had open is aborted. `current` is who the caller is, if he
    /// holds it and wants to go on after an error: then he is refused if somebody else has taken it
    /// since. A transaction that stays open for `timeout_ms` is aborted.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn init_producer(
        &self,
        transactional_id: Option<&str>,
        timeout_ms: u32,
        current: Option<Producer>,
    ) -> Result<Producer, TransactionError> {
        let id = transactional_id.map(checked_id).transpose()?;
        self.step(Step::Init {
            id,
            timeout_ms,
            current,
        })
        .await
    }

    /// Makes partitions part of the open transaction, which begins with the first of them: all or
    /// none. Records for other partitions are refused.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn transaction_add_partitions(
        &self,
        transactional_id: &str,
        producer: Producer,
        partitions: &[(Arc<str>, u32)],
    ) -> Result<(), TransactionError> {
        let step = Step::AddPartitions {
            id: checked_id(transactional_id)?,
            producer,
            partitions: partitions.to_vec(),
        };
        self.step(step).await.map(drop)
    }

    /// Makes a group's offsets part of the open transaction, which may begin with it.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn transaction_add_group(
        &self,
        transactional_id: &str,
        producer: Producer,
        group: &str,
    ) -> Result<(), TransactionError> {
        let step = Step::AddGroup {
            id: checked_id(transactional_id)?,
            producer,
            group: checked_group(group)?,
        };
        self.step(step).await.map(drop)
    }

    /// Offsets that the group will have when the transaction is committed. The group must have been
    /// added.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn transaction_commit_offsets(
        &self,
        transactional_id: &str,
        producer: Producer,
        group: &str,
        next: &[OffsetCommit],
    ) -> Result<(), TransactionError> {
        next.iter().try_for_each(OffsetCommit::check)?;
        let step = Step::CommitOffsets {
            id: checked_id(transactional_id)?,
            producer,
            group: checked_group(group)?,
            commits: next.to_vec(),
        };
        self.step(step).await.map(drop)
    }

    /// Commits or aborts the open transaction: in all its partitions and groups, or in none.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn transaction_end(
        &self,
        transactional_id: &str,
        producer: Producer,
        commits: bool,
    ) -> Result<(), TransactionError> {
        let step = Step::End {
            id: checked_id(transactional_id)?,
            producer,
            commits,
        };
        self.step(step).await.map(drop)
    }

    /// Aborts every transaction that has timed out as of `now_ms`, and shuts out its producer;
    /// answers how many. The log does so by itself, too. Blocks, so not to be called from async code.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn abort_timed_out(&self, now_ms: i64) -> Result<usize, AppendError> {
        self.keeper().abort_timed_out(now_ms)
    }

    /// Forgets producers and transactional ids that have been idle for as long as the options say, as
    /// of `now_ms`. The log does so by itself, too. Blocks, so not to be called from async code.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn forget_idle_producers(&self, now_ms: i64) -> Result<(), AppendError> {
        self.keeper().forget_idle(now_ms)
    }

    /// The partitions of which a group's offsets wait for an open transaction to end: what is
    /// committed for them may change at any time.
    pub fn pending_offsets(&self, group: &str) -> BTreeSet<(Arc<str>, u32)> {
        self.tables().transactions.pending_offsets(group)
    }

    /// Every transactional id.
    pub fn transactions(&self) -> Vec<TransactionDescription> {
        self.tables().transactions.describe()
    }

    /// What is known of a transactional id.
    pub fn transaction(&self, transactional_id: &str) -> Option<TransactionDescription> {
        let tables = self.tables();
        tables.transactions.describe_one(transactional_id)
    }

    /// The producers that a partition remembers, by id.
    ///
    /// # Errors
    /// When the partition does not exist.
    pub fn producers(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Vec<ProducerDescription>, FetchError> {
        let tables = self.tables();
        let p = tables.partition(topic, partition);
        p.map(|p| p.producers.describe())
            .ok_or_else(|| FetchError::Unknown {
                topic: topic.into(),
                partition,
            })
    }
}

fn checked_id(id: &str) -> Result<Arc<str>, TransactionError> {
    let limit = limits::TRANSACTIONAL_ID_BYTES_MAX;
    if id.is_empty() || id.len() > limit {
        return Err(TransactionError::Id {
            bytes: id.len(),
            limit,
        });
    }
    Ok(id.into())
}
