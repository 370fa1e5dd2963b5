//! `[broker]`: how `outbox broker` serves the bundled log, as written and as checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use outbox_broker::limits::{
    CONNECTIONS_LIMIT, CONNECTIONS_MAX, REQUEST_BYTES_LIMIT, REQUEST_BYTES_MAX, REQUEST_BYTES_MIN,
};
use outbox_broker::{Advertised, SecurityOptions};
use outbox_log_broker::limits::PARTITIONS_MAX;
use outbox_log_broker::{LogOptions, TopicOptions};
use serde::Deserialize;
use toml::Spanned;

use super::access::{self, AllowSection, TlsSection, UserSection};
use super::setting::{Setting, address, boolean, number};
use super::value::{SecretRef, Span};
use super::{DEFAULT_LOG, Reader};

/// How long the first member of a consumer group waits for others, when nobody says otherwise:
/// Kafka's default.
const GROUP_INITIAL_DELAY: Duration = Duration::from_secs(3);
/// Shortest length of time after which something is forgotten, given up or removed: below it, what
/// is in use would go.
const TIME_MIN: Duration = Duration::from_secs(1);
/// Longest timeout of a transaction: clients give it as an i32 of milliseconds.
const TRANSACTION_TIMEOUT_LIMIT: Duration = Duration::from_secs(24 * 86_400);
/// Longest of the others (ten years): it only keeps a mistyped number from meaning "never".
const TIME_LIMIT: Duration = Duration::from_secs(3_650 * 86_400);

/// `[broker]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// Folder of the log.
    pub data_dir: Option<PathBuf>,
    /// Where clients connect.
    pub listen: Option<SocketAddr>,
    /// Host and port that clients are told.
    pub advertise: Option<Spanned<String>>,
    /// Serve anybody who reaches an address that is reachable from outside.
    pub allow_anonymous_network: Option<bool>,
    /// A topic that a client asks for comes into being.
    pub auto_create_topics: Option<bool>,
    /// Partitions of a topic.
    pub partitions: Option<Spanned<usize>>,
    /// How long a new topic keeps records.
    pub retention: Option<Spanned<Span>>,
    /// How many bytes a partition of a new topic keeps.
    pub retention_bytes: Option<Spanned<usize>>,
    /// Records of a new topic go when they expire.
    pub expire: Option<bool>,
    /// Connections at a time.
    pub connections_max: Option<Spanned<usize>>,
    /// Largest request.
    pub request_bytes_max: Option<Spanned<usize>>,
    /// How long the first member of a group waits for others.
    pub group_initial_delay: Option<Span>,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub http_listen: Option<SocketAddr>,
    /// That address may be one that is reachable from outside.
    pub http_allow_remote: Option<bool>,
    /// The longest timeout that a transaction may ask for.
    pub transaction_timeout_max: Option<Spanned<Span>>,
    /// When a transactional id that is idle is forgotten.
    pub transactional_id_expiry: Option<Spanned<Span>>,
    /// When a producer that is idle is forgotten.
    pub producer_expiry: Option<Spanned<Span>>,
    /// `[broker.tls]`
    pub tls: Option<TlsSection>,
    /// `[[broker.user]]`
    pub user: Vec<UserSection>,
    /// `[[broker.allow]]`
    pub allow: Vec<AllowSection>,
}

impl BrokerSection {
    /// Which settings it gives.
    pub fn given(&self) -> impl Iterator<Item = (Setting, bool)> {
        [
            (Setting::BrokerDataDir, self.data_dir.is_some()),
            (Setting::BrokerListen, self.listen.is_some()),
            (Setting::BrokerAdvertise, self.advertise.is_some()),
            (
                Setting::BrokerAllowAnonymousNetwork,
                self.allow_anonymous_network.is_some(),
            ),
            (
                Setting::BrokerAutoCreateTopics,
                self.auto_create_topics.is_some(),
            ),
            (Setting::BrokerPartitions, self.partitions.is_some()),
            (Setting::BrokerRetention, self.retention.is_some()),
            (
                Setting::BrokerRetentionBytes,
                self.retention_bytes.is_some(),
            ),
            (Setting::BrokerExpire, self.expire.is_some()),
            (
                Setting::BrokerConnectionsMax,
                self.connections_max.is_some(),
            ),
            (
                Setting::BrokerRequestBytesMax,
                self.request_bytes_max.is_some(),
            ),
            (
                Setting::BrokerGroupInitialDelay,
                self.group_initial_delay.is_some(),
            ),
            (Setting::BrokerHttpListen, self.http_listen.is_some()),
            (
                Setting::BrokerHttpAllowRemote,
                self.http_allow_remote.is_some(),
            ),
            (
                Setting::BrokerTransactionTimeoutMax,
                self.transaction_timeout_max.is_some(),
            ),
            (
                Setting::BrokerTransactionalIdExpiry,
                self.transactional_id_expiry.is_some(),
            ),
            (
                Setting::BrokerProducerExpiry,
                self.producer_expiry.is_some(),
            ),
        ]
        .into_iter()
    }
}

