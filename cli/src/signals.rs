//! SIGINT and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Problem};

/// A token that is cancelled by the first SIGINT or SIGTERM. A second signal ends the process at
/// once, as a kill would: whoever presses Ctrl-C twice does not want to wait.
///
/// # Errors
/// When the process may not handle signals.
pub fn shutdown() -> Result<CancellationToken, Problem> {
    let unusable = |e| Problem::new(Exit::Failed, format!("handle signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unusable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unusable)?;
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        // `recv` is cancel-safe: a signal that the other arm wins over is not lost, it is moot.
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        first.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    Ok(token)
}
