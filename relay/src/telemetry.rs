//! Every metric of the relay. `docs/telemetry.md` is the same table for people, and a test keeps
//! the two together.

use metrics::{Counter, Gauge, Histogram, Unit};

/// One metric as it is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it counts, and in which unit.
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:literal, $labels:expr, $help:literal;)*) => {
        $(pub(crate) const $constant: &str = $name;)*
        /// Every metric of the relay.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, labels: $labels, help: $help },)*
        ];
    };
}

const D: &[&str] = &["destination"];

metrics_table! {
    SENT = "outbox_relay_sent_total", "counter", D, "Messages durably acknowledged by the broker.";
    DUPLICATES = "outbox_relay_duplicates_total", "counter", D, "Of those, messages the broker already had.";
    FAILED = "outbox_relay_failed_total", "counter", D, "Failed attempts of single messages.";
    DEAD = "outbox_relay_dead_total", "counter", D, "Messages that became dead.";
    PARKED = "outbox_relay_parked_total", "counter", D, "Messages parked behind a blocked key.";
    SCHEDULED = "outbox_relay_scheduled_total", "counter", D, "Messages put aside until they are due.";
    EXPIRED = "outbox_relay_expired_total", "counter", D, "Messages that expired before they were sent.";
    LATE = "outbox_relay_late_total", "counter", D, "Messages that became visible after later ones had been handed out.";
    UNROUTED = "outbox_relay_unrouted_total", "counter", D, "Messages that no route covers, seen by this destination.";
    PAGES = "outbox_relay_pages_total", "counter", D, "Pages read from the store.";
    SETTLES = "outbox_relay_settles_total", "counter", D, "Settlements written to the store.";
    SESSIONS = "outbox_relay_sessions_total", "counter", D, "Sessions opened; more than one for each lease means broken connections.";
    OUTAGES = "outbox_relay_outages_total", "counter", D, "Outages of the broker that began.";
    BATCH = "outbox_relay_batch_messages", "histogram", D, "Messages in a published batch.";
    PUBLISH = "outbox_relay_publish_seconds", "histogram", D, "Seconds from handing a batch to the broker until it was acknowledged.";
    SETTLE = "outbox_relay_settle_seconds", "histogram", D, "Seconds a settlement took.";
    DELIVERY = "outbox_relay_delivery_seconds", "histogram", D, "Seconds from enqueue to acknowledgement, of the oldest message of each batch.";
    CURSOR = "outbox_relay_cursor", "gauge", D, "Seq up to which everything is accounted for.";
    LAG = "outbox_relay_lag_seconds", "gauge", D, "Age of the oldest message read and not yet sent; 0 when there is none.";
    GAPS = "outbox_relay_gaps_open", "gauge", D, "Seqs that were not there and may still commit, as ranges.";
    GAP_AGE = "outbox_relay_gap_age_seconds", "gauge", D, "Age of the oldest of those.";
    BLOCKED = "outbox_relay_blocked_keys", "gauge", D, "Keys with a failed or parked message.";
    OUTAGE = "outbox_relay_outage", "gauge", D, "1 while the broker takes nothing, else 0.";
    LEADING = "outbox_relay_leading", "gauge", D, "1 while this relay leads the destination, else 0.";
    BEATS = "outbox_relay_beats_total", "counter", &[], "Heart beats written.";
    BEAT_FAILURES = "outbox_relay_beat_failures_total", "counter", &[], "Heart beats that did not come through.";
    RELAYS = "outbox_relay_live_relays", "gauge", &[], "Relays alive, as seen by this one.";
    ALERTS = "outbox_relay_alerts_total", "counter", &["kind", "state"], "Notices handed to the alert sinks.";
    ALERTS_DROPPED = "outbox_relay_alerts_dropped_total", "counter", &[], "Alert events or notices dropped because a queue was full.";
    MAINTENANCE = "outbox_relay_maintenance_total", "counter", &["result"], "Rounds of house-keeping, by result: ok or failed.";
    DEFAULT_ROWS = "outbox_relay_default_partition_rows", "gauge", &[], "Rows in the default partition; more than 0 means maintenance is behind.";
}

/// Tells the recorder what each metric means. Harmless to repeat.
pub(crate) fn describe() {
    for metric in METRICS {
        let unit = if metric.name.ends_with("_seconds") {
            Unit::Seconds
        } else {
            Unit::Count
        };
        match metric.kind {
            "counter" => metrics::describe_counter!(metric.name, unit, metric.help),
            "gauge" => metrics::describe_gauge!(metric.name, unit, metric.help),
            _ => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// Handles of one destination's metrics, looked up once: the hot path only adds.
#[derive(Clone)]
pub(crate) struct Meters {
    pub sent: Counter,
    pub duplicates: Counter,
    pub failed: Counter,
    pub dead: Counter,
    pub parked: Counter,
    pub scheduled: Counter,
    pub expired: Counter,
    pub late: Counter,
    pub unrouted: Counter,
    pub pages: Counter,
    pub settles: Counter,
    pub sessions: Counter,
    pub outages: Counter,
    pub batch: Histogram,
    pub publish: Histogram,
    pub settle: Histogram,
    pub delivery: Histogram,
    pub cursor: Gauge,
    pub lag: Gauge,
    pub gaps: Gauge,
    pub gap_age: Gauge,
    pub blocked: Gauge,
    pub outage: Gauge,
    pub leading: Gauge,
}

impl Meters {
    pub(crate) fn new(destination: &str) -> Self {
        let counter =
            |name: &'static str| metrics::counter!(name, "destination" => destination.to_owned());
        let gauge =
            |name: &'static str| metrics::gauge!(name, "destination" => destination.to_owned());
        let histogram =
            |name: &'static str| metrics::histogram!(name, "destination" => destination.to_owned());
        Self {
            sent: counter(SENT),
            duplicates: counter(DUPLICATES),
            failed: counter(FAILED),
            dead: counter(DEAD),
            parked: counter(PARKED),
            scheduled: counter(SCHEDULED),
            expired: counter(EXPIRED),
            late: counter(LATE),
            unrouted: counter(UNROUTED),
            pages: counter(PAGES),
            settles: counter(SETTLES),
            sessions: counter(SESSIONS),
            outages: counter(OUTAGES),
            batch: histogram(BATCH),
            publish: histogram(PUBLISH),
            settle: histogram(SETTLE),
            delivery: histogram(DELIVERY),
            cursor: gauge(CURSOR),
            lag: gauge(LAG),
            gaps: gauge(GAPS),
            gap_age: gauge(GAP_AGE),
            blocked: gauge(BLOCKED),
            outage: gauge(OUTAGE),
            leading: gauge(LEADING),
        }
    }

    /// What only a leader knows is 0 on a standby, or dashboards would add up two truths.
    pub(crate) fn stand_by(&self) {
        for gauge in [
            &self.lag,
            &self.gaps,
            &self.gap_age,
            &self.blocked,
            &self.outage,
            &self.leading,
        ] {
            gauge.set(0.0);
        }
    }
}
