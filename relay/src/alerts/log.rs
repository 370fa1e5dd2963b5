//! Alerts to the log.

use std::error::Error;

use async_trait::async_trait;
use outbox_core::{Alert, AlertSink, AlertState};

/// Writes each alert as one log line: an error when it begins, an info line when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

#[async_trait]
impl AlertSink for LogSink {
    fn name(&self) -> &str {
        "log"
    }

    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn Error + Send + Sync>> {
        let destination = alert.destination.as_deref().unwrap_or_default();
        let (kind, count) = (alert.kind, alert.count);
        match alert.state {
            AlertState::Firing => {
                tracing::error!(?kind, destination, count, "alert: {}", alert.text);
            }
            AlertState::Resolved => {
                tracing::info!(?kind, destination, count, "resolved: {}", alert.text);
            }
        }
        Ok(())
    }
}