/// How `outbox broker` serves the bundled log.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// The log's folder.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What clients are told to connect to; `None`: the address above.
    pub advertise: Option<Advertised>,
    /// Whoever reaches the address may do everything.
    pub allow_anonymous_network: bool,
    /// A topic that a client asks for comes into being.
    pub auto_create_topics: bool,
    /// Partitions of a topic when nobody says otherwise.
    pub partitions: u32,
    /// How long a topic keeps records when nobody says otherwise; `None`: for ever.
    pub retention: Option<Duration>,
    /// How many bytes each of its partitions keeps; `None`: no bound.
    pub retention_bytes: Option<u64>,
    /// Whether its records go when they expire.
    pub expire: bool,
    /// Connections at a time.
    pub connections_max: usize,
    /// Largest request.
    pub request_bytes_max: usize,
    /// How long the first member of a group waits for others.
    pub group_initial_delay: Duration,
    /// Address of `/livez`, `/readyz` and `/metrics`; `None`: not served.
    pub http_listen: Option<SocketAddr>,
    /// That address may be one that is reachable from outside.
    pub http_allow_remote: bool,
    /// The longest timeout that a transaction may ask for.
    pub transaction_timeout_max: Duration,
    /// When a transactional id that is idle is forgotten.
    pub transactional_id_expiry: Duration,
    /// When a producer that is idle is forgotten.
    pub producer_expiry: Duration,
    /// Who may connect, and what for.
    pub security: SecurityOptions,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        let (log, topic) = (LogOptions::new(DEFAULT_LOG), TopicOptions::default());
        Self {
            data_dir: log.dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            advertise: None,
            allow_anonymous_network: false,
            auto_create_topics: true,
            partitions: topic.partitions,
            retention: topic.retention_ms.map(Duration::from_millis),
            retention_bytes: topic.retention_bytes,
            expire: topic.expire,
            connections_max: CONNECTIONS_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            group_initial_delay: GROUP_INITIAL_DELAY,
            http_listen: None,
            http_allow_remote: false,
            transaction_timeout_max: log.transaction_timeout_max,
            transactional_id_expiry: log.transactional_id_expiry,
            producer_expiry: log.producer_expiry,
            security: SecurityOptions::default(),
        }
    }
}

