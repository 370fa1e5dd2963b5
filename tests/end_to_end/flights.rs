//! A slice of real events through the real binaries.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use outbox_tests::flights::Flights;
use outbox_tests::postgres::Server;
use outbox_tests::seed::Seed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_events_arrive_once_in_order_through_ten_kills() -> anyhow::Result<()> {
    let node = PathBuf::from(env!("CARGO_BIN_EXE_node"));
    let outbox = node.with_file_name("outbox");
    ensure!(
        outbox.exists(),
        "build the outbox binary first: cargo build -p outbox-cli"
    );
    let server = Server::shared().await?;
    let dir = tempfile::tempdir()?;
    let flights = Flights {
        outbox,
        node,
        file: Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights.ndjson"),
        url: server.url(&server.create_database().await?),
        dir: dir.path().to_owned(),
        kills: 10,
    };
    let mut seed = Seed::from_environment();
    let landed = flights
        .run(&mut seed)
        .await
        .with_context(|| seed.to_string())?;
    ensure!(landed.verdict.is_clean(), "{:?} ({seed})", landed.verdict);
    ensure!(
        landed.events == 3_000,
        "{} events in the slice",
        landed.events
    );
    Ok(())
}
