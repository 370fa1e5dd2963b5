//! The settings that a variable or a flag may override, each with its one name everywhere.

use super::value::{Name, Secret, Span};
use super::{Alerts, Settings};
use outbox_core::limits;
use outbox_relay::{InvalidSchedule, Schedule};

/// Smallest lease TTL: below it an ordinary pause of the machine costs the lease.
pub const LEASE_TTL_MIN: std::time::Duration = std::time::Duration::from_millis(200);
/// Longest lease TTL: a dead relay's destinations wait at most this long for another one.
pub const LEASE_TTL_MAX: std::time::Duration = std::time::Duration::from_secs(600);
/// Most rows of a page: the relay's memory is three pages for each destination.
pub const PAGE_ROWS_LIMIT: usize = 65_536;
/// Most bytes of a page (256 MiB).
pub const PAGE_BYTES_LIMIT: usize = 256 << 20;
/// Longest schema name: index names are made from it, and PostgreSQL cuts names at 63 bytes.
pub const SCHEMA_BYTES_MAX: usize = 40;

/// A setting that is not a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// `store.url`
    StoreUrl,
    /// `store.schema`
    StoreSchema,
    /// `store.pooled`
    StorePooled,
    /// `relay.name`
    RelayName,
    /// `relay.listen`
    RelayListen,
    /// `relay.allow_remote`
    RelayAllowRemote,
    /// `relay.lease_ttl`
    RelayLeaseTtl,
    /// `relay.page_rows`
    RelayPageRows,
    /// `relay.page_bytes`
    RelayPageBytes,
    /// `broker.data_dir`
    BrokerDataDir,
    /// `broker.listen`
    BrokerListen,
    /// `broker.advertise`
    BrokerAdvertise,
    /// `broker.allow_anonymous_network`
    BrokerAllowAnonymousNetwork,
    /// `broker.auto_create_topics`
    BrokerAutoCreateTopics,
    /// `broker.partitions`
    BrokerPartitions,
    /// `broker.retention`
    BrokerRetention,
    /// `broker.retention_bytes`
    BrokerRetentionBytes,
    /// `broker.expire`
    BrokerExpire,
    /// `broker.connections_max`
    BrokerConnectionsMax,
    /// `broker.request_bytes_max`
    BrokerRequestBytesMax,
    /// `broker.group_initial_delay`
    BrokerGroupInitialDelay,
    /// `broker.http_listen`
    BrokerHttpListen,
    /// `broker.http_allow_remote`
    BrokerHttpAllowRemote,
    /// `broker.transaction_timeout_max`
    BrokerTransactionTimeoutMax,
    /// `broker.transactional_id_expiry`
    BrokerTransactionalIdExpiry,
    /// `broker.producer_expiry`
    BrokerProducerExpiry,
    /// `maintenance.retention`
    MaintenanceRetention,
    /// `maintenance.schedule`
    MaintenanceSchedule,
    /// `alerts.log`
    AlertsLog,
    /// `alerts.webhook`
    AlertsWebhook,
    /// `alerts.slack`
    AlertsSlack,
    /// `alerts.command`
    AlertsCommand,
}

impl Setting {
    /// All of them, in the order of the file.
    pub const ALL: [Self; 32] = [
        Self::StoreUrl,
        Self::StoreSchema,
        Self::StorePooled,
        Self::RelayName,
        Self::RelayListen,
        Self::RelayAllowRemote,
        Self::RelayLeaseTtl,
        Self::RelayPageRows,
        Self::RelayPageBytes,
        Self::BrokerDataDir,
        Self::BrokerListen,
        Self::BrokerAdvertise,
        Self::BrokerAllowAnonymousNetwork,
        Self::BrokerAutoCreateTopics,
        Self::BrokerPartitions,
        Self::BrokerRetention,
        Self::BrokerRetentionBytes,
        Self::BrokerExpire,
        Self::BrokerConnectionsMax,
        Self::BrokerRequestBytesMax,
        Self::BrokerGroupInitialDelay,
        Self::BrokerHttpListen,
        Self::BrokerHttpAllowRemote,
        Self::BrokerTransactionTimeoutMax,
        Self::BrokerTransactionalIdExpiry,
        Self::BrokerProducerExpiry,
        Self::MaintenanceRetention,
        Self::MaintenanceSchedule,
        Self::AlertsLog,
        Self::AlertsWebhook,
        Self::AlertsSlack,
        Self::AlertsCommand,
    ];

