//! What the examples share: settings from the environment, logging, and a token for signals.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// An environment variable that must be set.
///
/// # Errors
/// A sentence that says what to set it to.
pub fn required(variable: &str, example: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| format!("set {variable}, for example to {example}"))
}

/// An environment variable, or what stands for it.
pub fn or_default(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// Logs to standard error, by `RUST_LOG` (default `info`).
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// A token that is cancelled by SIGTERM or Ctrl-C.
///
/// # Errors
/// When the process may not listen for signals.
pub fn shutdown() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        // Either will do; what the other would have said no longer matters.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
