//! Publishes one batch at a time, in order, in a task of its own, so that reading goes on.
//!
//! Jobs are handed out before the ones in front of them are known to have gone through. The
//! publisher goes from one to the next without asking as long as everything is sent. The first
//! failure ends that: later jobs come back unsent, because what they may send depends on it.
//!
//! An outage never leaves this module as a failure: the same batch is tried again, however long
//! it takes, and no attempt is burnt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{Batch, Outcome, PublishError};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::Context;
use super::exceptions::Exceptions;
use super::stretch::Stretch;
use crate::limits;

/// Batches to publish, one after the other, and what they stand for.
pub(crate) struct Job {
    /// Jobs of an older generation than the publisher's come back unsent.
    generation: u64,
    pub batches: VecDeque<Batch>,
    pub work: Work,
}

/// What a job stands for.
pub(crate) enum Work {
    Stretch(Stretch),
    Exceptions(Exceptions),
}

impl Work {
    fn oldest(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Stretch(stretch) => stretch.oldest,
            Self::Exceptions(_) => None,
        }
    }
}

/// A batch with the broker's answer for each message.
pub(crate) struct Answered {
    pub batch: Batch,
    pub outcomes: Vec<Outcome>,
}

/// What became of a job.
pub(crate) struct Report {
    pub work: Work,
    /// Empty for a clean stretch: its messages are dropped here, off the loop.
    pub answered: Vec<Answered>,
    /// Batches that were not tried.
    pub unsent: VecDeque<Batch>,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every message was sent.
    Clean,
    /// Some were not, or not tried: later jobs come back.
    Broken,
    /// The lease's deadline passed: nothing more may be published.
    LeaseOver,
    /// A newer epoch has published.
    Fenced,
}

