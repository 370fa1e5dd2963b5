//! `outbox broker`: the bundled log, served to Kafka clients.

use std::sync::{Arc, Weak};

use outbox_broker::{Broker, BrokerOptions, StartError};
use outbox_log_broker::{Log, LogOptions};
use outbox_relay::{HttpError, HttpOptions, HttpServer, Monitored};
use serde::Serialize;
use serde_json::json;

use crate::config::Settings;
use crate::exit::{Exit, Problem};
use crate::output::Output;

/// What was run, for `--json`: printed when it has stopped.
#[derive(Debug, Serialize)]
struct Stopped {
    stopped: bool,
    addr: String,
}

/// Runs the command until SIGTERM or SIGINT.
pub async fn run(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let shutdown = crate::signals::shutdown()?;
    let http = settings.broker.http_listen.map(|addr| HttpOptions {
        addr,
        allow_remote: settings.broker.http_allow_remote,
    });
    if http.is_some() {
        // Before the broker asks for its metrics.
        outbox_relay::install_recorder();
    }
    let broker = Broker::start(options(settings)).await.map_err(problem)?;
    let addr = broker.local_addr().to_string();
    let served = match http {
        Some(options) => {
            let log = Arc::downgrade(broker.log());
            let server = HttpServer::bind(&options, Arc::new(Watched { log })).await;
            Some(tokio::spawn(
                server.map_err(unserved)?.run(shutdown.clone()),
            ))
        }
        None => None,
    };
    shutdown.cancelled().await;
    broker.stop().await;
    if let Some(served) = served {
        served.abort();
    }
    let stopped = Stopped {
        stopped: true,
        addr,
    };
    output.emit(&stopped, |_| "stopped: the log is closed".to_owned())?;
    Ok(Exit::Ok)
}

/// The broker as `/livez` and `/readyz` see it. It does not hold the log, which closes with the
/// broker.
struct Watched {
    log: Weak<Log>,
}

impl Monitored for Watched {
    fn is_live(&self) -> bool {
        true
    }

    fn readiness(&self) -> (bool, serde_json::Value) {
        let problem = match self.log.upgrade() {
            Some(log) => log.writable().err().map(|error| error.to_string()),
            None => Some("the log is closed".to_owned()),
        };
        let ready = problem.is_none();
        (ready, json!({"ready": ready, "problem": problem}))
    }
}

fn options(settings: &Settings) -> BrokerOptions {
    let broker = &settings.broker;
    let log = LogOptions {
        transaction_timeout_max: broker.transaction_timeout_max,
        transactional_id_expiry: broker.transactional_id_expiry,
        producer_expiry: broker.producer_expiry,
        ..LogOptions::new(&broker.data_dir)
    };
    let mut options = BrokerOptions::new(log, broker.listen);
    options.advertised.clone_from(&broker.advertise);
    options.allow_anonymous_network = broker.allow_anonymous_network;
    options.auto_create_topics = broker.auto_create_topics;
    options.topic.partitions = broker.partitions;
    let retention = broker.retention.map(|length| length.as_millis());
    options.topic.retention_ms = retention.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
    options.topic.retention_bytes = broker.retention_bytes;
    options.topic.expire = broker.expire;
    options.connections_max = broker.connections_max;
    options.request_bytes_max = broker.request_bytes_max;
    let delay = broker.group_initial_delay.as_millis();
    options.groups.initial_rebalance_delay_ms = u64::try_from(delay).unwrap_or(u64::MAX);
    options.security = broker.security.clone();
    options
}

fn unserved(error: HttpError) -> Problem {
    let exit = match error {
        HttpError::NotLoopback { .. } => Exit::Config,
        _ => Exit::Unreachable,
    };
    Problem::new(exit, error.to_string())
}

fn problem(error: StartError) -> Problem {
    let exit = match &error {
        StartError::Log(_) | StartError::Listen { .. } => Exit::Unreachable,
        StartError::Anonymous { .. }
        | StartError::Security(_)
        | StartError::NotAdvertised { .. }
        | StartError::Option { .. } => Exit::Config,
        _ => Exit::Failed,
    };
    Problem::new(exit, error.to_string())
}
