//! Every metric of the broker. `docs/telemetry.md` is the same table for people, and a test keeps
//! the two together.

use std::time::Instant;

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
        $(const $constant: &str = $name;)*
        /// Every metric of the broker.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, labels: $labels, help: $help },)*
        ];
    };
}

metrics_table! {
    CONNECTIONS = "outbox_broker_connections", "gauge", &[], "Connections that are open.";
    ACCEPTED = "outbox_broker_accepted_total", "counter", &[], "Connections taken.";
    REFUSED = "outbox_broker_refused_total", "counter", &[], "Connections closed at once because there were too many.";
    MISBEHAVED = "outbox_broker_misbehaved_total", "counter", &[], "Connections closed because of what the client sent, or did not take.";
    REQUESTS = "outbox_broker_requests_total", "counter", &["api"], "Requests, by their name in Kafka's protocol.";
    PRODUCED_BYTES = "outbox_broker_produced_bytes_total", "counter", &[], "Bytes of record batches handed to the log.";
    PRODUCE_ERRORS = "outbox_broker_produce_errors_total", "counter", &[], "Record batches that were not stored.";
    PRODUCE = "outbox_broker_produce_seconds", "histogram", &[], "Seconds from a Produce request until its records were durable.";
    FETCHED_BYTES = "outbox_broker_fetched_bytes_total", "counter", &[], "Bytes of record batches handed to readers.";
}

/// Tells the recorder what each metric means. Harmless to repeat.
fn describe() {
    for metric in METRICS {
        let unit = match metric.name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes_total") => Unit::Bytes,
            _ => Unit::Count,
        };
        match metric.kind {
            "counter" => metrics::describe_counter!(metric.name, unit, metric.help),
            "gauge" => metrics::describe_gauge!(metric.name, unit, metric.help),
            _ => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// Handles of the metrics, looked up once: the hot path only adds.
pub(crate) struct Meters {
    pub connections: Gauge,
    pub accepted: Counter,
    pub refused: Counter,
    pub misbehaved: Counter,
    pub produced_bytes: Counter,
    pub produce_errors: Counter,
    pub fetched_bytes: Counter,
    produce: Histogram,
    /// By API key.
    requests: Vec<Counter>,
}

impl Meters {
    /// For requests of these keys and names.
    pub fn new(apis: impl Iterator<Item = (i16, &'static str)>) -> Self {
        describe();
        let mut requests = Vec::new();
        for (key, name) in apis {
            let index = usize::try_from(key).unwrap_or(0);
            if requests.len() <= index {
                requests.resize(index + 1, Counter::noop());
            }
            requests[index] = metrics::counter!(REQUESTS, "api" => name);
        }
        Self {
            connections: metrics::gauge!(CONNECTIONS),
            accepted: metrics::counter!(ACCEPTED),
            refused: metrics::counter!(REFUSED),
            misbehaved: metrics::counter!(MISBEHAVED),
            produced_bytes: metrics::counter!(PRODUCED_BYTES),
            produce_errors: metrics::counter!(PRODUCE_ERRORS),
            fetched_bytes: metrics::counter!(FETCHED_BYTES),
            produce: metrics::histogram!(PRODUCE),
            requests,
        }
    }

    /// Counts a request.
    pub fn request(&self, key: i16) {
        let index = usize::try_from(key).ok();
        if let Some(counter) = index.and_then(|index| self.requests.get(index)) {
            counter.increment(1);
        }
    }

    /// Notes that a Produce request which came at `since` is done.
    pub fn produced(&self, since: Instant) {
        self.produce.record(since.elapsed());
    }
}
