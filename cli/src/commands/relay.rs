//! `outbox relay`: the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outbox_broker_adapters::ConnectError;
use outbox_core::{AlertSink, Broker, Capabilities, Destination};
use outbox_relay::{
    AlertOptions, CommandSink, HttpError, HttpOptions, LogSink, MaintenanceOptions, Relay,
    RelayError, RelayOptions, WebhookFormat, WebhookSink,
};
use serde::Serialize;

use crate::config::{Alerts, Settings};
use crate::exit::{Exit, Problem};
use crate::output::Output;
use crate::store::{IfMissing, open};

/// How long each broker has to say, at the start, that it is one of ours.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// What was run, for `--json`: printed when it has stopped.
#[derive(Debug, Serialize)]
struct Stopped {
    stopped: bool,
    destinations: Vec<String>,
}

/// Runs the command until SIGTERM or SIGINT.
pub async fn run(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let options = options(settings)?;
    let shutdown = crate::signals::shutdown()?;
    let store = open(&settings.store, IfMissing::Create).await?;
    let brokers = brokers(settings).await?;
    let destinations: Vec<Destination> = settings
        .destinations
        .iter()
        .map(|d| d.destination.clone())
        .collect();
    store.admin.declare(&destinations).await?;
    for destination in &destinations {
        tracing::info!(
            destination = destination.name,
            broker = destination.broker,
            topics = ?destination.patterns.iter().map(|p| p.as_str()).collect::<Vec<_>>(),
            "delivering"
        );
    }
    Relay::new(store.store, brokers, options)
        .run(shutdown)
        .await
        .map_err(problem)?;
    let stopped = Stopped {
        stopped: true,
        destinations: destinations.into_iter().map(|d| d.name).collect(),
    };
    output.emit(&stopped, |_| "stopped: leases are handed over".to_owned())?;
    Ok(Exit::Ok)
}

async fn brokers(settings: &Settings) -> Result<BTreeMap<String, Arc<dyn Broker>>, Problem> {
    let mut brokers = BTreeMap::new();
    for destination in &settings.destinations {
        let name = &destination.destination.name;
        let broker = outbox_broker_adapters::connect(destination.broker.expose()).await;
        let broker = broker.map_err(|e| unopened(name, &e))?;
        if destination.exactly_once {
            check_exactly_once(name, broker.capabilities())?;
        }
        check_served(name, destination.broker.expose()).await?;
        brokers.insert(name.clone(), broker);
    }
    Ok(brokers)
}

/// A broker that is away is waited for; one that is not what its address says is not.
async fn check_served(destination: &str, url: &str) -> Result<(), Problem> {
    match outbox_broker_adapters::check_served(url, CHECK_PATIENCE).await {
        Ok(()) => Ok(()),
        Err(ConnectError::Unknown(error)) => {
            tracing::warn!(
                destination,
                error,
                "its broker does not answer; starting all the same"
            );
            Ok(())
        }
        Err(error) => Err(unopened(destination, &error)),
    }
}

/// A broker that fences and drops duplicates stores a message once, whatever becomes of the relay.
fn check_exactly_once(destination: &str, capabilities: Capabilities) -> Result<(), Problem> {
    if capabilities.fences && capabilities.drops_duplicates {
        return Ok(());
    }
    let text = format!(
        "destination {destination:?} has exactly_once = true, but its broker stores a message again when a \
         relay that died sends it again. Cure: the bundled log, or exactly_once = false and an inbox at \
         its consumers"
    );
    Err(Problem::new(Exit::Config, text))
}

fn unopened(destination: &str, error: &ConnectError) -> Problem {
    let text = format!("open the broker of destination {destination:?}: {error}");
    Problem::new(error.into(), text)
}

fn options(settings: &Settings) -> Result<RelayOptions, Problem> {
    let (relay, maintenance) = (&settings.relay, &settings.maintenance);
    let default = RelayOptions::default();
    Ok(RelayOptions {
        instance: relay
            .name
            .clone()
            .unwrap_or_else(|| default.instance.clone()),
        lease_ttl: relay.lease_ttl,
        page: relay.page,
        http: relay.listen.map(|addr| HttpOptions {
            addr,
            allow_remote: relay.allow_remote,
        }),
        alerts: AlertOptions {
            sinks: sinks(&settings.alerts)?,
            ..AlertOptions::default()
        },
        maintenance: Some(MaintenanceOptions {
            retention: maintenance.retention,
            retention_at: maintenance.schedule.clone(),
            ..MaintenanceOptions::default()
        }),
        ..default
    })
}

fn sinks(alerts: &Alerts) -> Result<Vec<Arc<dyn AlertSink>>, Problem> {
    let mut sinks: Vec<Arc<dyn AlertSink>> = Vec::new();
    if alerts.log {
        sinks.push(Arc::new(LogSink));
    }
    let webhooks = [
        ("alerts.webhook", &alerts.webhook, WebhookFormat::Json),
        ("alerts.slack", &alerts.slack, WebhookFormat::Slack),
    ];
    for (key, url, format) in webhooks {
        if let Some(url) = url {
            let sink = WebhookSink::new(url.expose(), format).map_err(|e| {
                Problem::new(Exit::Config, format!("read the configuration: {key}: {e}"))
            })?;
            sinks.push(Arc::new(sink));
        }
    }
    if let Some((program, arguments)) = alerts.command.as_ref().and_then(|c| c.split_first()) {
        sinks.push(Arc::new(CommandSink::new(program, arguments)));
    }
    Ok(sinks)
}

fn problem(error: RelayError) -> Problem {
    match error {
        RelayError::Store(error) => error.into(),
        error @ (RelayError::Http(HttpError::NotLoopback { .. }) | RelayError::Option { .. }) => {
            Problem::new(Exit::Config, error.to_string())
        }
        error => Problem::new(Exit::Failed, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_once_wants_a_broker_that_fences_and_drops_duplicates() {
        let all = Capabilities {
            ordered_batches: true,
            fences: true,
            drops_duplicates: true,
        };
        check_exactly_once("orders", all).expect("it will do");
        let lacking = [
            Capabilities {
                fences: false,
                ..all
            },
            Capabilities {
                drops_duplicates: false,
                ..all
            },
        ];
        for capabilities in lacking {
            let refused = check_exactly_once("orders", capabilities).expect_err("it will not do");
            assert_eq!(refused.exit, Exit::Config);
            assert!(refused.text.contains("\"orders\""), "{refused:?}");
        }
    }
}
