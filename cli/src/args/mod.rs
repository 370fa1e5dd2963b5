//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use outbox_core::DeliveryState;
use uuid::Uuid;

use crate::config::{Overrides, Setting};
use crate::time::Moment;

mod remote;

pub use remote::{
    Group, GroupCommand, GroupReset, Remote, Topic, TopicAlter, TopicCommand, TopicCreate,
};

/// Transactional outbox: commits a message with your row, delivers it, applies it once.
#[derive(Debug, Parser)]
#[command(
    name = "outbox",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file [default: outbox.toml when it is there; variable: OUTBOX_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Store, as postgres://user@host/database or sqlite:path [variable: OUTBOX_STORE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub store: Option<String>,
    /// Schema of the outbox's tables on Postgres [variable: OUTBOX_STORE_SCHEMA]
    #[arg(long, global = true, value_name = "NAME")]
    pub schema: Option<String>,
    /// Print one JSON document instead of text; errors become JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a little system in this process, kill its relay on the way, and show the ledger
    Demo(Demo),
    /// Deliver what is pending, until SIGTERM or SIGINT
    Relay(Relay),
    /// Serve the bundled log to Kafka clients, until SIGTERM or SIGINT
    Broker(Broker),
    /// List, create, change and delete topics of a running broker
    Topic(Topic),
    /// Look at consumer groups of a running broker, move or delete them
    Group(Group),
    /// Create or upgrade the schema
    Migrate,
    /// Enqueue a file of JSON lines; repeated after a kill, go on where it stopped
    Send(Send),
    /// Show backlog, age and exceptions of each destination
    Status,
    /// Look at messages that did not go through, and decide about them
    #[command(subcommand)]
    Dead(Dead),
    /// Send messages again, whatever became of them
    Resend(Resend),
    /// Declare that this store, a copy or promotion, is now the one
    Adopt,
    /// Look for everything that is known to hurt
    Doctor,
    /// Look into the folder of the bundled log; nothing in it is changed
    #[command(subcommand)]
    Log(LogCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
}

/// `outbox demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Order transactions to try
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub orders: u32,
    /// Deliver to the broker there, as log://127.0.0.1:9092, into a topic of the demo's own which is
    /// deleted in the end [default: a log in this process]
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Seed of customers, amounts, roll-backs and kills [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
}

/// `outbox relay`
#[derive(Debug, Default, Args)]
pub struct Relay {
    /// Name of this relay among its peers [default: host and a random part]
    #[arg(long)]
    pub name: Option<String>,
    /// Serve /livez, /readyz and /metrics here, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// A relay that did not beat for so long is dead [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub lease_ttl: Option<String>,
    /// Most messages of a page
    #[arg(long, value_name = "ROWS")]
    pub page_rows: Option<String>,
    /// Most payload bytes of a page
    #[arg(long, value_name = "BYTES")]
    pub page_bytes: Option<String>,
    /// How long messages stay readable once delivered [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
}

/// `outbox broker`
#[derive(Debug, Default, Args)]
pub struct Broker {
    /// Folder of the log; created when it is not there [default: ./outbox-data/log]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where clients connect; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Host and port that clients are told to connect to [default: the address of --listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Partitions of a topic when the client names no number [default: 16]
    #[arg(long, value_name = "COUNT")]
    pub partitions: Option<String>,
    /// How long a topic keeps records when the client names no time [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
    /// Serve /livez, /readyz and /metrics here, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Serve anybody who reaches an address other than a loopback one, without authentication
    #[arg(long)]
    pub allow_anonymous_network: bool,
}

/// `outbox send`
#[derive(Debug, Args)]
pub struct Send {
    /// File with one JSON object a line; - for stdin
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Topic of every message
    #[arg(
        long,
        required_unless_present = "topic_field",
        conflicts_with = "topic_field"
    )]
    pub topic: Option<String>,
    /// Field that holds each message's topic; /a/b for a nested one
    #[arg(long, value_name = "FIELD")]
    pub topic_field: Option<String>,
    /// Stands before what --topic-field holds
    #[arg(long, value_name = "TEXT", requires = "topic_field")]
    pub topic_prefix: Option<String>,
    /// Makes what --topic-field holds lower-case
    #[arg(long, requires = "topic_field")]
    pub topic_lowercase: bool,
    /// Field that holds each message's key; null is no key; /a/b for a nested one
    #[arg(long, value_name = "FIELD")]
    pub key_field: Option<String>,
    /// A value of --key-field that stands for "no key", such as NA
    #[arg(long, value_name = "VALUE", requires = "key_field")]
    pub key_none: Option<String>,
}

