//! `outbox.toml` as written: every key optional, unknown keys refused.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use outbox_core::{OnDead, Order, TopicPattern};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::broker::BrokerSection;
use super::setting::Setting;
use super::value::{Name, SecretRef, Span, StartAt};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// `[store]`
    pub store: StoreSection,
    /// `[[destination]]`
    pub destination: Vec<DestinationSection>,
    /// `[relay]`
    pub relay: RelaySection,
    /// `[broker]`
    pub broker: BrokerSection,
    /// `[maintenance]`
    pub maintenance: MaintenanceSection,
    /// `[alerts]`
    pub alerts: AlertsSection,
}

impl File {
    /// The settings that the file gives.
    pub fn given(&self) -> impl Iterator<Item = Setting> {
        let (store, relay, alerts) = (&self.store, &self.relay, &self.alerts);
        [
            (Setting::StoreUrl, store.url.is_some()),
            (Setting::StoreSchema, store.schema.is_some()),
            (Setting::StorePooled, store.pooled.is_some()),
            (Setting::RelayName, relay.name.is_some()),
            (Setting::RelayListen, relay.listen.is_some()),
            (Setting::RelayAllowRemote, relay.allow_remote.is_some()),
            (Setting::RelayLeaseTtl, relay.lease_ttl.is_some()),
            (Setting::RelayPageRows, relay.page_rows.is_some()),
            (Setting::RelayPageBytes, relay.page_bytes.is_some()),
            (
                Setting::MaintenanceRetention,
                self.maintenance.retention.is_some(),
            ),
            (
                Setting::MaintenanceSchedule,
                self.maintenance.schedule.is_some(),
            ),
            (Setting::AlertsLog, alerts.log.is_some()),
            (Setting::AlertsWebhook, alerts.webhook.is_some()),
            (Setting::AlertsSlack, alerts.slack.is_some()),
            (Setting::AlertsCommand, alerts.command.is_some()),
        ]
        .into_iter()
        .chain(self.broker.given())
        .filter_map(|(setting, given)| given.then_some(setting))
    }
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// Where the store is.
    pub url: Option<SecretRef>,
    /// Schema of the outbox's tables, on Postgres.
    pub schema: Option<String>,
    /// The URL leads to a pooler in transaction mode, on Postgres.
    pub pooled: Option<bool>,
}

/// One `[[destination]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationSection {
    /// Its name, with its place for the error about a second one.
    pub name: Spanned<Name>,
    /// The topics it covers.
    pub topics: Spanned<Vec<TopicPattern>>,
    /// Where messages go.
    pub broker: SecretRef,
    /// Whether messages of one key keep their order.
    #[serde(default)]
    pub order: Order,
    /// What becomes of the rest of a key.
    #[serde(default)]
    pub on_dead: OnDead,
    /// When to try again.
    #[serde(default)]
    pub retry: RetrySection,
    /// Where it starts when it is new.
    pub start: Option<StartAt>,
    /// Sends nothing, keeps its cursor.
    #[serde(default)]
    pub paused: bool,
    /// Only a broker that stores no message twice will do.
    #[serde(default)]
    pub exactly_once: bool,
}

/// `retry = { … }` of a destination.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySection {
    /// Delay after the first failure.
    pub initial: Option<Span>,
    /// Longest delay.
    pub max: Option<Span>,
    /// Growth for each attempt.
    pub multiplier: Option<Spanned<f64>>,
    /// Part of the delay that is random.
    pub jitter: Option<Spanned<f64>>,
    /// Attempts in all; 0 for no end.
    pub max_attempts: Option<u32>,
    /// Age after which a failure is final.
    pub max_age: Option<Span>,
}

/// `[relay]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySection {
    /// Name of this relay among its peers.
    pub name: Option<Name>,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub listen: Option<SocketAddr>,
    /// That address may be one that is reachable from outside.
    pub allow_remote: Option<bool>,
    /// A relay that did not beat for so long is dead.
    pub lease_ttl: Option<Spanned<Span>>,
    /// Rows of a page.
    pub page_rows: Option<Spanned<usize>>,
    /// Bytes of a page.
    pub page_bytes: Option<Spanned<usize>>,
}

/// `[maintenance]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaintenanceSection {
    /// How long messages stay readable once every destination is done with them.
    pub retention: Option<Span>,
    /// When retention may empty partitions, as a cron expression.
    pub schedule: Option<Spanned<String>>,
}

/// `[alerts]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsSection {
    /// Write alerts to the log.
    pub log: Option<bool>,
    /// POST each alert as JSON to this URL.
    pub webhook: Option<SecretRef>,
    /// POST each alert to this Slack-compatible URL.
    pub slack: Option<SecretRef>,
    /// Run this program with its arguments, the alert as JSON on its stdin.
    pub command: Option<Spanned<Vec<String>>>,
}

/// Something in the file is wrong, with its place.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError {
    /// `outbox.toml:3:7`
    pub place: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// The text of a file with its name: turns byte ranges into places.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// Its path, for the place.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
}

