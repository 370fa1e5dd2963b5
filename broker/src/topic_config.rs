//! A topic's options under the names and in the words that Kafka gives them.

use outbox_log_broker::{Cleanup, Flush, Timestamps, TopicOptions};

/// One setting of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicConfig {
    CleanupPolicy,
    RetentionMs,
    RetentionBytes,
    SegmentBytes,
    MaxMessageBytes,
    TimestampType,
    DeleteRetentionMs,
    MinCompactionLagMs,
    Flush,
    Expire,
}

/// How a value is to be understood, as the numbers of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Why a setting was not made.
pub(crate) type Invalid = String;

/// Settings of Kafka that have no meaning here, with the value that describes what is. Setting one
/// is accepted, so that programs made for Kafka start, and changes nothing.
pub(crate) const WITHOUT_EFFECT: &[(&str, &str, Kind)] = &[
    // Batches are stored as they come.
    ("compression.type", "producer", Kind::String),
    ("compression.gzip.level", "-1", Kind::Int),
    ("compression.lz4.level", "9", Kind::Int),
    ("compression.zstd.level", "3", Kind::Int),
    // One replica, which is in sync.
    ("min.insync.replicas", "1", Kind::Int),
    ("unclean.leader.election.enable", "false", Kind::Boolean),
    ("leader.replication.throttled.replicas", "", Kind::List),
    ("follower.replication.throttled.replicas", "", Kind::List),
    // The `flush` setting says when records are synced.
    ("flush.messages", "1", Kind::Long),
    ("flush.ms", "0", Kind::Long),
    // Segments are closed by size, their files removed with the next checkpoint.
    ("segment.ms", "9223372036854775807", Kind::Long),
    ("segment.jitter.ms", "0", Kind::Long),
    ("segment.index.bytes", "10485760", Kind::Int),
    ("index.interval.bytes", "65536", Kind::Int),
    ("file.delete.delay.ms", "0", Kind::Long),
    ("preallocate", "false", Kind::Boolean),
    // Compaction decides by itself when it pays.
    ("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    ("max.compaction.lag.ms", "9223372036854775807", Kind::Long),
    // Producers may give any time, and there is one format of records.
    (
        "message.timestamp.difference.max.ms",
        "9223372036854775807",
        Kind::Long,
    ),
    (
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        Kind::Long,
    ),
    (
        "message.timestamp.after.max.ms",
        "9223372036854775807",
        Kind::Long,
    ),
    ("message.downconversion.enable", "false", Kind::Boolean),
    ("message.format.version", "3.0-IV1", Kind::String),
];

impl TopicConfig {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::CleanupPolicy,
        Self::RetentionMs,
        Self::RetentionBytes,
        Self::SegmentBytes,
        Self::MaxMessageBytes,
        Self::TimestampType,
        Self::DeleteRetentionMs,
        Self::MinCompactionLagMs,
        Self::Flush,
        Self::Expire,
    ];

    /// Kafka's name for it; `flush` and `expire` are our own.
    pub fn name(self) -> &'static str {
        match self {
            Self::CleanupPolicy => "cleanup.policy",
            Self::RetentionMs => "retention.ms",
            Self::RetentionBytes => "retention.bytes",
            Self::SegmentBytes => "segment.bytes",
            Self::MaxMessageBytes => "max.message.bytes",
            Self::TimestampType => "message.timestamp.type",
            Self::DeleteRetentionMs => "delete.retention.ms",
            Self::MinCompactionLagMs => "min.compaction.lag.ms",
            Self::Flush => "flush",
            Self::Expire => "expire",
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Self::CleanupPolicy => Kind::List,
            Self::TimestampType | Self::Flush => Kind::String,
            Self::Expire => Kind::Boolean,
            Self::MaxMessageBytes | Self::SegmentBytes => Kind::Int,
            _ => Kind::Long,
        }
    }

    /// The setting of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|config| config.name() == name)
    }

    /// What it is, in words.
    pub fn get(self, options: &TopicOptions) -> String {
        match self {
            Self::CleanupPolicy => match options.cleanup {
                Cleanup::Delete => "delete".to_owned(),
                Cleanup::Compact => "compact".to_owned(),
                Cleanup::CompactAndDelete => "compact,delete".to_owned(),
            },
            Self::RetentionMs => unbounded(options.retention_ms),
            Self::RetentionBytes => unbounded(options.retention_bytes),
            Self::SegmentBytes => options.segment_bytes.to_string(),
            Self::MaxMessageBytes => options.max_message_bytes.to_string(),
            Self::TimestampType => match options.timestamps {
                Timestamps::Create => "CreateTime".to_owned(),
                Timestamps::Append => "LogAppendTime".to_owned(),
            },
            Self::DeleteRetentionMs => options.tombstone_retention_ms.to_string(),
            Self::MinCompactionLagMs => options.compaction_lag_ms.to_string(),
            Self::Flush => match options.flush {
                Flush::Sync => "sync".to_owned(),
                Flush::Async => "async".to_owned(),
            },
            Self::Expire => options.expire.to_string(),
        }
    }

    /// Sets it from words.
    pub fn set(self, options: &mut TopicOptions, text: &str) -> Result<(), Invalid> {
        match self {
            Self::CleanupPolicy => options.cleanup = cleanup(text)?,
            Self::RetentionMs => options.retention_ms = bounded(self, text)?,
            Self::RetentionBytes => options.retention_bytes = bounded(self, text)?,
            Self::SegmentBytes => options.segment_bytes = number(self, text)?,
            Self::MaxMessageBytes => {
                // What is more than the log takes is as good as no bound.
                let most = TopicOptions::default().max_message_bytes;
                options.max_message_bytes = number(self, text)?.min(u64::from(most)) as u32;
            }
            Self::TimestampType => {
                options.timestamps = match text {
                    "CreateTime" => Timestamps::Create,
                    "LogAppendTime" => Timestamps::Append,
                    _ => return Err(not(self, text, "CreateTime or LogAppendTime")),
                }
            }
            Self::DeleteRetentionMs => options.tombstone_retention_ms = number(self, text)?,
            Self::MinCompactionLagMs => options.compaction_lag_ms = number(self, text)?,
            Self::Flush => {
                options.flush = match text {
                    "sync" => Flush::Sync,
                    "async" => Flush::Async,
                    _ => return Err(not(self, text, "sync or async")),
                }
            }
            Self::Expire => {
                let parsed = text.parse();
                options.expire = parsed.map_err(|_| not(self, text, "true or false"))?;
            }
        }
        Ok(())
    }

    /// Sets it to what it is in `defaults`.
    pub fn reset(self, options: &mut TopicOptions, defaults: &TopicOptions) {
        match self {
            Self::CleanupPolicy => options.cleanup = defaults.cleanup,
            Self::RetentionMs => options.retention_ms = defaults.retention_ms,
            Self::RetentionBytes => options.retention_bytes = defaults.retention_bytes,
            Self::SegmentBytes => options.segment_bytes = defaults.segment_bytes,
            Self::MaxMessageBytes => options.max_message_bytes = defaults.max_message_bytes,
            Self::TimestampType => options.timestamps = defaults.timestamps,
            Self::DeleteRetentionMs => {
                options.tombstone_retention_ms = defaults.tombstone_retention_ms;
            }
            Self::MinCompactionLagMs => options.compaction_lag_ms = defaults.compaction_lag_ms,
            Self::Flush => options.flush = defaults.flush,
            Self::Expire => options.expire = defaults.expire,
        }
    }

    /// Adds to a list, or takes from it.
    pub fn amend(self, options: &mut TopicOptions, text: &str, add: bool) -> Result<(), Invalid> {
        if self.kind() != Kind::List {
            let name = self.name();
            return Err(format!("{name} is no list: set it instead"));
        }
        let named: Vec<&str> = words(text).collect();
        let present = self.get(options);
        let mut kept: Vec<&str> = words(&present).filter(|w| !named.contains(w)).collect();
        if add {
            kept.extend(named);
        }
        self.set(options, &kept.join(","))
    }
}

