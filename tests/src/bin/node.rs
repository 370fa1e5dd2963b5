//! `node --store STORE --log DIR --roles relay,consumer`: a process for tests to kill.

use outbox_tests::node::{NodeOptions, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let options = NodeOptions::from_args(std::env::args().skip(1))?;
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        token.cancel();
    });
    run(options, shutdown).await
}
