//! Kafka clients that nobody here wrote, against the real broker.
//!
//! Each test starts the broker with an empty data folder on a port of its own, drives a client as
//! a process, and holds what was acknowledged against what was read. With
//! `OUTBOX_TEST_KAFKA=apache` the same tests run against Apache Kafka.

mod admin;
mod clients;
mod console;
mod consumers;
mod consuming;
mod driver;
mod kcat;
mod producer;
mod producing;
mod records;
mod server;
mod streams;
mod transactions;
mod wire;

macro_rules! suite {
    ($client:ident, $($file:ident: $test:ident,)*) => {$(
        #[test]
        fn $test() {
            if crate::clients::$client.is_here() {
                crate::$file::$test(&crate::clients::$client);
            }
        }
    )*};
}
use suite;

/// The same tests for each client library.
macro_rules! suites {
    ($($library:ident: $client:ident,)*) => {$(
        mod $library {
            crate::suite! { $client,
                producing: each_codec_round_trips,
                producing: keys_keep_their_order,
                producing: an_idempotent_producer_writes_each_record_once_in_order,
                producing: an_idempotent_producer_outlives_kill_minus_9_of_the_broker,
                producing: a_megabyte_passes_and_more_is_refused,
                consuming: a_new_group_starts_at_the_earliest_or_latest_offset_or_at_a_time,
                consuming: a_group_shares_its_partitions_while_members_join_leave_and_are_killed,
                consuming: a_group_goes_on_where_it_committed,
                transactions: only_committed_records_are_read_by_who_wants_only_those,
                transactions: offsets_are_committed_with_the_records_or_not_at_all,
                transactions: a_second_producer_with_the_same_id_fences_the_first,
                transactions: a_copy_that_is_killed_and_started_again_copies_each_record_once,
                admin: an_administrator_manages_topics,
                admin: an_administrator_reads_and_trims_offsets,
                admin: an_administrator_manages_groups,
            }
        }
    )*};
}

suites! {
    confluent_kafka: CONFLUENT,
    kafka_python: KAFKA_PYTHON,
    kafkajs: KAFKAJS,
    java: JAVA,
    rdkafka: RDKAFKA,
}