/// The loop's end of the publisher. Dropping it drops what is in flight.
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    reports: mpsc::Receiver<Report>,
    generation: u64,
    /// When the oldest message of each job out was enqueued, in order.
    out: VecDeque<Option<DateTime<Utc>>>,
    halt: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Publisher {
    pub(crate) fn spawn(context: Arc<Context>) -> Self {
        let (jobs, jobs_in) = mpsc::channel(limits::JOBS_OUT_MAX);
        let (reports_out, reports) = mpsc::channel(limits::JOBS_OUT_MAX);
        let halt = CancellationToken::new();
        let worker = Worker {
            rng: context.random(RANDOM_SALT),
            context,
            halt: halt.clone(),
            generation: 0,
            answers: false,
        };
        let task = tokio::spawn(worker.run(jobs_in, reports_out).in_current_span());
        Self {
            jobs,
            reports,
            generation: 0,
            out: VecDeque::new(),
            halt,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Jobs handed out and not yet answered.
    pub(crate) fn out(&self) -> usize {
        self.out.len()
    }

    /// When the oldest message on its way was enqueued.
    pub(crate) fn oldest(&self) -> Option<DateTime<Utc>> {
        self.out.iter().flatten().next().copied()
    }

    /// Hands a job out. The caller keeps to [`limits::JOBS_OUT_MAX`].
    pub(crate) fn send(&mut self, batches: VecDeque<Batch>, work: Work) {
        debug_assert!(self.out.len() < limits::JOBS_OUT_MAX);
        self.out.push_back(work.oldest());
        let generation = self.generation;
        let job = Job {
            generation,
            batches,
            work,
        };
        // The channel holds as many as may be out, and the task lives as long as this handle; a
        // task that panicked shows as the end of `reports`.
        let _ = self.jobs.try_send(job);
    }

    /// The next report; `None` when the task died.
    ///
    /// Cancel-safe: a report is taken out of the channel only when this resolves.
    pub(crate) async fn next(&mut self) -> Option<Report> {
        let report = self.reports.recv().await?;
        self.took(&report);
        Some(report)
    }

    /// A report that is already there.
    pub(crate) fn try_next(&mut self) -> Option<Report> {
        let report = self.reports.try_recv().ok()?;
        self.took(&report);
        Some(report)
    }

    /// Begins nothing new: an outage is no longer waited out, queued jobs come back unsent, and
    /// the batch in flight is finished.
    pub(crate) fn halt(&self) {
        self.halt.cancel();
    }

    fn took(&mut self, report: &Report) {
        self.out.pop_front();
        if report.verdict != Verdict::Clean && !report.is_return() {
            self.generation += 1;
        }
    }
}

impl Report {
    /// Whether nothing of the job was tried because an earlier one broke.
    fn is_return(&self) -> bool {
        self.verdict == Verdict::Broken && self.answered.is_empty()
    }
}

/// Its random waits are not those of the loop, whose salt is the epoch.
const RANDOM_SALT: u64 = u64::MAX;

/// The task's side.
struct Worker {
    context: Arc<Context>,
    halt: CancellationToken,
    generation: u64,
    /// Whether the broker has answered since this worker began or since the last outage.
    answers: bool,
    rng: StdRng,
}

/// Why a batch has no answer.
enum Silent {
    Halted,
    LeaseOver,
    Fenced,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>, reports: mpsc::Sender<Report>) {
        while let Some(job) = jobs.recv().await {
            let report = if job.generation < self.generation || self.halt.is_cancelled() {
                // `run` counts a returned job as no failure: the loop does the same.
                Report {
                    work: job.work,
                    answered: Vec::new(),
                    unsent: job.batches,
                    verdict: Verdict::Broken,
                }
            } else {
                self.job(job).await
            };
            if report.verdict != Verdict::Clean && !report.is_return() {
                self.generation += 1;
            }
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }

    /// Publishes the batches of a job until one is not wholly sent.
    async fn job(&mut self, job: Job) -> Report {
        let (mut unsent, work) = (job.batches, job.work);
        let keeps = matches!(work, Work::Exceptions(_));
        let mut answered = Vec::new();
        let mut verdict = Verdict::Clean;
        while let Some(batch) = unsent.pop_front() {
            let outcomes = match self.batch(&batch).await {
                Ok(outcomes) => outcomes,
                Err(silent) => {
                    unsent.push_front(batch);
                    verdict = match silent {
                        Silent::Halted => Verdict::Broken,
                        Silent::LeaseOver => Verdict::LeaseOver,
                        Silent::Fenced => Verdict::Fenced,
                    };
                    break;
                }
            };
            let clean = self.count(&outcomes);
            if keeps || !clean {
                answered.push(Answered { batch, outcomes });
            }
            let halted = keeps && self.halt.is_cancelled() && !unsent.is_empty();
            if !clean || halted {
                verdict = Verdict::Broken;
                break;
            }
        }
        Report {
            work,
            answered,
            unsent,
            verdict,
        }
    }

    /// Publishes one batch, through any outage.
    async fn batch(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Silent> {
        let mut failures = 0;
        let began = Instant::now();
        loop {
            if self.context.deadline.is_over() {
                return Err(Silent::LeaseOver);
            }
            let text = match self.publish(batch).await? {
                Ok(outcomes) if outcomes.len() == batch.messages.len() => {
                    self.answered();
                    return Ok(outcomes);
                }
                Ok(outcomes) => format!(
                    "the broker adapter gave {} outcomes for {} messages",
                    outcomes.len(),
                    batch.messages.len()
                ),
                Err(PublishError::Outage(text)) => text,
                Err(PublishError::Fenced { epoch, newer }) => {
                    tracing::warn!(epoch, newer, "fenced: a newer epoch has published");
                    return Err(Silent::Fenced);
                }
            };
            self.outage(&text, began.elapsed());
            failures += 1;
            self.back_off(failures).await?;
        }
    }

    /// One call of the broker, bounded by the lease and by the publish timeout.
    async fn publish(&self, batch: &Batch) -> Result<Result<Vec<Outcome>, PublishError>, Silent> {
        let (context, timeout) = (&self.context, self.context.options.publish_timeout);
        let span = tracing::debug_span!(
            "publish",
            destination = %context.name,
            messages = batch.messages.len(),
            exceptions = batch.range.is_none(),
        );
        let began = Instant::now();
        // Dropping `publish` leaves it unknown what was accepted. That is safe in each arm: after
        // the timeout the same batch is tried again; after the other two the session ends without
        // having settled it, and whoever opens the next one reads it again.
        let answer = tokio::select! {
            biased;
            answer = context.broker.publish(batch).instrument(span) => answer,
            () = context.deadline.over() => return Err(Silent::LeaseOver),
            () = context.abandon.cancelled() => return Err(Silent::Halted),
            () = tokio::time::sleep(timeout) => {
                Err(PublishError::Outage(format!("no answer within {timeout:?}")))
            }
        };
        if answer.is_ok() {
            let meters = &context.meters;
            meters.publish.record(began.elapsed().as_secs_f64());
            meters.batch.record(batch.messages.len() as f64);
            if let Some(first) = batch.messages.iter().find(|m| !m.late) {
                let age = outbox_core::age(first.created_at, context.clock.now());
                meters.delivery.record(age.as_secs_f64());
            }
        }
        Ok(answer)
    }

    /// Waits before the next try in an outage.
    async fn back_off(&mut self, failures: u32) -> Result<(), Silent> {
        let delay = self.context.options.outage_backoff.delay(failures);
        let jittered = delay.mul_f64(self.rng.random_range(0.5..=1.0));
        // All arms are timers or tokens: dropping them loses nothing.
        tokio::select! {
            () = tokio::time::sleep(jittered) => Ok(()),
            () = self.halt.cancelled() => Err(Silent::Halted),
            () = self.context.deadline.over() => Err(Silent::LeaseOver),
        }
    }

    fn outage(&mut self, text: &str, lasted: Duration) {
        self.answers = false;
        self.context.outage(text, lasted);
    }

    fn answered(&mut self) {
        if !self.answers {
            self.answers = true;
            self.context.recovered();
        }
    }

    /// Counts what was sent; answers whether everything was.
    fn count(&self, outcomes: &[Outcome]) -> bool {
        let (mut sent, mut duplicates) = (0, 0);
        for outcome in outcomes {
            if let Outcome::Sent(receipt) = outcome {
                sent += 1;
                duplicates += u64::from(receipt.duplicate);
            }
        }
        self.context.meters.sent.increment(sent);
        self.context.meters.duplicates.increment(duplicates);
        sent == outcomes.len() as u64
    }
}
