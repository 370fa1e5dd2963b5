//! `outbox broker`: the bundled log, served to Kafka clients.

use outbox_broker::{Broker, BrokerOptions, StartError};
use outbox_log_broker::LogOptions;
use serde::Serialize;

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
    let broker = Broker::start(options(settings)).await.map_err(problem)?;
    let addr = broker.local_addr().to_string();
    shutdown.cancelled().await;
    broker.stop().await;
    let stopped = Stopped {
        stopped: true,
        addr,
    };
    output.emit(&stopped, |_| "stopped: the log is closed".to_owned())?;
    Ok(Exit::Ok)
}

fn options(settings: &Settings) -> BrokerOptions {
    let broker = &settings.broker;
    let mut options = BrokerOptions::new(LogOptions::new(&broker.data_dir), broker.listen);
    options.advertised.clone_from(&broker.advertise);
    options.allow_anonymous_network = broker.allow_anonymous_network;
    options.auto_create_topics = broker.auto_create_topics;
    options.topic.partitions = broker.partitions;
    options.connections_max = broker.connections_max;
    options.request_bytes_max = broker.request_bytes_max;
    let delay = broker.group_initial_delay.as_millis();
    options.groups.initial_rebalance_delay_ms = u64::try_from(delay).unwrap_or(u64::MAX);
    options.security = broker.security.clone();
    options
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
