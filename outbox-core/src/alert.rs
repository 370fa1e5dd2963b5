//! What an operator is told.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Messages are dead: attempts exhausted, or refused for good.
    Dead,
    /// A broker or the store cannot be reached.
    Outage,
    /// A gap stays open: a transaction holds a seq for long.
    StuckGap,
    /// The oldest pending message is older than the threshold.
    Lag,
    /// Messages that no route covers.
    Unrouted,
    /// Rows fell into the default partition: maintenance does not keep up.
    DefaultPartition,
    /// A destination stopped and needs a person (foreign store, sequence behind, schema).
    Stopped,
}

/// Whether it began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is so now.
    Firing,
    /// It was so, and no longer is.
    Resolved,
}

/// One notice, already grouped and rate-limited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// Whether it began or ended.
    pub state: AlertState,
    /// The destination, or `None` for the store as a whole.
    pub destination: Option<String>,
    /// One sentence for a person, with the numbers and what to do.
    pub text: String,
    /// How many events this notice stands for.
    pub count: u64,
    /// When.
    pub at: DateTime<Utc>,
}

/// Where alerts go: a log, a webhook, a command.
#[async_trait]
pub trait AlertSink: Send + Sync {
    /// Name of the sink, for the log line when it fails.
    fn name(&self) -> &str;
    /// Delivers one alert; the caller bounds it in time and logs a failure.
    ///
    /// # Errors
    /// Whatever the sink could not do, for the log.
    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}