    /// Its key in the file.
    pub fn key(self) -> &'static str {
        match self {
            Self::StoreUrl => "store.url",
            Self::StoreSchema => "store.schema",
            Self::StorePooled => "store.pooled",
            Self::RelayName => "relay.name",
            Self::RelayListen => "relay.listen",
            Self::RelayAllowRemote => "relay.allow_remote",
            Self::RelayLeaseTtl => "relay.lease_ttl",
            Self::RelayPageRows => "relay.page_rows",
            Self::RelayPageBytes => "relay.page_bytes",
            Self::BrokerDataDir => "broker.data_dir",
            Self::BrokerListen => "broker.listen",
            Self::BrokerAdvertise => "broker.advertise",
            Self::BrokerAllowAnonymousNetwork => "broker.allow_anonymous_network",
            Self::BrokerAutoCreateTopics => "broker.auto_create_topics",
            Self::BrokerPartitions => "broker.partitions",
            Self::BrokerRetention => "broker.retention",
            Self::BrokerRetentionBytes => "broker.retention_bytes",
            Self::BrokerExpire => "broker.expire",
            Self::BrokerConnectionsMax => "broker.connections_max",
            Self::BrokerRequestBytesMax => "broker.request_bytes_max",
            Self::BrokerGroupInitialDelay => "broker.group_initial_delay",
            Self::BrokerHttpListen => "broker.http_listen",
            Self::BrokerHttpAllowRemote => "broker.http_allow_remote",
            Self::BrokerTransactionTimeoutMax => "broker.transaction_timeout_max",
            Self::BrokerTransactionalIdExpiry => "broker.transactional_id_expiry",
            Self::BrokerProducerExpiry => "broker.producer_expiry",
            Self::MaintenanceRetention => "maintenance.retention",
            Self::MaintenanceSchedule => "maintenance.schedule",
            Self::AlertsLog => "alerts.log",
            Self::AlertsWebhook => "alerts.webhook",
            Self::AlertsSlack => "alerts.slack",
            Self::AlertsCommand => "alerts.command",
        }
    }

    /// Its environment variable: `OUTBOX_` and the key in capitals.
    pub fn variable(self) -> String {
        format!(
            "OUTBOX_{}",
            self.key().replace('.', "_").to_ascii_uppercase()
        )
    }

    /// Sets it from text.
    ///
    /// # Errors
    /// What is wrong with the text, and what is allowed.
    pub fn set(self, settings: &mut Settings, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("is empty: give a value, or leave it out".to_owned());
        }
        let Settings {
            store,
            relay,
            broker,
            maintenance,
            alerts,
            ..
        } = settings;
        match self {
            Self::StoreUrl => store.url = Secret::new(text),
            Self::StoreSchema => store.schema = schema(text)?,
            Self::StorePooled => store.pooled = boolean(text)?,
            Self::RelayName => relay.name = Some(text.parse::<Name>()?.0),
            Self::RelayListen => relay.listen = Some(address(text)?),
            Self::RelayAllowRemote => relay.allow_remote = boolean(text)?,
            Self::RelayLeaseTtl => relay.lease_ttl = lease_ttl(text.parse()?)?,
            Self::RelayPageRows => relay.page.rows = page_rows(number(text)?)?,
            Self::RelayPageBytes => relay.page.bytes = page_bytes(number(text)?)?,
            Self::MaintenanceRetention => maintenance.retention = text.parse::<Span>()?.0,
            Self::MaintenanceSchedule => maintenance.schedule = Some(schedule(text)?),
            _ => {
                if !broker.set(self, text)? {
                    self.set_alert(alerts, text)?;
                }
            }
        }
        Ok(())
    }

    fn set_alert(self, alerts: &mut Alerts, text: &str) -> Result<(), String> {
        match self {
            Self::AlertsLog => alerts.log = boolean(text)?,
            Self::AlertsWebhook => alerts.webhook = Some(http_url(Secret::new(text))?),
            Self::AlertsSlack => alerts.slack = Some(http_url(Secret::new(text))?),
            // One program without arguments; arguments need the file's list.
            _ => alerts.command = Some(vec![text.to_owned()]),
        }
        Ok(())
    }
}

/// Checks the name of a Postgres schema.
pub fn schema(text: &str) -> Result<String, String> {
    let bytes = text.len();
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let all_well = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if bytes > SCHEMA_BYTES_MAX || !starts_well || !text.chars().all(all_well) {
        return Err(format!(
            "schema {text:?} ({bytes} bytes): allowed are 1 to {SCHEMA_BYTES_MAX} of a-z 0-9 _, \
             not starting with a digit"
        ));
    }
    Ok(text.to_owned())
}

/// Reads a cron expression.
pub fn schedule(text: &str) -> Result<Schedule, String> {
    text.parse().map_err(|e: InvalidSchedule| e.to_string())
}

/// Checks a lease TTL.
pub fn lease_ttl(span: Span) -> Result<std::time::Duration, String> {
    match span.0 {
        ttl if (LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) => Ok(ttl),
        ttl => Err(format!(
            "lease_ttl is {ttl:?}, allowed are {LEASE_TTL_MIN:?} to {LEASE_TTL_MAX:?}"
        )),
    }
}

/// Checks the rows of a page.
pub fn page_rows(rows: usize) -> Result<usize, String> {
    match rows {
        1..=PAGE_ROWS_LIMIT => Ok(rows),
        _ => Err(format!(
            "page_rows is {rows}, allowed are 1 to {PAGE_ROWS_LIMIT}"
        )),
    }
}

/// Checks the bytes of a page: it must hold any one message.
pub fn page_bytes(bytes: usize) -> Result<usize, String> {
    match bytes {
        limits::PAYLOAD_BYTES_MAX..=PAGE_BYTES_LIMIT => Ok(bytes),
        _ => Err(format!(
            "page_bytes is {bytes}, allowed are {} to {PAGE_BYTES_LIMIT}",
            limits::PAYLOAD_BYTES_MAX
        )),
    }
}

/// Checks the URL of a webhook.
pub fn http_url(url: Secret) -> Result<Secret, String> {
    match url.expose().starts_with("http://") || url.expose().starts_with("https://") {
        true => Ok(url),
        false => Err("is not a web address: it must start with https:// or http://".to_owned()),
    }
}

pub(super) fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address: write 127.0.0.1:9464"))
}

pub(super) fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_setting_and_its_variable() {
        let manual = include_str!("../../../docs/configuration.md");
        for setting in Setting::ALL {
            let row = format!("| `{}` | `{}` |", setting.key(), setting.variable());
            assert!(
                manual.contains(&row),
                "docs/configuration.md lacks the row {row:?}"
            );
        }
    }
}
