//! Where the demo's log is: in this process, or behind the address of a running broker.

use std::path::Path;
use std::sync::Arc;

use outbox_broker::client::{Admin, ClientOptions};
use outbox_broker_adapters::ConnectError;
use outbox_core::{Broker, Source};
use outbox_log_broker::Log;

use super::shop::Names;
use crate::config::Secret;
use crate::exit::Problem;

/// The log, by its URL: the same one that a destination has in `outbox.toml`.
#[derive(Debug)]
pub struct LogPlace {
    url: Secret,
    /// Of a broker.
    served: Option<ClientOptions>,
}

impl LogPlace {
    /// A log of the demo's own.
    pub fn in_folder(folder: &Path) -> Result<Self, Problem> {
        Self::at(Secret::new(format!("log:{}", folder.join("log").display())))
    }

    /// The log at `url`.
    pub fn at(url: Secret) -> Result<Self, Problem> {
        let served = outbox_broker_adapters::served(url.expose()).map_err(problem)?;
        Ok(Self { url, served })
    }

    /// Whether others may use the log too.
    pub fn is_shared(&self) -> bool {
        self.served.is_some()
    }

    /// For people.
    pub fn name(&self) -> String {
        match self.is_shared() {
            true => self.url.masked_url(),
            false => "log:(in this process)".to_owned(),
        }
    }

    /// Fails when there is a broker that does not answer.
    pub async fn check(&self) -> Result<(), Problem> {
        if let Some(options) = &self.served {
            Admin::connect(options).await?;
        }
        Ok(())
    }

    /// For a relay.
    pub async fn broker(&self) -> Result<Arc<dyn Broker>, Problem> {
        let broker = outbox_broker_adapters::connect(self.url.expose()).await;
        broker.map_err(problem)
    }

    /// For a member of `group`.
    pub async fn source(&self, group: &str) -> Result<Arc<dyn Source>, Problem> {
        let source = outbox_broker_adapters::source(self.url.expose(), group).await;
        source.map_err(problem)
    }

    /// Opens a log of this process, for as long as what is answered is held.
    pub async fn open(&self) -> Result<Option<Arc<Log>>, Problem> {
        if self.is_shared() {
            return Ok(None);
        }
        let log = outbox_broker_adapters::open_log(self.url.expose()).await;
        log.map(Some).map_err(problem)
    }

    /// Removes what the demo left at a broker. Groups whose members have not been given up yet stay
    /// until those are.
    pub async fn clean_up(&self, names: &Names) -> Result<(), Problem> {
        let Some(options) = &self.served else {
            return Ok(());
        };
        let mut admin = Admin::connect(options).await?;
        for group in [&names.consumer, &names.onlooker] {
            if let Err(error) = admin.delete_group(group).await {
                tracing::debug!(group, %error, "a group of the demo is left");
            }
        }
        match admin.delete_topic(&names.topic).await {
            Ok(()) | Err(outbox_broker::client::ClientError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn problem(error: ConnectError) -> Problem {
    Problem::new((&error).into(), format!("open the demo's log: {error}"))
}