impl BrokerSettings {
    /// Sets one of them from text; answers whether it is one of them.
    ///
    /// # Errors
    /// What is wrong with the text, and what is allowed.
    pub fn set(&mut self, setting: Setting, text: &str) -> Result<bool, String> {
        match setting {
            Setting::BrokerDataDir => self.data_dir = text.into(),
            Setting::BrokerListen => self.listen = address(text)?,
            Setting::BrokerAdvertise => self.advertise = Some(text.parse()?),
            Setting::BrokerAllowAnonymousNetwork => self.allow_anonymous_network = boolean(text)?,
            Setting::BrokerAutoCreateTopics => self.auto_create_topics = boolean(text)?,
            Setting::BrokerPartitions => self.partitions = partitions(number(text)?)?,
            Setting::BrokerRetention => self.retention = Some(retention(text.parse()?)?),
            Setting::BrokerRetentionBytes => {
                self.retention_bytes = Some(retention_bytes(number(text)?)?);
            }
            Setting::BrokerExpire => self.expire = boolean(text)?,
            Setting::BrokerConnectionsMax => self.connections_max = connections_max(number(text)?)?,
            Setting::BrokerRequestBytesMax => {
                self.request_bytes_max = request_bytes_max(number(text)?)?;
            }
            Setting::BrokerGroupInitialDelay => {
                self.group_initial_delay = text.parse::<Span>()?.0;
            }
            Setting::BrokerHttpListen => self.http_listen = Some(address(text)?),
            Setting::BrokerHttpAllowRemote => self.http_allow_remote = boolean(text)?,
            Setting::BrokerTransactionTimeoutMax => {
                self.transaction_timeout_max = transaction_timeout_max(text.parse()?)?;
            }
            Setting::BrokerTransactionalIdExpiry => {
                self.transactional_id_expiry = transactional_id_expiry(text.parse()?)?;
            }
            Setting::BrokerProducerExpiry => self.producer_expiry = producer_expiry(text.parse()?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Reader<'_> {
    /// Moves the section's values into the settings.
    pub(super) fn broker(&mut self, section: BrokerSection) -> Result<(), String> {
        let mut broker = self.settings.broker.clone();
        let secret = |setting: &str, secret: &SecretRef| {
            secret.resolve(setting, |name| self.variables.get(name).cloned())
        };
        let security = access::security(section.tls, &section.user, section.allow, secret);
        broker.security = security.map_err(|error| format!("{}: {error}", self.path()))?;

        put(&mut broker.data_dir, section.data_dir);
        put(&mut broker.listen, section.listen);
        put(
            &mut broker.allow_anonymous_network,
            section.allow_anonymous_network,
        );
        put(&mut broker.auto_create_topics, section.auto_create_topics);
        put(&mut broker.expire, section.expire);
        let delay = section.group_initial_delay.map(|span| span.0);
        put(&mut broker.group_initial_delay, delay);
        broker.http_listen = section.http_listen.or(broker.http_listen);
        put(&mut broker.http_allow_remote, section.http_allow_remote);

        let advertise = |text: String| text.parse().map(Some);
        self.put(&mut broker.advertise, section.advertise, advertise)?;
        self.put(&mut broker.partitions, section.partitions, partitions)?;
        let some = |span| retention(span).map(Some);
        self.put(&mut broker.retention, section.retention, some)?;
        let some = |bytes| retention_bytes(bytes).map(Some);
        self.put(&mut broker.retention_bytes, section.retention_bytes, some)?;
        self.put(
            &mut broker.connections_max,
            section.connections_max,
            connections_max,
        )?;
        self.put(
            &mut broker.request_bytes_max,
            section.request_bytes_max,
            request_bytes_max,
        )?;
        self.put(
            &mut broker.transaction_timeout_max,
            section.transaction_timeout_max,
            transaction_timeout_max,
        )?;
        self.put(
            &mut broker.transactional_id_expiry,
            section.transactional_id_expiry,
            transactional_id_expiry,
        )?;
        self.put(
            &mut broker.producer_expiry,
            section.producer_expiry,
            producer_expiry,
        )?;
        self.settings.broker = broker;
        Ok(())
    }
}

/// Puts a value in the place of a default, if there is one.
fn put<T>(place: &mut T, written: Option<T>) {
    if let Some(value) = written {
        *place = value;
    }
}

fn partitions(count: usize) -> Result<u32, String> {
    // Out of the bounds whatever it is, when it is no u32.
    let number = u32::try_from(count).unwrap_or(u32::MAX);
    within("partitions", count, 1, PARTITIONS_MAX as usize).map(|_| number)
}

fn retention(span: Span) -> Result<Duration, String> {
    within("retention", span.0, TIME_MIN, TIME_LIMIT)
}

fn retention_bytes(bytes: usize) -> Result<u64, String> {
    within("retention_bytes", bytes, 1, i64::MAX as usize).map(|bytes| bytes as u64)
}

fn connections_max(count: usize) -> Result<usize, String> {
    within("connections_max", count, 1, CONNECTIONS_LIMIT)
}

fn request_bytes_max(bytes: usize) -> Result<usize, String> {
    within(
        "request_bytes_max",
        bytes,
        REQUEST_BYTES_MIN,
        REQUEST_BYTES_LIMIT,
    )
}

fn transaction_timeout_max(span: Span) -> Result<Duration, String> {
    within(
        "transaction_timeout_max",
        span.0,
        TIME_MIN,
        TRANSACTION_TIMEOUT_LIMIT,
    )
}

fn transactional_id_expiry(span: Span) -> Result<Duration, String> {
    within("transactional_id_expiry", span.0, TIME_MIN, TIME_LIMIT)
}

fn producer_expiry(span: Span) -> Result<Duration, String> {
    within("producer_expiry", span.0, TIME_MIN, TIME_LIMIT)
}

fn within<T: PartialOrd + std::fmt::Debug>(
    name: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, String> {
    match (&min..=&max).contains(&&value) {
        true => Ok(value),
        false => Err(format!(
            "{name} is {value:?}, allowed are {min:?} to {max:?}"
        )),
    }
}
