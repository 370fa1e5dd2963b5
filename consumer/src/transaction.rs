//! One inbox transaction: accept ids, run handlers, commit.

use std::sync::Arc;
use std::time::Duration;

use outbox_core::{Class, Inbox, InboxError};
use tokio::time::timeout;
use uuid::Uuid;

use crate::handler::{Applying, Handler, HandlerError, HandlerTx, Loan, guarded};
use crate::limits;
use crate::queue::Item;

/// What transactions need to know, shared by all workers.
pub(crate) struct Applier<I: Inbox> {
    pub(crate) consumer: String,
    pub(crate) inbox: I,
    pub(crate) handlers: Vec<Handler<I::Tx>>,
    pub(crate) attempt_timeout: Duration,
}

/// What a committed transaction did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) fresh: usize,
    pub(crate) duplicates: usize,
}

/// Why nothing was committed (or, after a lost answer to a commit, perhaps all of it: then the
/// next try finds the ids in the inbox).
#[derive(Debug)]
pub(crate) enum Failed {
    /// The inbox could not be used: no record is to blame.
    Outage(String),
    /// A record failed.
    Record {
        /// How many records before it went well, where that is known.
        after: Option<usize>,
        /// It will never pass.
        permanent: bool,
        error: String,
    },
}

impl<I: Inbox> Applier<I> {
    /// Applies `items` in one transaction. On an error it is rolled back as a whole.
    ///
    /// Not cancel-safe in the sense of progress, but safe: a dropped transaction is rolled back.
    pub(crate) async fn apply(&self, items: &[Item]) -> Result<Applied, Failed> {
        let mut tx = self.in_time("begin", self.inbox.begin()).await?;
        let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
        let accepting = self.inbox.accept_many(&mut tx, &self.consumer, &ids);
        let accepted = self.in_time("accept", accepting).await?;
        let fresh: Vec<(usize, &Item)> = (items.iter().enumerate())
            .filter(|&(at, _)| accepted.get(at).copied().unwrap_or_default())
            .collect();
        let tx = self.handle(tx, &fresh).await?;
        self.commit(tx).await?;
        Ok(Applied {
            fresh: fresh.len(),
            duplicates: items.len() - fresh.len(),
        })
    }

    /// Keeps `item` as a dead letter.
    pub(crate) async fn bury(&self, item: &Item, attempts: u32, error: &str) -> Result<(), Failed> {
        let mut tx = self.in_time("begin", self.inbox.begin()).await?;
        let (inbox, consumer) = (&self.inbox, &self.consumer);
        let keeping = inbox.dead_letter(&mut tx, consumer, &item.record, attempts, error);
        self.in_time("keep the dead letter", keeping).await?;
        self.commit(tx).await
    }

    /// Runs the handlers of `fresh`, in order. The transaction comes back only if all went well.
    async fn handle(&self, mut tx: I::Tx, fresh: &[(usize, &Item)]) -> Result<I::Tx, Failed> {
        for run in fresh.chunk_by(|a, b| a.1.handler == b.1.handler) {
            match &self.handlers[run[0].1.handler] {
                Handler::Each(handler) => {
                    for &(at, item) in run {
                        let start = |tx| handler(item.record.clone(), tx);
                        tx = self
                            .lend(tx, start)
                            .await
                            .map_err(|e| self.failed(Some(at), e))?;
                    }
                }
                Handler::Batch(handler) => {
                    let records = run.iter().map(|(_, item)| item.record.clone()).collect();
                    // Which record of the run it was is not known, unless there is but one.
                    let after = (run.len() == 1 || run[0].0 > 0).then_some(run[0].0);
                    let start = |tx| handler(records, tx);
                    tx = self
                        .lend(tx, start)
                        .await
                        .map_err(|e| self.failed(after, e))?;
                }
            }
        }
        Ok(tx)
    }

    /// Lends the transaction to one call of a handler.
    async fn lend(
        &self,
        tx: I::Tx,
        start: impl FnOnce(HandlerTx<I::Tx>) -> Applying,
    ) -> Result<I::Tx, HandlerError> {
        let (loan, lent) = Loan::new(tx);
        let limit = self.attempt_timeout;
        timeout(limit, guarded(|| start(lent)))
            .await
            .unwrap_or_else(|_| Err(format!("the handler took longer than {limit:?}").into()))?;
        loan.back().ok_or_else(|| {
            HandlerError::permanent(
                "the handler ended and kept the transaction: await what you spawn, and let the \
                 HandlerTx go out of scope",
            )
        })
    }

    fn failed(&self, after: Option<usize>, error: HandlerError) -> Failed {
        match error.class {
            Class::Outage => Failed::Outage(error.to_string()),
            Class::Transient if self.inbox.is_outage(&*error.source) => {
                Failed::Outage(error.to_string())
            }
            class => Failed::Record {
                after,
                permanent: class == Class::Permanent,
                error: error.to_string(),
            },
        }
    }

    /// What the database refuses at commit (a deferred constraint, a transaction that a handler
    /// broke) is a record's fault; which one's is not known.
    async fn commit(&self, tx: I::Tx) -> Result<(), Failed> {
        match timeout(limits::INBOX_TIMEOUT, self.inbox.commit(tx)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ InboxError::Other(_))) => Err(Failed::Record {
                after: None,
                permanent: false,
                error: HandlerError::from(error).to_string(),
            }),
            Ok(Err(error)) => Err(Failed::Outage(HandlerError::from(error).to_string())),
            Err(_) => Err(too_slow("commit")),
        }
    }

    /// An inbox that cannot begin, accept or keep is no record's fault, whatever it says.
    async fn in_time<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, InboxError>>,
    ) -> Result<T, Failed> {
        match timeout(limits::INBOX_TIMEOUT, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Failed::Outage(HandlerError::from(error).to_string())),
            Err(_) => Err(too_slow(what)),
        }
    }
}

fn too_slow(what: &'static str) -> Failed {
    let limit = limits::INBOX_TIMEOUT;
    Failed::Outage(format!("{what}: the inbox did not answer within {limit:?}"))
}

/// Boxes a handler of single records.
pub(crate) fn each<Tx, F, Fut>(handler: F) -> Handler<Tx>
where
    F: Fn(Arc<outbox_core::Record>, HandlerTx<Tx>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    Handler::Each(Box::new(move |record, tx| Box::pin(handler(record, tx))))
}

/// Boxes a handler of batches.
pub(crate) fn batch<Tx, F, Fut>(handler: F) -> Handler<Tx>
where
    F: Fn(Vec<Arc<outbox_core::Record>>, HandlerTx<Tx>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    Handler::Batch(Box::new(move |records, tx| Box::pin(handler(records, tx))))
}
