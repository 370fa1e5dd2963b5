//! `outbox topic` and `outbox group`: what is asked of a running broker.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::time::Moment;

/// Which running broker, and as whom.
#[derive(Debug, Args)]
pub struct Remote {
    /// Address of the broker [default: the one that `outbox broker` would advertise]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub broker: Option<String>,
    /// Encrypt the connection
    #[arg(long, global = true)]
    pub tls: bool,
    /// Encrypt it, and trust the authorities of this file instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Log in as this user, with the password in OUTBOX_BROKER_PASSWORD or outbox.toml
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
}

/// `outbox topic`
#[derive(Debug, Args)]
pub struct Topic {
    /// Which broker.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do.
    #[command(subcommand)]
    pub command: TopicCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// List all topics
    List,
    /// Create a topic
    Create(TopicCreate),
    /// Show a topic's partitions, offsets and settings
    Describe {
        /// The topic's name
        topic: String,
    },
    /// Change a topic's settings, or give it more partitions
    Alter(TopicAlter),
    /// Delete a topic with all its records
    Delete {
        /// The topic's name
        topic: String,
    },
}

/// `outbox topic create`
#[derive(Debug, Args)]
pub struct TopicCreate {
    /// The topic's name
    pub topic: String,
    /// How many partitions [default: the broker's]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// A setting, such as retention.ms=604800000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<KeyValue>,
}

/// `outbox topic alter`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(
    ["set", "unset", "partitions"]
))]
pub struct TopicAlter {
    /// The topic's name
    pub topic: String,
    /// A setting, such as retention.ms=604800000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<KeyValue>,
    /// A setting that goes back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    /// As many partitions from now on; keys go to other ones then
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
}

/// `outbox group`
#[derive(Debug, Args)]
pub struct Group {
    /// Which broker.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do.
    #[command(subcommand)]
    pub command: GroupCommand,
}

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups
    List,
    /// Show a group's members, and how far behind it is
    Describe {
        /// The group's id
        group: String,
    },
    /// Put a group without members somewhere else in a topic
    ResetOffsets(GroupReset),
    /// Delete a group without members, with all that it committed
    Delete {
        /// The group's id
        group: String,
    },
}

/// `outbox group reset-offsets`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(
    ["to_earliest", "to_latest", "to_offset", "to_time"]
))]
pub struct GroupReset {
    /// The group's id
    pub group: String,
    /// In this topic
    #[arg(long)]
    pub topic: String,
    /// In this partition only [default: all]
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// At the first record held
    #[arg(long)]
    pub to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    pub to_latest: bool,
    /// At this offset, or the nearest one that there is
    #[arg(long, value_name = "OFFSET")]
    pub to_offset: Option<i64>,
    /// At the first record since, as 1h or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub to_time: Option<Moment>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `key=value` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue(pub (String, String));

impl std::str::FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self((key.to_owned(), value.to_owned()))),
            _ => Err(format!("{text:?} is not KEY=VALUE")),
        }
    }
}
