//! What the consumer counts. Every metric carries the label `consumer`.

use metrics::{Counter, Histogram, counter, histogram};

/// Records whose effect committed.
pub const APPLIED: &str = "outbox_consumer_applied_total";
/// Records that the inbox already had: skipped.
pub const DUPLICATES: &str = "outbox_consumer_duplicates_total";
/// Records that became dead letters.
pub const DEAD: &str = "outbox_consumer_dead_total";
/// Failed attempts that are followed by another one.
pub const RETRIES: &str = "outbox_consumer_retries_total";
/// Inbox transactions that committed.
pub const TRANSACTIONS: &str = "outbox_consumer_transactions_total";
/// Batches that were rolled back because one of their records failed, and are split up.
pub const BATCHES_SPLIT: &str = "outbox_consumer_batches_split_total";
/// Times the inbox could not be used; no attempt was burnt.
pub const INBOX_OUTAGES: &str = "outbox_consumer_inbox_outages_total";
/// Times the source could not be read, or did not take offsets.
pub const SOURCE_ERRORS: &str = "outbox_consumer_source_errors_total";
/// Offsets that the source no longer holds, though they were never applied.
pub const OFFSETS_LOST: &str = "outbox_consumer_offsets_lost_total";
/// Seconds from the record's timestamp to the commit of its effect: one value for each
/// transaction, that of its oldest record.
pub const LAG_SECONDS: &str = "outbox_consumer_lag_seconds";
/// Records in each committed transaction, duplicates included.
pub const BATCH_RECORDS: &str = "outbox_consumer_batch_records";

/// Every metric with its kind and its meaning: the table of `docs/consumer.md`.
pub const TABLE: &[(&str, &str, &str)] = &[
    (APPLIED, "counter", "records whose effect committed"),
    (
        DUPLICATES,
        "counter",
        "records that the inbox already had: skipped",
    ),
    (DEAD, "counter", "records that became dead letters"),
    (
        RETRIES,
        "counter",
        "failed attempts that are followed by another one",
    ),
    (TRANSACTIONS, "counter", "inbox transactions that committed"),
    (
        BATCHES_SPLIT,
        "counter",
        "batches rolled back and split because a record failed",
    ),
    (
        INBOX_OUTAGES,
        "counter",
        "times the inbox could not be used; no attempt was burnt",
    ),
    (
        SOURCE_ERRORS,
        "counter",
        "times the source could not be read or did not take offsets",
    ),
    (
        OFFSETS_LOST,
        "counter",
        "offsets no longer held by the source and never applied",
    ),
    (
        LAG_SECONDS,
        "histogram",
        "record's timestamp to commit, oldest record of a transaction",
    ),
    (
        BATCH_RECORDS,
        "histogram",
        "records in each committed transaction",
    ),
];

/// The handles of one consumer.
pub(crate) struct Metrics {
    pub(crate) applied: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) dead: Counter,
    pub(crate) retries: Counter,
    pub(crate) transactions: Counter,
    pub(crate) batches_split: Counter,
    pub(crate) inbox_outages: Counter,
    pub(crate) source_errors: Counter,
    pub(crate) offsets_lost: Counter,
    pub(crate) lag_seconds: Histogram,
    pub(crate) batch_records: Histogram,
}

impl Metrics {
    pub(crate) fn new(consumer: &str) -> Self {
        let count = |name: &'static str| counter!(name, "consumer" => consumer.to_owned());
        let measure = |name: &'static str| histogram!(name, "consumer" => consumer.to_owned());
        Self {
            applied: count(APPLIED),
            duplicates: count(DUPLICATES),
            dead: count(DEAD),
            retries: count(RETRIES),
            transactions: count(TRANSACTIONS),
            batches_split: count(BATCHES_SPLIT),
            inbox_outages: count(INBOX_OUTAGES),
            source_errors: count(SOURCE_ERRORS),
            offsets_lost: count(OFFSETS_LOST),
            lag_seconds: measure(LAG_SECONDS),
            batch_records: measure(BATCH_RECORDS),
        }
    }
}
