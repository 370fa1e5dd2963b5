//! Produce requests of one connection that wait for their sync.
//!
//! Their appends were started in the order of the requests, and they are answered in that order.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use futures_util::FutureExt;
use outbox_log_broker::batch::BatchHeader;
use outbox_log_broker::{AppendError, Appended, Submitted};

use crate::api;
use crate::api::error::append_error;
use crate::codec::{NO_ERROR, PartitionOutcome, ProduceAnswer, Published};
use crate::error::ConnectionError;
use crate::limits;
use crate::shared::Shared;

/// The requests that wait, oldest first.
#[derive(Default)]
pub(crate) struct Pipeline {
    waiting: VecDeque<InFlight>,
    bytes: usize,
}

/// One Produce request whose appends have been started.
pub(crate) struct InFlight {
    pub correlation_id: i32,
    pub version: i16,
    /// Whether the client wants to know.
    pub answered: bool,
    /// When it came.
    pub since: Instant,
    /// Bytes of the records.
    pub bytes: usize,
    /// For each partition, in the order of the request.
    pub outcomes: Vec<PartitionOutcome>,
    /// Indexes into `outcomes`, with what is waited for.
    pub submitted: VecDeque<(usize, Submitted)>,
    /// Of a request with a publication, whose partitions are stored all or none: what is waited for
    /// instead.
    pub publishing: Option<Publishing>,
}

/// A publication.
pub(crate) enum Publishing {
    /// Its append has been started.
    Submitted(Submitted),
    /// It is known what became of it.
    Done(Published),
}

impl Pipeline {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another request may be started.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < limits::PIPELINE_REQUESTS_MAX
            && self.bytes < limits::PIPELINE_BYTES_MAX
    }

    pub fn push(&mut self, request: InFlight) {
        self.bytes += request.bytes;
        self.waiting.push_back(request);
    }

    /// Waits until the oldest request is done.
    ///
    /// Cancellation: what is known already is kept.
    pub async fn oldest_done(&mut self, shared: &Shared) {
        if let Some(oldest) = self.waiting.front_mut() {
            oldest.done(shared).await;
        }
    }

    /// Writes the answers of the oldest requests that are done, and forgets them.
    ///
    /// # Errors
    /// When a request failed that is not answered.
    pub fn answer_done(
        &mut self,
        shared: &Shared,
        out: &mut BytesMut,
    ) -> Result<(), ConnectionError> {
        while let Some(oldest) = self.waiting.front_mut()
            && oldest.done(shared).now_or_never().is_some()
        {
            oldest.count(shared);
            oldest.answer(out)?;
            self.bytes -= oldest.bytes;
            self.waiting.pop_front();
        }
        Ok(())
    }
}

impl InFlight {
    async fn done(&mut self, shared: &Shared) {
        while let Some((index, submitted)) = self.submitted.front_mut() {
            let result = submitted.await;
            let outcome = &mut self.outcomes[*index];
            note(outcome, result, shared);
            self.submitted.pop_front();
        }
        if let Some(Publishing::Submitted(submitted)) = &mut self.publishing {
            let published = api::publish::note(&mut self.outcomes, submitted.await, shared);
            self.publishing = Some(Publishing::Done(published));
        }
    }

    fn count(&self, shared: &Shared) {
        shared.meters.produced(self.since);
        let failed = self.outcomes.iter().filter(|o| o.error_code != NO_ERROR);
        let failed = failed.count() as u64;
        if failed > 0 {
            shared.meters.produce_errors.increment(failed);
        }
    }

    fn answer(&self, out: &mut BytesMut) -> Result<(), ConnectionError> {
        if self.answered {
            ProduceAnswer {
                correlation_id: self.correlation_id,
                version: self.version,
                partitions: &self.outcomes,
                published: match &self.publishing {
                    Some(Publishing::Done(published)) => Some(published),
                    _ => None,
                },
            }
            .write(out);
            return Ok(());
        }
        match self.outcomes.iter().find(|o| o.error_code != NO_ERROR) {
            None => Ok(()),
            Some(failed) => {
                let text = failed.error_message.clone().unwrap_or_default();
                Err(ConnectionError::Unanswered(text))
            }
        }
    }
}

/// Writes down what became of an append.
pub(crate) fn note(
    outcome: &mut PartitionOutcome,
    result: Result<Appended, AppendError>,
    shared: &Shared,
) {
    match result {
        Ok(appended) => {
            outcome.base_offset = appended.first_offsets.first().copied().unwrap_or(-1);
            if let Ok(header) = BatchHeader::parse(&appended.buffer)
                && header.is_append_time()
            {
                outcome.log_append_time = header.max_timestamp;
            }
            let offsets = shared.log.offsets(&outcome.topic, outcome.partition as u32);
            outcome.log_start_offset = offsets.map_or(-1, |(first, _)| first);
        }
        Err(error) => {
            outcome.error_code = append_error(&error).code();
            outcome.error_message = Some(error.to_string());
        }
    }
}
