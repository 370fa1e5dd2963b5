//! The handle of a running broker.

use std::net::SocketAddr;
use std::sync::Arc;

use outbox_log_broker::Log;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::error::StartError;
use crate::limits::STOP_TIME_MAX;
use crate::options::{Advertised, BrokerOptions};
use crate::security::Security;
use crate::server;
use crate::shared::Shared;

/// A running broker. Dropping it closes every connection at once; [`Broker::stop`] lets what is
/// under way end first.
pub struct Broker {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    server: JoinHandle<()>,
    connections: TaskTracker,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the log and begins to serve it. To be called in a runtime of tokio.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(options: BrokerOptions) -> Result<Self, StartError> {
        options.check()?;
        let log_options = options.log.clone();
        let opened = tokio::task::spawn_blocking(move || Log::open(log_options)).await;
        let log = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Self::start_on(log, options).await
    }

    /// Begins to serve a log that is open: others in this process may use it at the same time.
    /// `options.log` is of no effect.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_on(log: Arc<Log>, options: BrokerOptions) -> Result<Self, StartError> {
        options.check()?;
        let security = security(&options).await?;
        let addr = options.listen;
        let listen = |source| StartError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let advertised = match &options.advertised {
            // Port 0 stands for the one that was found.
            Some(Advertised { host, port: 0 }) => Advertised {
                host: host.clone(),
                port: local_addr.port(),
            },
            Some(advertised) => advertised.clone(),
            None => local_addr.into(),
        };
        tracing::info!(
            addr = %local_addr,
            %advertised,
            "serving Kafka's protocol"
        );
        let shared = Arc::new(Shared::new(log, security, options, advertised));
        tokio::spawn(shared.groups.clone().keep_time(shared.stop.clone()));
        let connections = TaskTracker::new();
        let server = tokio::spawn(server::run(shared.clone(), listener, connections.clone()));
        Ok(Self {
            shared,
            local_addr,
            server,
            connections,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The log that it serves.
    pub fn log(&self) -> &Arc<Log> {
        &self.shared.log
    }

    /// Stops: takes no more connections and requests, answers the Produce requests that were
    /// received, and gives up long polls. Waits at most [`STOP_TIME_MAX`]. The log stays open for
    /// others who hold it, and is closed, with a checkpoint, when nobody does.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        let _ = (&mut self.server).await;
        let ended = tokio::time::timeout(STOP_TIME_MAX, self.connections.wait()).await;
        if ended.is_err() {
            let left = self.connections.len();
            tracing::warn!(left, "stopped without waiting for the last connections");
        }
        let log = self.shared.log.clone();
        drop(self);
        // Closing the log blocks.
        let _ = tokio::task::spawn_blocking(move || drop(log)).await;
    }
}

/// Hashing passwords and reading files blocks.
async fn security(options: &BrokerOptions) -> Result<Security, StartError> {
    let options = options.security.clone();
    let made = tokio::task::spawn_blocking(move || Security::new(&options)).await;
    let made = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    Ok(made?)
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