/// `outbox dead`
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// What the outbox could not send.
    #[command(flatten)]
    Messages(DeadMessages),
    /// What a consumer could not apply.
    #[command(flatten)]
    Letters(Letters),
}

/// The sub-commands about messages of the outbox.
#[derive(Debug, Subcommand)]
pub enum DeadMessages {
    /// List messages that did not go through
    List(DeadList),
    /// Show one message and its state at every destination
    Show {
        /// The message's id
        id: Uuid,
    },
    /// Give dead messages a fresh set of attempts
    Resend(DeadSelection),
    /// Give dead messages up; their keys go on
    Discard(DeadSelection),
    /// Leave dead messages dead, but let their keys go on
    Unblock(DeadSelection),
}

/// The sub-commands about records that a consumer gave up.
#[derive(Debug, Subcommand)]
pub enum Letters {
    /// List the records that consumers gave up, from the inbox in the store
    #[command(name = "letters")]
    List(LettersList),
    /// Show one of them, with what it says
    #[command(name = "letter")]
    Show {
        /// Its id, from the list
        id: i64,
    },
    /// Put records back at the end of their topics, and forget their dead letters
    Redrive(Redrive),
}

/// `outbox dead redrive`
#[derive(Debug, Args)]
pub struct Redrive {
    /// The dead letters' ids, from the list
    #[arg(required = true)]
    pub ids: Vec<i64>,
    /// The log that the consumer reads: log:path or log://host:port
    #[arg(long, value_name = "URL")]
    pub broker: String,
}

/// `outbox dead letters`
#[derive(Debug, Args)]
pub struct LettersList {
    /// Of this consumer only
    #[arg(long)]
    pub consumer: Option<String>,
    /// Also those whose message was sent again and applied since
    #[arg(long)]
    pub all: bool,
    /// Behind this id: the last one of the page before
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub after: i64,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// `outbox dead list`
#[derive(Debug, Args)]
pub struct DeadList {
    /// Of this destination only
    #[arg(long, short)]
    pub destination: Option<String>,
    /// Which ones
    #[arg(long, value_enum, default_value_t = State::Dead)]
    pub state: State,
    /// Behind this seq: the last one of the page before
    #[arg(long, value_name = "SEQ")]
    pub after: Option<i64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// States of a delivery row, and all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Failed for good
    Dead,
    /// Tried again later
    Retrying,
    /// Waits behind an earlier message of its key
    Parked,
    /// Not due yet
    Scheduled,
    /// Not delivered in time
    Expired,
    /// All of these
    All,
}

impl State {
    /// For the store; `None` for all.
    pub fn delivery(self) -> Option<DeliveryState> {
        match self {
            Self::Dead => Some(DeliveryState::Dead),
            Self::Retrying => Some(DeliveryState::Retrying),
            Self::Parked => Some(DeliveryState::Parked),
            Self::Scheduled => Some(DeliveryState::Scheduled),
            Self::Expired => Some(DeliveryState::Expired),
            Self::All => None,
        }
    }
}

/// Which dead messages.
#[derive(Debug, Args)]
pub struct DeadSelection {
    /// At this destination
    #[arg(long, short)]
    pub destination: String,
    /// These messages
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<Uuid>,
    /// Every dead one of the destination
    #[arg(long)]
    pub all: bool,
    /// With --all: created since, as 1h or 2026-01-31T12:00:00Z
    #[arg(long, requires = "all", value_name = "TIME")]
    pub since: Option<Moment>,
    /// With --all: created before
    #[arg(long, requires = "all", value_name = "TIME")]
    pub until: Option<Moment>,
    /// With --all: expired ones as well
    #[arg(long, requires = "all")]
    pub expired: bool,
}

/// `outbox resend`
#[derive(Debug, Args)]
pub struct Resend {
    /// To this destination
    #[arg(long, short)]
    pub destination: String,
    /// These messages
    #[arg(required_unless_present = "since", conflicts_with = "since")]
    pub ids: Vec<Uuid>,
    /// All that were created since, as 1h or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// With --since: created before [default: now]
    #[arg(long, requires = "since", value_name = "TIME")]
    pub until: Option<Moment>,
}

/// `outbox log`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print the last records of a topic, as of now
    Tail(LogTail),
    /// Look for the records of a message or a key
    Find(LogFind),
    /// Check every byte of a log that is not open
    Verify(LogFolder),
}

