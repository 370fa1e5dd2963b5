//! `outbox config check`: reads every layer and prints what is in force, without secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Setting, Settings};
use crate::exit::{Exit, Problem};
use crate::output::{Output, table};

#[derive(Debug, Serialize)]
struct Checked {
    /// The file that was read, or null.
    file: Option<String>,
    /// Value and origin of each setting.
    settings: BTreeMap<&'static str, InForce>,
    /// Destinations as the store will know them.
    destinations: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct InForce {
    value: Value,
    /// `default`, the file, a variable or a flag.
    origin: String,
}

/// Runs the command. Nothing is opened and nothing is connected to.
pub fn run(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let checked = Checked {
        file: settings
            .file
            .as_ref()
            .map(|path| path.display().to_string()),
        settings: Setting::ALL
            .into_iter()
            .map(|setting| (setting.key(), in_force(settings, setting)))
            .collect(),
        destinations: settings
            .destinations
            .iter()
            .map(|d| {
                let mut shown = serde_json::to_value(&d.destination).unwrap_or_default();
                shown["exactly_once"] = d.exactly_once.into();
                shown
            })
            .collect(),
    };
    output.emit(&checked, human)?;
    Ok(Exit::Ok)
}

fn in_force(settings: &Settings, setting: Setting) -> InForce {
    let origin = settings.origins.get(setting.key());
    InForce {
        value: value(settings, setting),
        origin: origin.cloned().unwrap_or_else(|| "default".to_owned()),
    }
}

/// A web hook's address is a secret as a whole: only whether there is one is shown.
fn value(settings: &Settings, setting: Setting) -> Value {
    let (store, relay, alerts) = (&settings.store, &settings.relay, &settings.alerts);
    let broker = &settings.broker;
    let secret = |is_set: bool| if is_set { json!("(set)") } else { Value::Null };
    let span = |length: Duration| json!(format!("{length:?}"));
    match setting {
        Setting::StoreUrl => json!(store.url.masked_url()),
        Setting::StoreSchema => json!(store.schema),
        Setting::StorePooled => json!(store.pooled),
        Setting::RelayName => json!(relay.name),
        Setting::RelayListen => json!(relay.listen),
        Setting::RelayAllowRemote => json!(relay.allow_remote),
        Setting::RelayLeaseTtl => span(relay.lease_ttl),
        Setting::RelayPageRows => json!(relay.page.rows),
        Setting::RelayPageBytes => json!(relay.page.bytes),
        Setting::BrokerDataDir => json!(broker.data_dir),
        Setting::BrokerListen => json!(broker.listen),
        Setting::BrokerAdvertise => json!(broker.advertise.as_ref().map(ToString::to_string)),
        Setting::BrokerAllowAnonymousNetwork => json!(broker.allow_anonymous_network),
        Setting::BrokerAutoCreateTopics => json!(broker.auto_create_topics),
        Setting::BrokerPartitions => json!(broker.partitions),
        Setting::BrokerRetention => json!(broker.retention.map(|length| format!("{length:?}"))),
        Setting::BrokerRetentionBytes => json!(broker.retention_bytes),
        Setting::BrokerExpire => json!(broker.expire),
        Setting::BrokerConnectionsMax => json!(broker.connections_max),
        Setting::BrokerRequestBytesMax => json!(broker.request_bytes_max),
        Setting::BrokerGroupInitialDelay => span(broker.group_initial_delay),
        Setting::BrokerHttpListen => json!(broker.http_listen),
        Setting::BrokerHttpAllowRemote => json!(broker.http_allow_remote),
        Setting::BrokerTransactionTimeoutMax => span(broker.transaction_timeout_max),
        Setting::BrokerTransactionalIdExpiry => span(broker.transactional_id_expiry),
        Setting::BrokerProducerExpiry => span(broker.producer_expiry),
        Setting::MaintenanceRetention => span(settings.maintenance.retention),
        Setting::MaintenanceSchedule => {
            json!(
                settings
                    .maintenance
                    .schedule
                    .as_ref()
                    .map(ToString::to_string)
            )
        }
        Setting::AlertsLog => json!(alerts.log),
        Setting::AlertsWebhook => secret(alerts.webhook.is_some()),
        Setting::AlertsSlack => secret(alerts.slack.is_some()),
        Setting::AlertsCommand => json!(alerts.command),
    }
}

fn human(checked: &Checked) -> String {
    let mut settings = table(["SETTING", "VALUE", "FROM"]);
    for (key, in_force) in &checked.settings {
        settings.add_row([
            (*key).to_owned(),
            plain(&in_force.value),
            in_force.origin.clone(),
        ]);
    }
    let mut destinations = table(["DESTINATION", "TOPICS", "BROKER", "ORDER", "ON DEAD"]);
    for d in &checked.destinations {
        destinations
            .add_row(["name", "patterns", "broker", "order", "on_dead"].map(|k| plain(&d[k])));
    }
    let file = checked
        .file
        .as_deref()
        .unwrap_or("no outbox.toml here: defaults");
    format!("valid: {file}\n\n{settings}\n\n{destinations}\n")
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
