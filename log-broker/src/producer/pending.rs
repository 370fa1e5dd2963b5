//! What the frame that is being made will add to what is known of producers, so that several batches
//! of one producer share it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Producer, ProducerBatch, ProducerState, Verdict};
use crate::error::AppendError;
use crate::tables::Tables;
use crate::transaction::Step;

/// What is not durable yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// By topic, partition and producer id.
    states: HashMap<(Arc<str>, u32, i64), ProducerState>,
    /// Producers that append in a transaction.
    transacting: BTreeSet<i64>,
    /// Transactional ids that a step changes.
    stepping: BTreeSet<Arc<str>>,
    /// Producer ids that are given out.
    given: i64,
}

/// Whether a batch is the next of its producer.
#[derive(Debug)]
pub(crate) enum Follows {
    Yes,
    /// It is stored already, durably.
    Stored {
        first_offset: i64,
    },
    /// That can be told only when the frame is durable.
    Later,
    No(AppendError),
}

impl Pending {
    /// Whether a batch is the next of its producer. One that follows a batch of the same frame may
    /// join it; anything else that hangs on what is not durable yet has to wait.
    pub fn judge(
        &self,
        tables: &Tables,
        topic: &Arc<str>,
        partition: u32,
        batch: &ProducerBatch,
    ) -> Follows {
        let id = batch.producer.id;
        let holder = tables.transactions.of_producer(id);
        if holder.is_some_and(|(id, _)| self.stepping.contains(id)) {
            return Follows::Later;
        }
        let durable = tables.partition(topic, partition);
        let durable = durable.and_then(|p| p.producers.get(id));
        let verdict = ProducerState::judge(durable, batch);
        if let Verdict::Duplicate { first_offset } = verdict {
            return Follows::Stored { first_offset };
        }
        if let Err(error) = check_transaction(tables, topic, partition, batch) {
            return Follows::No(error);
        }
        if let Some(pending) = self.states.get(&(topic.clone(), partition, id)) {
            return match ProducerState::judge(Some(pending), batch) {
                Verdict::Next => Follows::Yes,
                _ => Follows::Later,
            };
        }
        match verdict {
            Verdict::Next => Follows::Yes,
            // It was idle for so long that it is forgotten. Nothing is lost if a batch before this
            // one is missing: its transaction cannot be committed then.
            Verdict::Unknown if batch.transactional && !tables.knows_producer(id) => Follows::Yes,
            _ => Follows::No(refusal(tables, topic, partition, batch, verdict)),
        }
    }

    /// Notes a batch that is part of the frame.
    pub fn note(
        &mut self,
        tables: &Tables,
        topic: &Arc<str>,
        partition: u32,
        batch: &ProducerBatch,
        first_offset: i64,
    ) {
        let Producer { id, epoch } = batch.producer;
        let durable = || {
            let known = tables.partition(topic, partition);
            let known = known.and_then(|p| p.producers.get(id));
            known.copied().unwrap_or(ProducerState::new(epoch))
        };
        let state = self.states.entry((topic.clone(), partition, id));
        state.or_insert_with(durable).push(batch, first_offset);
        if batch.transactional {
            self.transacting.insert(id);
        }
    }

    /// How many producers of a partition append.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether a step hangs on what is not durable yet.
    pub fn must_wait(&self, tables: &Tables, step: &Step) -> bool {
        let Some(id) = step.id() else {
            return false;
        };
        let holder = tables.transactions.get(id).map(|t| t.producer.id);
        self.stepping.contains(id) || holder.is_some_and(|id| self.transacting.contains(&id))
    }

    /// The next producer id that may be given out.
    pub fn next_id(&self, tables: &Tables) -> i64 {
        tables.producer_ids.next() + self.given
    }

    /// Notes a step that is part of the frame, and whether it gives out an id.
    pub fn note_step(&mut self, step: &Step, gives_id: bool) {
        self.stepping.extend(step.id().cloned());
        self.given += i64::from(gives_id);
    }

    /// Whether there is a step of a transactional id.
    pub fn has_steps(&self) -> bool {
        !self.stepping.is_empty()
    }
}

/// A batch of a transaction must belong to one that is open, and its producer hold the id.
fn check_transaction(
    tables: &Tables,
    topic: &Arc<str>,
    partition: u32,
    batch: &ProducerBatch,
) -> Result<(), AppendError> {
    let producer = batch.producer;
    match tables.transactions.of_producer(producer.id) {
        None if batch.transactional => Err(AppendError::NoTransactionalId {
            topic: topic.clone(),
            partition,
            producer,
        }),
        None => Ok(()),
        Some((_, holder)) if holder.producer != producer => Err(AppendError::StaleProducer {
            producer,
            newer: holder.producer.epoch,
        }),
        Some((_, holder)) if batch.transactional && holder.covers(topic, partition) => Ok(()),
        Some((id, _)) => Err(AppendError::NotInTransaction {
            topic: topic.clone(),
            partition,
            transactional_id: id.clone(),
        }),
    }
}

fn refusal(
    tables: &Tables,
    topic: &Arc<str>,
    partition: u32,
    batch: &ProducerBatch,
    verdict: Verdict,
) -> AppendError {
    let (topic, producer, found) = (topic.clone(), batch.producer, batch.first);
    let expected = match verdict {
        Verdict::Stale { newer } => return AppendError::StaleProducer { producer, newer },
        Verdict::Forgotten => {
            return AppendError::OldDuplicate {
                topic,
                partition,
                producer,
                found,
            };
        }
        Verdict::Unknown if !tables.knows_producer(producer.id) => {
            return AppendError::UnknownProducer {
                topic,
                partition,
                producer,
            };
        }
        Verdict::OutOfOrder { expected } => expected,
        // Its first batch is on its way, or was refused and comes again.
        Verdict::Unknown | Verdict::Next | Verdict::Duplicate { .. } => 0,
    };
    AppendError::OutOfOrder {
        topic,
        partition,
        producer,
        found,
        expected,
    }
}