/// Where a log is.
#[derive(Debug, Args)]
pub struct LogFolder {
    /// The log's folder
    #[arg(long, value_name = "FOLDER", default_value = "outbox-data/log")]
    pub dir: PathBuf,
}

/// `outbox log tail`
#[derive(Debug, Args)]
pub struct LogTail {
    #[command(flatten)]
    pub folder: LogFolder,
    /// Of this topic
    #[arg(long, short)]
    pub topic: String,
    /// Of this partition only
    #[arg(long, short)]
    pub partition: Option<u32>,
    /// So many records
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub lines: u32,
}

/// `outbox log find`
#[derive(Debug, Args)]
pub struct LogFind {
    #[command(flatten)]
    pub folder: LogFolder,
    /// The message's id: the header ce_id
    #[arg(long, required_unless_present = "key", conflicts_with = "key")]
    pub id: Option<String>,
    /// The record's key
    #[arg(long)]
    pub key: Option<String>,
    /// In this topic only
    #[arg(long, short)]
    pub topic: Option<String>,
    /// Not older than this, as 1h or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// `outbox config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Read every layer and print what is in force
    Check,
}

impl Cli {
    /// The flags that override settings, with the process's variables below them.
    pub fn overrides(&self, variables: impl Iterator<Item = (String, String)>) -> Overrides {
        let mut flags = Vec::new();
        let mut add = |flag, setting, value: &Option<String>| {
            flags.extend(value.clone().map(|value| (flag, setting, value)));
        };
        add("--store", Setting::StoreUrl, &self.global.store);
        add("--schema", Setting::StoreSchema, &self.global.schema);
        if let Command::Relay(relay) = &self.command {
            add("--name", Setting::RelayName, &relay.name);
            add("--listen", Setting::RelayListen, &relay.listen);
            add("--lease-ttl", Setting::RelayLeaseTtl, &relay.lease_ttl);
            add("--page-rows", Setting::RelayPageRows, &relay.page_rows);
            add("--page-bytes", Setting::RelayPageBytes, &relay.page_bytes);
            add(
                "--retention",
                Setting::MaintenanceRetention,
                &relay.retention,
            );
        }
        if let Command::Broker(broker) = &self.command {
            add("--data-dir", Setting::BrokerDataDir, &broker.data_dir);
            add("--listen", Setting::BrokerListen, &broker.listen);
            add("--advertise", Setting::BrokerAdvertise, &broker.advertise);
            add(
                "--partitions",
                Setting::BrokerPartitions,
                &broker.partitions,
            );
            add("--retention", Setting::BrokerRetention, &broker.retention);
            add(
                "--http-listen",
                Setting::BrokerHttpListen,
                &broker.http_listen,
            );
            let allowed = broker.allow_anonymous_network.then(|| true.to_string());
            add(
                "--allow-anonymous-network",
                Setting::BrokerAllowAnonymousNetwork,
                &allowed,
            );
        }
        Overrides {
            file: self.global.config.clone(),
            variables: variables.collect(),
            flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides_in_every_position() {
        let cli = Cli::parse_from(["outbox", "relay", "--listen", "127.0.0.1:1", "--store", "x"]);
        let overrides = cli.overrides(std::iter::empty());
        let flags: Vec<_> = overrides.flags.iter().map(|(flag, ..)| *flag).collect();
        assert_eq!(flags, ["--store", "--listen"]);
    }
}
