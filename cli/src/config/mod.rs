//! Settings: flags over `OUTBOX_*` variables over `outbox.toml` over defaults.

mod access;
mod broker;
pub mod file;
pub mod setting;
pub mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outbox_core::{Destination, OnDead, Order, PageLimit, RetryPolicy, Start, limits};

use crate::exit::{Exit, Problem};
pub use broker::BrokerSettings;
use file::{DestinationSection, Document, File, FileError, RetrySection};
use outbox_relay::Schedule;
pub use setting::Setting;
pub use value::Secret;

/// Read when it is there and no other file was named.
pub const DEFAULT_FILE: &str = "outbox.toml";
/// Names the file to read.
pub const FILE_VARIABLE: &str = "OUTBOX_CONFIG";
/// Password with which `outbox topic` and `outbox group` log in at a broker: never on the command
/// line, where other users of the machine could read it.
pub const BROKER_PASSWORD_VARIABLE: &str = "OUTBOX_BROKER_PASSWORD";
/// Filter of the log on stderr, e.g. `info,outbox_relay=debug`.
pub const LOG_VARIABLE: &str = "OUTBOX_LOG";
/// The store when none is configured.
pub const DEFAULT_STORE: &str = "sqlite:./outbox-data/outbox.db";
/// The broker of the one destination when none is configured.
pub const DEFAULT_BROKER: &str = "log:./outbox-data/log";
/// The folder of the log that `outbox broker` serves when none is configured.
pub const DEFAULT_LOG: &str = "./outbox-data/log";

/// Everything a command may need, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// `[store]`
    pub store: StoreSettings,
    /// `[[destination]]`; when none is configured, one named `log` for all topics.
    pub destinations: Vec<DestinationSettings>,
    /// `[relay]`
    pub relay: RelaySettings,
    /// `[broker]`
    pub broker: BrokerSettings,
    /// `[maintenance]`
    pub maintenance: MaintenanceSettings,
    /// `[alerts]`
    pub alerts: Alerts,
    /// Where each setting came from, when it is not the default.
    pub origins: BTreeMap<&'static str, String>,
}

/// Where the store is.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `postgres://…` or `sqlite:path`.
    pub url: Secret,
    /// Schema of the outbox's tables, on Postgres.
    pub schema: String,
    /// The URL leads to a pooler in transaction mode, on Postgres.
    pub pooled: bool,
}

/// One destination and the secret part of its address.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// As the store knows it, its broker without secrets.
    pub destination: Destination,
    /// The broker's address in full.
    pub broker: Secret,
    /// Only a broker that stores no message twice will do.
    pub exactly_once: bool,
}

/// How the relay runs.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Its name among its peers; `None`: the host's name and a random part.
    pub name: Option<String>,
    /// Address of `/livez`, `/readyz` and `/metrics`; `None`: not served.
    pub listen: Option<SocketAddr>,
    /// That address may be one that is reachable from outside.
    pub allow_remote: bool,
    /// A relay that did not beat for so long is dead.
    pub lease_ttl: Duration,
    /// Where a page ends.
    pub page: PageLimit,
}

/// How the house is kept.
#[derive(Clone, Debug)]
pub struct MaintenanceSettings {
    /// How long messages stay readable once every destination is done with them.
    pub retention: Duration,
    /// When retention may empty partitions; `None`: in every round of house-keeping.
    pub schedule: Option<Schedule>,
}

/// Who is told.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// The log.
    pub log: bool,
    /// A URL that takes JSON.
    pub webhook: Option<Secret>,
    /// A URL that takes Slack's JSON.
    pub slack: Option<Secret>,
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: None,
            store: StoreSettings {
                url: Secret::new(DEFAULT_STORE),
                schema: "outbox".to_owned(),
                pooled: false,
            },
            destinations: vec![default_destination()],
            relay: RelaySettings {
                name: None,
                listen: None,
                allow_remote: false,
                lease_ttl: Duration::from_secs(5),
                page: PageLimit::default(),
            },
            broker: BrokerSettings::default(),
            maintenance: MaintenanceSettings {
                retention: Duration::from_secs(7 * 86_400),
                schedule: None,
            },
            alerts: Alerts {
                log: true,
                webhook: None,
                slack: None,
                command: None,
            },
            origins: BTreeMap::new(),
        }
    }
}

fn default_destination() -> DestinationSettings {
    let all = "*".parse().expect("a star is a pattern");
    DestinationSettings {
        destination: Destination {
            name: "log".to_owned(),
            patterns: vec![all],
            broker: DEFAULT_BROKER.to_owned(),
            order: Order::Key,
            on_dead: OnDead::BlockKey,
            retry: RetryPolicy::default(),
            start: Start::Beginning,
            paused: false,
        },
        broker: Secret::new(DEFAULT_BROKER),
        exactly_once: false,
    }
}