/// Makes one setting, by its name. `None` stands for the default.
pub(crate) fn set(
    options: &mut TopicOptions,
    defaults: &TopicOptions,
    name: &str,
    value: Option<&str>,
) -> Result<(), Invalid> {
    match (TopicConfig::find(name), value) {
        (Some(config), Some(text)) => config.set(options, text.trim()),
        (Some(config), None) => {
            config.reset(options, defaults);
            Ok(())
        }
        (None, _) => without_effect(name),
    }
}

/// Whether the name is one of Kafka's that have no meaning here.
pub(crate) fn without_effect(name: &str) -> Result<(), Invalid> {
    match WITHOUT_EFFECT.iter().any(|(known, ..)| *known == name) {
        true => {
            tracing::info!(
                setting = name,
                "a setting without effect on this broker was accepted"
            );
            Ok(())
        }
        false => Err(format!("{name} is not a setting of a topic")),
    }
}

fn cleanup(text: &str) -> Result<Cleanup, Invalid> {
    let (mut delete, mut compact) = (false, false);
    for word in words(text) {
        match word {
            "delete" => delete = true,
            "compact" => compact = true,
            _ => {
                return Err(not(
                    TopicConfig::CleanupPolicy,
                    word,
                    "delete, compact or both",
                ));
            }
        }
    }
    match (delete, compact) {
        (true, false) => Ok(Cleanup::Delete),
        (false, true) => Ok(Cleanup::Compact),
        (true, true) => Ok(Cleanup::CompactAndDelete),
        (false, false) => {
            let config = TopicConfig::CleanupPolicy;
            Err(not(config, text, "delete, compact or both"))
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.trim_matches(['[', ']']).split(',').map(str::trim);
    words.filter(|word| !word.is_empty())
}

fn unbounded(bound: Option<u64>) -> String {
    bound.map_or_else(|| "-1".to_owned(), |bound| bound.to_string())
}

fn bounded(config: TopicConfig, text: &str) -> Result<Option<u64>, Invalid> {
    match text {
        "-1" => Ok(None),
        _ => number(config, text).map(Some),
    }
}

fn number(config: TopicConfig, text: &str) -> Result<u64, Invalid> {
    let parsed = text.parse::<i64>().ok();
    let number = parsed.and_then(|n| u64::try_from(n).ok());
    number.ok_or_else(|| not(config, text, "a whole number"))
}

fn not(config: TopicConfig, text: &str, allowed: &str) -> Invalid {
    let name = config.name();
    format!("{name} is {text:?}, it must be {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_what_it_writes() {
        let options = TopicOptions {
            retention_ms: Some(7),
            cleanup: Cleanup::CompactAndDelete,
            flush: Flush::Async,
            timestamps: Timestamps::Append,
            expire: true,
            ..TopicOptions::default()
        };
        let mut read = TopicOptions::default();
        for config in TopicConfig::ALL {
            config.set(&mut read, &config.get(&options)).expect("valid");
        }
        assert_eq!(read, options);
        for config in TopicConfig::ALL {
            config.reset(&mut read, &TopicOptions::default());
        }
        assert_eq!(read, TopicOptions::default());
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        let mut options = TopicOptions::default();
        let mut set = |name, value| {
            let defaults = TopicOptions::default();
            super::set(&mut options, &defaults, name, Some(value)).unwrap_err()
        };
        assert!(set("flush", "later").contains("sync or async"));
        assert!(set("expire", "1").contains("true or false"));
        assert!(set("cleanup.policy", "").contains("delete, compact or both"));
        assert!(set("retention.ms", "-2").contains("a whole number"));
        assert!(set("no.such", "1").contains("not a setting"));
    }

    #[test]
    fn lists_grow_and_shrink() {
        let mut options = TopicOptions::default();
        let config = TopicConfig::CleanupPolicy;
        config.amend(&mut options, "compact", true).expect("valid");
        assert_eq!(options.cleanup, Cleanup::CompactAndDelete);
        config.amend(&mut options, "delete", false).expect("valid");
        assert_eq!(options.cleanup, Cleanup::Compact);
        assert!(config.amend(&mut options, "compact", false).is_err());
        assert!(
            TopicConfig::Flush
                .amend(&mut options, "sync", true)
                .is_err()
        );
    }
}