impl Document<'_> {
    /// Reads the sections.
    ///
    /// # Errors
    /// With line, column and the key whose value is wrong. The line itself is not quoted: it may
    /// hold a password.
    pub fn parse(&self) -> Result<File, FileError> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            match self.key_at(at) {
                Some(key) => self.error(at, format!("{key}: {}", error.message())),
                None => self.error(at, error.message()),
            }
        })
    }

    /// The key whose value the byte at `offset` is part of, as in `relay.page_rows`.
    fn key_at(&self, offset: usize) -> Option<String> {
        let document = DeTable::parse(self.text).ok()?;
        key_in(document.get_ref(), offset)
    }

    /// An error about the byte at `offset`.
    pub fn error(&self, offset: usize, text: impl Into<String>) -> FileError {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        FileError {
            place: format!("{}:{line}:{column}", self.path.display()),
            text: text.into(),
        }
    }
}

/// A table's own place is its header, so that only what is in it can be looked at.
fn key_in(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let key = key.get_ref();
        let below = match value.get_ref() {
            DeValue::Table(inner) => key_in(inner, offset),
            DeValue::Array(list) => list.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(inner) => key_in(inner, offset),
                _ => None,
            }),
            _ => None,
        };
        let is_table = value.get_ref().is_table();
        match below {
            Some(below) => Some(format!("{key}.{below}")),
            None if !is_table && value.span().contains(&offset) => Some(key.to_string()),
            None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        let path = Path::new("outbox.toml");
        Document { path, text }.parse().unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_column() {
        let error = error_of("[store]\nurl = \"sqlite:a\"\nurll = \"postgres://a:secret@b\"\n");
        assert!(
            error.starts_with("outbox.toml:3:1: unknown field `urll`"),
            "{error}"
        );
        assert!(
            error.contains("`schema`") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_type_is_refused_with_line_and_column() {
        let error = error_of("[relay]\nname = \"a\"\npage_rows = \"many\"\n");
        assert!(
            error.starts_with("outbox.toml:3:13: relay.page_rows: invalid type: string"),
            "{error}"
        );
        let error = error_of("[store]\nurl = 5\n");
        assert!(error.starts_with("outbox.toml:2:7: store.url: "), "{error}");
        assert!(error.contains("{ env = \"VARIABLE\" }"), "{error}");
    }

    #[test]
    fn a_value_that_checks_itself_is_refused_with_line_and_column() {
        let error = error_of("[relay]\nlease_ttl = \"10\"\n");
        assert!(
            error.starts_with("outbox.toml:2:13: relay.lease_ttl: \"10\" is not a length"),
            "{error}"
        );
        let error =
            error_of("[[destination]]\nname = \"Log\"\ntopics = [\"*\"]\nbroker = \"log:.\"\n");
        assert!(
            error.starts_with("outbox.toml:2:8: destination.name: name \"Log\" has 'L'"),
            "{error}"
        );
        let error =
            error_of("[[destination]]\nname = \"log\"\ntopics = [\"a/b\"]\nbroker = \"log:.\"\n");
        assert!(error.starts_with("outbox.toml:3:"), "{error}");
        assert!(
            error.contains("topics: topic pattern \"a/b\" has '/'"),
            "{error}"
        );
        let error = error_of(
            "[[destination]]\nname = \"a\"\ntopics = [\"*\"]\nbroker = \"log:.\"\n\
             [[destination]]\nname = \"b\"\ntopics = [\"*\"]\nbroker = \"log:.\"\norder = \"kee\"\n",
        );
        assert_eq!(
            error,
            "outbox.toml:9:9: destination.order: unknown variant `kee`, expected `key` or `none`"
        );
    }

    #[test]
    fn a_syntax_error_is_refused_with_line_and_column() {
        let error = error_of("[store]\nurl = \"unfinished\n");
        assert!(error.starts_with("outbox.toml:2:"), "{error}");
    }

    #[test]
    fn a_missing_key_names_the_key_and_the_table() {
        let error = error_of("[store]\n\n[[destination]]\nname = \"a\"\ntopics = [\"*\"]\n");
        assert!(
            error.starts_with("outbox.toml:3:1: destination: missing field `broker`"),
            "{error}"
        );
    }

    #[test]
    fn a_secret_may_be_text_or_a_reference_but_not_two_references() {
        let path = Path::new("outbox.toml");
        let text = "[store]\nurl = { env = \"DATABASE_URL\" }\n";
        let file = Document { path, text }.parse().expect("valid");
        assert_eq!(
            file.store.url,
            Some(SecretRef::Env("DATABASE_URL".to_owned()))
        );
        assert!(error_of("[store]\nurl = { vault = \"x\" }\n").contains("unknown field `vault`"));
        assert!(error_of("[store]\nurl = { env = \"A\", file = \"b\" }\n").contains("not both"));
    }
}
