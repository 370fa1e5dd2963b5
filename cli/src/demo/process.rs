//! The process that relays and consumes: a runtime of its own, which can be killed.
//!
//! A kill drops every task where it stands: no lease is handed over, no transaction ended, no
//! offset committed, and connections just break. The next process has to find out everything from
//! the store and the log, as after `kill -9`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outbox_relay::{Relay, RelayOptions};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::LogPlace;
use super::sabotage::Sabotage;
use super::shop::{Names, Shop};
use crate::exit::{Exit, Problem};

/// The one destination.
pub const DESTINATION: &str = "log";
/// A killed relay's lease runs out so fast. In production it is seconds.
const LEASE_TTL: Duration = Duration::from_millis(500);
/// Threads of one process.
const THREADS: usize = 2;

/// Relay and consumer, running.
pub struct Process {
    runtime: Runtime,
    shutdown: CancellationToken,
    tasks: [JoinHandle<()>; 2],
    /// Belongs to this process alone: what its tasks say while it is killed is nobody's problem.
    problems: UnboundedReceiver<Problem>,
}

impl Process {
    /// Starts relay and consumer.
    pub fn start(
        shop: &Arc<dyn Shop>,
        place: &Arc<LogPlace>,
        names: &Names,
        sabotage: &Arc<Sabotage>,
    ) -> Result<Self, Problem> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .map_err(|e| Problem::new(Exit::Failed, format!("start a runtime: {e}")))?;
        let shutdown = CancellationToken::new();
        let relay = relay(
            Arc::clone(shop),
            Arc::clone(place),
            Arc::clone(sabotage),
            shutdown.clone(),
        );
        let (shop, token) = (Arc::clone(shop), shutdown.clone());
        let (place, group) = (Arc::clone(place), names.consumer.clone());
        let consumer = async move { shop.bill(place.source(&group).await?, token).await };
        let (report, problems) = unbounded_channel();
        let tasks = [
            runtime.spawn(reported(relay, report.clone())),
            runtime.spawn(reported(consumer, report)),
        ];
        Ok(Self {
            runtime,
            shutdown,
            tasks,
            problems,
        })
    }

    /// What went wrong; waits until something does. Cancel-safe.
    pub async fn problem(&mut self) -> Problem {
        match self.problems.recv().await {
            Some(problem) => problem,
            // Both parts ended without a problem.
            None => std::future::pending().await,
        }
    }

    /// Kills it, as `kill -9` would.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// Lets it finish what is in flight, at most for `grace`, and kills what is left.
    pub fn stop(self, grace: Duration) {
        self.shutdown.cancel();
        let ended = futures_util::future::join_all(self.tasks);
        // What does not end in time is killed: the demo's stores are about to be read anyway.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(grace, ended).await });
        self.runtime.shutdown_background();
    }
}

/// Sends what went wrong. Nobody listens any more once the demo is over.
async fn reported(
    part: impl Future<Output = Result<(), Problem>>,
    problems: UnboundedSender<Problem>,
) {
    if let Err(problem) = part.await {
        let _ = problems.send(problem);
    }
}

async fn relay(
    shop: Arc<dyn Shop>,
    place: Arc<LogPlace>,
    sabotage: Arc<Sabotage>,
    shutdown: CancellationToken,
) -> Result<(), Problem> {
    let store = shop.store().await?.store;
    let broker = sabotage.around(place.broker().await?);
    let brokers = BTreeMap::from([(DESTINATION.to_owned(), broker)]);
    let options = RelayOptions {
        lease_ttl: LEASE_TTL,
        ..RelayOptions::default()
    };
    let ended = Relay::new(store, brokers, options).run(shutdown).await;
    ended.map_err(|e| Problem::new(Exit::Failed, format!("run the demo's relay: {e}")))
}