/// What stands above the file: the process's variables and the command's flags.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`
    pub file: Option<PathBuf>,
    /// Variables of the environment.
    pub variables: BTreeMap<String, String>,
    /// Flag, setting and value, for each flag that was given.
    pub flags: Vec<(&'static str, Setting, String)>,
}

impl Settings {
    /// Reads all layers.
    ///
    /// # Errors
    /// [`Exit::Config`], naming the file with line and column, the variable or the flag.
    pub fn load(overrides: &Overrides) -> Result<Self, Problem> {
        Self::layered(overrides)
            .map_err(|text| Problem::new(Exit::Config, format!("read the configuration: {text}")))
    }

    fn layered(overrides: &Overrides) -> Result<Self, String> {
        let mut settings = Self::default();
        if let Some((path, text)) = find_file(overrides)? {
            settings.read_file(&path, &text, &overrides.variables)?;
            settings.file = Some(path);
        }
        for setting in Setting::ALL {
            let variable = setting.variable();
            if let Some(value) = overrides.variables.get(&variable) {
                settings.set_from(&variable, setting, value)?;
            }
        }
        for (flag, setting, value) in &overrides.flags {
            settings.set_from(flag, *setting, value)?;
        }
        crate::store::StoreUrl::parse(settings.store.url.expose())?;
        Ok(settings)
    }

    fn set_from(&mut self, source: &str, setting: Setting, value: &str) -> Result<(), String> {
        setting
            .set(self, value)
            .map_err(|e| format!("{source}: {e}"))?;
        self.origins.insert(setting.key(), source.to_owned());
        Ok(())
    }

    fn read_file(
        &mut self,
        path: &Path,
        text: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let document = Document { path, text };
        let file = document.parse().map_err(|e| e.to_string())?;
        let origin = path.display().to_string();
        self.origins
            .extend(file.given().map(|setting| (setting.key(), origin.clone())));
        let mut reader = Reader {
            document,
            variables,
            settings: self,
        };
        reader.destinations(&file.destination)?;
        reader.sections(file)
    }
}

/// The file's text, its path, or nothing when none was named and the default one is not there.
fn find_file(overrides: &Overrides) -> Result<Option<(PathBuf, String)>, String> {
    let named = overrides.file.clone().or_else(|| {
        overrides
            .variables
            .get(FILE_VARIABLE)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    });
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match std::fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some((path, text))),
            Err(e) => Err(format!(
                "{} is not UTF-8 at byte {}",
                path.display(),
                e.utf8_error().valid_up_to()
            )),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// Moves one file's values into the settings.
struct Reader<'a> {
    document: Document<'a>,
    variables: &'a BTreeMap<String, String>,
    settings: &'a mut Settings,
}

