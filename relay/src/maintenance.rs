//! Keeps the store's house: partitions ahead, retention, rotation.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use outbox_core::{AlertKind, Clock, Maintained, Maintenance, Store};
use tokio_util::sync::CancellationToken;

use crate::alerts::Alerts;
use crate::engine::bounded_by;
use crate::limits;
use crate::options::MaintenanceOptions;
use crate::telemetry;

/// A retention that nothing is older than: a round that must not empty partitions.
const KEEP_EVERYTHING: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One relay's rounds. Every relay does them: a round is safe anywhere, and finds nothing to do
/// after another's.
pub(crate) struct Housekeeper {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub options: MaintenanceOptions,
    pub alerts: Alerts,
}

impl Housekeeper {
    /// Rounds until `stop`; the one in progress is dropped then, which any store survives as it
    /// survives a crash.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // The first round of a new process does not wait for the schedule to come around.
        let mut empties_at = Some(self.clock.now());
        loop {
            let now = self.clock.now();
            let empties = empties_at.is_none_or(|at| at <= now);
            if empties {
                empties_at = self.next_emptying(now);
            }
            let round = async {
                self.round(empties).await;
                tokio::time::sleep(self.options.interval).await;
            };
            // Dropping a round rolls its transaction back; dropping the timer loses nothing.
            tokio::select! {
                () = round => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `None`: in every round.
    fn next_emptying(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let schedule = self.options.retention_at.as_ref()?;
        let never = DateTime::<Utc>::MAX_UTC;
        Some(schedule.next_after(now).unwrap_or(never))
    }

    async fn round(&self, empties: bool) {
        let retention = match empties {
            true => self.options.retention,
            false => KEEP_EVERYTHING,
        };
        let policy = Maintenance { retention };
        let round = self.store.maintain(&policy);
        let result = match bounded_by(limits::STORE_CALL_MAX, "maintain", round).await {
            Ok(done) => {
                self.report(&done);
                "ok"
            }
            Err(error) => {
                tracing::warn!(%error, "house-keeping failed; it is tried again next round");
                "failed"
            }
        };
        metrics::counter!(telemetry::MAINTENANCE, "result" => result).increment(1);
    }

    fn report(&self, done: &Maintained) {
        if *done != Maintained::default() {
            tracing::info!(
                attached = done.partitions_attached,
                emptied = done.partitions_emptied,
                dropped = done.partitions_dropped,
                kept = done.kept,
                put_off = done.put_off,
                "kept the house"
            );
        }
        metrics::gauge!(telemetry::DEFAULT_ROWS).set(done.default_rows as f64);
        let kind = AlertKind::DefaultPartition;
        match done.default_rows {
            0 => self.alerts.resolve(kind, None, || {
                "no rows are in the default partition any more".to_owned()
            }),
            rows => self.alerts.fire(kind, None, || {
                format!(
                    "{rows} row(s) are in the default partition: partitions were not attached \
                     ahead in time. Nothing is lost; see `outbox doctor`"
                )
            }),
        }
    }
}
