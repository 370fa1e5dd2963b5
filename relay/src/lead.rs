//! One lead of one destination: from the claim of its lease to its release.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use outbox_core::{AlertKind, Class, Lease, LeaseRow, Store, StoreError};
use tokio::time::Instant;

use crate::engine::{Context, Ended, Engine, bounded_by};
use crate::health::Led;
use crate::limits;

/// How a lead ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeadEnd {
    /// It was asked to, and has handed over.
    HandedOver,
    /// Somebody else leads now, or might.
    Lost,
    /// It cannot go on without a person.
    NeedsPerson,
}

/// Everything a lead needs.
pub(crate) struct Leader {
    pub store: Arc<dyn Store>,
    pub instance: String,
    pub context: Arc<Context>,
    /// The lease's epoch for the supervisor; 0 before it is taken.
    pub epoch: Arc<AtomicI64>,
}

impl Leader {
    /// Claims the lease as it was `seen`, leads, and gives it back.
    pub(crate) async fn lead(self, seen: LeaseRow) -> LeadEnd {
        let limit = self.context.options.lease_ttl;
        let claim = self.store.claim(&seen, &self.instance);
        let lease = match bounded_by(limit, "claim", claim).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return LeadEnd::Lost,
            Err(error) => {
                tracing::warn!(destination = %seen.destination, %error, "a lease was not claimed");
                return LeadEnd::Lost;
            }
        };
        self.epoch.store(lease.epoch, Ordering::Release);
        let (name, epoch) = (&lease.destination, lease.epoch);
        tracing::info!(destination = %name, epoch, "leading");
        self.context.meters.leading.set(1.0);
        let end = self.sessions(&lease).await;
        self.give_back(&lease).await;
        self.context.meters.stand_by();
        if end != LeadEnd::NeedsPerson {
            self.context.health.clear(&self.context.name);
        }
        tracing::info!(destination = %name, epoch, ?end, "no longer leading");
        end
    }

    /// Opens one session after the other for as long as the lease holds.
    async fn sessions(&self, lease: &Lease) -> LeadEnd {
        let mut failures = 0;
        loop {
            if self.context.stop.is_cancelled() {
                return LeadEnd::HandedOver;
            }
            if self.context.deadline.is_over() {
                return LeadEnd::Lost;
            }
            let began = Instant::now();
            let error = match self.session(lease).await {
                Ok(Ended::Stopped) => return LeadEnd::HandedOver,
                Ok(Ended::Changed) => continue,
                Ok(Ended::LeaseOver | Ended::Fenced) => return LeadEnd::Lost,
                Ok(Ended::Store(error)) | Err(error) => error,
            };
            if let Some(end) = self.judge(&error) {
                return end;
            }
            // A session that lasted is not part of a row of failures.
            if began.elapsed() > self.context.options.outage_backoff.max {
                failures = 0;
            }
            failures += 1;
            self.back_off(failures).await;
        }
    }

    async fn session(&self, lease: &Lease) -> Result<Ended, StoreError> {
        let context = &self.context;
        context.health.set(&context.name, Led::Opening);
        let open = self.store.open(lease);
        let session = bounded_by(limits::STORE_CALL_MAX, "open", open).await?;
        context.meters.sessions.increment(1);
        context.health.set(&context.name, Led::Running);
        context
            .alerts
            .resolve(AlertKind::Stopped, Some(&context.name), || {
                format!("{:?} runs again", context.name)
            });
        let engine = Engine::new(context.clone(), session, lease.epoch);
        Ok(engine.run().await)
    }

    /// `None`: it is worth another session.
    fn judge(&self, error: &StoreError) -> Option<LeadEnd> {
        let (name, health) = (&self.context.name, &self.context.health);
        tracing::warn!(destination = %name, error = %error, "the session ended");
        if matches!(error, StoreError::LeaseLost { .. }) {
            return Some(LeadEnd::Lost);
        }
        if error.class() != Class::Permanent {
            return None;
        }
        let text = error.to_string();
        health.set(name, Led::Stopped { text: text.clone() });
        self.context
            .alerts
            .fire(AlertKind::Stopped, Some(name), || {
                format!("{name:?} stopped and needs a person: failed to {text}")
            });
        Some(LeadEnd::NeedsPerson)
    }

    async fn back_off(&self, failures: u32) {
        let delay = self.context.options.outage_backoff.delay(failures);
        // All arms are timers or tokens: dropping them loses nothing, and the loop looks again.
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.context.stop.cancelled() => {}
            () = self.context.deadline.over() => {}
        }
    }

    /// Another relay may take it at once. A lease that was lost is not touched by this.
    async fn give_back(&self, lease: &Lease) {
        let limit = self.context.options.lease_ttl;
        let release = self.store.release(lease);
        if let Err(error) = bounded_by(limit, "release", release).await {
            let destination = &lease.destination;
            tracing::warn!(%destination, %error, "a lease was not handed over: it will time out");
        }
    }
}