impl Reader<'_> {
    fn sections(&mut self, file: File) -> Result<(), String> {
        if let Some(url) = &file.store.url {
            self.settings.store.url = self.secret("store.url", url)?;
        }
        if let Some(text) = &file.store.schema {
            self.settings.store.schema =
                setting::schema(text).map_err(|e| format!("{}: {e}", self.path()))?;
        }
        if let Some(pooled) = file.store.pooled {
            self.settings.store.pooled = pooled;
        }
        self.relay(file.relay)?;
        self.broker(file.broker)?;
        self.maintenance(file.maintenance)?;
        self.alerts(file.alerts)
    }

    fn relay(&mut self, section: file::RelaySection) -> Result<(), String> {
        if let Some(name) = section.name {
            self.settings.relay.name = Some(name.0);
        }
        self.settings.relay.listen = section.listen.or(self.settings.relay.listen);
        if let Some(allow) = section.allow_remote {
            self.settings.relay.allow_remote = allow;
        }
        let mut relay = self.settings.relay.clone();
        self.put(&mut relay.lease_ttl, section.lease_ttl, setting::lease_ttl)?;
        self.put(&mut relay.page.rows, section.page_rows, setting::page_rows)?;
        self.put(
            &mut relay.page.bytes,
            section.page_bytes,
            setting::page_bytes,
        )?;
        self.settings.relay = relay;
        Ok(())
    }

    fn maintenance(&mut self, section: file::MaintenanceSection) -> Result<(), String> {
        if let Some(retention) = section.retention {
            self.settings.maintenance.retention = retention.0;
        }
        if let Some(schedule) = section.schedule {
            self.settings.maintenance.schedule =
                Some(self.checked(schedule.span().start, setting::schedule(schedule.get_ref()))?);
        }
        Ok(())
    }

    fn alerts(&mut self, section: file::AlertsSection) -> Result<(), String> {
        if let Some(log) = section.log {
            self.settings.alerts.log = log;
        }
        if let Some(url) = &section.webhook {
            self.settings.alerts.webhook = Some(self.web_address("alerts.webhook", url)?);
        }
        if let Some(url) = &section.slack {
            self.settings.alerts.slack = Some(self.web_address("alerts.slack", url)?);
        }
        if let Some(command) = section.command {
            if command.get_ref().is_empty() {
                let text = "command is empty: give a program and its arguments";
                return Err(self.document.error(command.span().start, text).to_string());
            }
            self.settings.alerts.command = Some(command.into_inner());
        }
        Ok(())
    }

    fn destinations(&mut self, sections: &[DestinationSection]) -> Result<(), String> {
        let mut read: Vec<DestinationSettings> = Vec::with_capacity(sections.len());
        for section in sections {
            let name = &section.name.get_ref().0;
            if read.iter().any(|d| d.destination.name == *name) {
                let text = format!("a second destination is named {name:?}");
                return Err(self
                    .document
                    .error(section.name.span().start, text)
                    .to_string());
            }
            read.push(self.destination(section)?);
        }
        if !read.is_empty() {
            self.settings.destinations = read;
        }
        Ok(())
    }

    fn destination(&self, section: &DestinationSection) -> Result<DestinationSettings, String> {
        let name = section.name.get_ref().0.clone();
        let broker = self.secret(
            &format!("the broker of destination {name:?}"),
            &section.broker,
        )?;
        let topics = section.topics.get_ref();
        if topics.is_empty() || topics.len() > limits::PATTERNS_MAX {
            let (count, limit) = (topics.len(), limits::PATTERNS_MAX);
            let text = format!("topics has {count} patterns, allowed are 1 to {limit}");
            return Err(self
                .document
                .error(section.topics.span().start, text)
                .to_string());
        }
        let destination = Destination {
            name,
            patterns: topics.clone(),
            broker: broker.masked_url(),
            order: section.order,
            on_dead: section.on_dead,
            retry: self.retry(&section.retry).map_err(|e| e.to_string())?,
            start: section.start.map(|s| s.0).unwrap_or_default(),
            paused: section.paused,
        };
        Ok(DestinationSettings {
            destination,
            broker,
            exactly_once: section.exactly_once,
        })
    }

    fn retry(&self, section: &RetrySection) -> Result<RetryPolicy, FileError> {
        let default = RetryPolicy::default();
        let in_range = |value: &Option<toml::Spanned<f64>>, name: &str, min: f64, max: f64| {
            let Some(value) = value else { return Ok(None) };
            let (number, at) = (*value.get_ref(), value.span().start);
            match (min..=max).contains(&number) {
                true => Ok(Some(number)),
                false => Err(self.document.error(
                    at,
                    format!("{name} is {number}, allowed are {min} to {max}"),
                )),
            }
        };
        Ok(RetryPolicy {
            initial: section.initial.map_or(default.initial, |s| s.0),
            max: section.max.map_or(default.max, |s| s.0),
            multiplier: in_range(&section.multiplier, "multiplier", 1.0, 100.0)?
                .unwrap_or(default.multiplier),
            jitter: in_range(&section.jitter, "jitter", 0.0, 1.0)?.unwrap_or(default.jitter),
            max_attempts: match section.max_attempts {
                None => default.max_attempts,
                Some(0) => None,
                some => some,
            },
            max_age: section.max_age.map(|s| s.0),
        })
    }

    fn secret(&self, setting: &str, reference: &value::SecretRef) -> Result<Secret, String> {
        reference
            .resolve(setting, |name| self.variables.get(name).cloned())
            .map_err(|e| format!("{}: {e}", self.path()))
    }

    fn web_address(&self, name: &str, reference: &value::SecretRef) -> Result<Secret, String> {
        setting::http_url(self.secret(name, reference)?)
            .map_err(|e| format!("{}: {name} {e}", self.path()))
    }

    /// Puts a checked value in the place of a default, if the file has one.
    fn put<W, T>(
        &self,
        place: &mut T,
        written: Option<toml::Spanned<W>>,
        check: impl Fn(W) -> Result<T, String>,
    ) -> Result<(), String> {
        if let Some(written) = written {
            let at = written.span().start;
            *place = self.checked(at, check(written.into_inner()))?;
        }
        Ok(())
    }

    fn checked<T>(&self, at: usize, value: Result<T, String>) -> Result<T, String> {
        value.map_err(|e| self.document.error(at, e).to_string())
    }

    fn path(&self) -> std::path::Display<'_> {
        self.document.path.display()
    }
}
