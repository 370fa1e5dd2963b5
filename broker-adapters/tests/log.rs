//! The bundled log through the ports of the outbox.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use outbox_broker_adapters::{LogBroker, LogBrokerOptions, LogSource};
use outbox_core::{
    Batch, Broker, Class, Fence, Headers, Outcome, Pending, PublishError, Record, Source,
    TopicPartition, TopicPattern,
};
use outbox_log_broker::{Log, LogOptions};
use uuid::Uuid;

struct Rig {
    dir: tempfile::TempDir,
    log: Arc<Log>,
    broker: LogBroker,
    source: LogSource,
}

fn rig() -> Rig {
    rig_with(LogBrokerOptions {
        partitions: 4,
        ..LogBrokerOptions::default()
    })
}

fn rig_with(options: LogBrokerOptions) -> Rig {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    Rig {
        broker: LogBroker::with_options(log.clone(), options),
        source: LogSource::new(log.clone()),
        dir,
        log,
    }
}

fn open(dir: &std::path::Path) -> Arc<Log> {
    let mut options = LogOptions::new(dir);
    options.wal_file_bytes = 1024 * 1024;
    Log::open(options).expect("the log opens")
}

fn message(seq: i64, key: Option<&str>, payload: &str) -> Pending {
    Pending {
        seq,
        id: Uuid::now_v7(),
        topic: "orders.placed".into(),
        key: key.map(Into::into),
        payload: payload.to_owned().into(),
        content_type: "application/json".into(),
        headers: None,
        created_at: DateTime::from_timestamp_micros(1_700_000_000_123_456 + seq).expect("in range"),
        deliver_after: None,
        expires_at: None,
        late: false,
        attempts: 0,
        redelivery: 0,
    }
}

fn batch(epoch: i64, messages: Vec<Pending>) -> Batch {
    let seqs = || messages.iter().map(|m| m.seq);
    Batch {
        fence: Fence {
            incarnation: "system-1".into(),
            destination: "orders".into(),
            epoch,
        },
        range: seqs().min().zip(seqs().max()),
        messages,
        low_water: 0,
        except: Vec::new(),
    }
}

async fn everything(source: &LogSource) -> Vec<Record> {
    let all: TopicPattern = "*".parse().expect("a pattern");
    let mut records = Vec::new();
    for partition in source.partitions(&[all]).await.expect("partitions") {
        let mut offset = 0;
        loop {
            let fetched = source.fetch(&partition, offset, 1000).await.expect("reads");
            let Some(last) = fetched.last() else { break };
            assert_eq!(fetched[0].offset, offset, "no offset is skipped");
            offset = last.offset + 1;
            records.extend(fetched);
        }
    }
    records
}

fn duplicates(outcomes: &[Outcome]) -> Vec<bool> {
    let duplicate = |o: &Outcome| match o {
        Outcome::Sent(receipt) => receipt.duplicate,
        Outcome::Failed(failure) => panic!("{failure}"),
    };
    outcomes.iter().map(duplicate).collect()
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in() {
    let rig = rig();
    let mut sent = message(7, Some("42"), r#"{"id":42}"#);
    let mut headers = Headers::new();
    headers.insert("traceparent".to_owned(), "00-abc-def-01".to_owned());
    headers.insert("ce_type".to_owned(), "com.example.placed".to_owned());
    headers.insert("ce_id".to_owned(), "not ours".to_owned());
    sent.headers = Some(Arc::new(headers));
    sent.expires_at = DateTime::from_timestamp_micros(1_800_000_000_000_000);
    let outcomes = rig.broker.publish(&batch(1, vec![sent.clone()])).await;
    let outcomes = outcomes.expect("published");
    let [Outcome::Sent(receipt)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(receipt.offset, Some(0));

    let records = everything(&rig.source).await;
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(record.partition.topic, sent.topic);
    assert_eq!(Some(record.partition.partition), receipt.partition);
    assert_eq!(record.id, Some(sent.id));
    assert_eq!(record.key.as_deref(), Some(b"42".as_slice()));
    assert_eq!(record.payload, sent.payload);
    assert_eq!(record.content_type.as_deref(), Some("application/json"));
    assert_eq!(record.timestamp, sent.created_at);
    let headers: Vec<_> = record.headers.iter().collect();
    let expected = [
        ("ce_expirytime", "2027-01-15T08:00:00.000000Z"),
        ("ce_type", "com.example.placed"),
        ("traceparent", "00-abc-def-01"),
    ];
    assert_eq!(
        headers,
        expected
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .iter()
            .map(|(n, v)| (n, v))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn messages_of_a_key_keep_their_order_over_batches_and_partitions() {
    let rig = rig();
    let mut seq = 0;
    for _ in 0..5 {
        let messages = (0..200).map(|_| {
            seq += 1;
            message(seq, Some(&format!("key-{}", seq % 17)), &seq.to_string())
        });
        let messages: Vec<_> = messages.collect();
        rig.broker
            .publish(&batch(1, messages))
            .await
            .expect("published");
    }
    let records = everything(&rig.source).await;
    assert_eq!(records.len(), 1000);
    let mut last = std::collections::HashMap::new();
    let mut partitions = std::collections::HashMap::new();
    for record in records {
        let key = record.key.clone().expect("a key");
        let seq: i64 = std::str::from_utf8(&record.payload)
            .expect("text")
            .parse()
            .expect("a number");
        assert!(
            last.insert(key.clone(), seq)
                .is_none_or(|before| before < seq)
        );
        let partition = record.partition.partition;
        assert_eq!(*partitions.entry(key).or_insert(partition), partition);
    }
}

#[tokio::test]
async fn what_is_stored_is_not_stored_again_even_after_a_reopen() {
    let mut rig = rig();
    let first: Vec<_> = (1..=10).map(|n| message(n, Some("k"), "x")).collect();
    rig.broker
        .publish(&batch(1, first))
        .await
        .expect("published");
    for round in 0..2 {
        // Cut otherwise, as a new leader would: five known ones, five new.
        let mixed: Vec<_> = (6..=15).map(|n| message(n, Some("k"), "x")).collect();
        let outcomes = rig
            .broker
            .publish(&batch(2, mixed))
            .await
            .expect("published");
        let known = if round == 0 { 5 } else { 10 };
        let expected: Vec<bool> = (0..10).map(|n| n < known).collect();
        assert_eq!(duplicates(&outcomes), expected);
        assert_eq!(everything(&rig.source).await.len(), 15);
        let dir = rig.dir;
        drop((rig.broker, rig.source, rig.log));
        let log = open(dir.path());
        rig = Rig {
            broker: LogBroker::new(log.clone()),
            source: LogSource::new(log.clone()),
            dir,
            log,
        };
    }
}

#[tokio::test]
async fn a_raised_redelivery_number_is_stored_once() {
    let rig = rig();
    rig.broker
        .publish(&batch(1, vec![message(1, None, "x")]))
        .await
        .expect("published");
    let mut again = message(1, None, "x");
    again.redelivery = 1;
    let mut resend = batch(1, vec![again]);
    resend.range = None;
    for expected in [false, true] {
        let outcomes = rig.broker.publish(&resend).await.expect("published");
        assert_eq!(duplicates(&outcomes), [expected]);
    }
    assert_eq!(everything(&rig.source).await.len(), 2);
}

#[tokio::test]
async fn a_stale_epoch_stores_nothing() {
    let rig = rig();
    rig.broker
        .publish(&batch(5, vec![message(1, None, "x")]))
        .await
        .expect("published");
    let stale = rig
        .broker
        .publish(&batch(4, vec![message(2, None, "x")]))
        .await;
    assert_eq!(stale, Err(PublishError::Fenced { epoch: 4, newer: 5 }));
    assert_eq!(everything(&rig.source).await.len(), 1);
}

#[tokio::test]
async fn a_message_too_large_fails_for_good_and_holds_up_only_its_own_key() {
    let rig = rig_with(LogBrokerOptions {
        partitions: 2,
        record_bytes_max: 4096,
    });
    let large = "x".repeat(5000);
    let messages = vec![
        message(1, Some("a"), "1"),
        message(2, Some("a"), &large),
        message(3, Some("a"), "3"),
        message(4, Some("b"), "4"),
    ];
    let outcomes = rig
        .broker
        .publish(&batch(1, messages))
        .await
        .expect("published");
    let class = |o: &Outcome| match o {
        Outcome::Sent(_) => None,
        Outcome::Failed(failure) => Some(failure.class),
    };
    let classes: Vec<_> = outcomes.iter().map(class).collect();
    let expected = [None, Some(Class::Permanent), Some(Class::Transient), None];
    assert_eq!(classes, expected);
    // Neither counts as done: both may come again.
    let mut later = batch(
        1,
        vec![message(2, Some("a"), "2"), message(3, Some("a"), "3")],
    );
    later.range = None;
    let outcomes = rig.broker.publish(&later).await.expect("published");
    assert_eq!(duplicates(&outcomes), [false, false]);
}

#[tokio::test]
async fn a_topic_that_cannot_be_fails_for_good_and_the_others_go_on() {
    let rig = rig();
    let mut odd = message(1, None, "x");
    odd.topic = "..".into();
    let outcomes = rig
        .broker
        .publish(&batch(1, vec![odd, message(2, None, "y")]))
        .await
        .expect("published");
    assert!(matches!(&outcomes[0], Outcome::Failed(f) if f.class == Class::Permanent));
    assert!(matches!(&outcomes[1], Outcome::Sent(_)));
}

#[tokio::test]
async fn a_batch_larger_than_an_append_goes_in_several_and_counts_as_one_stretch() {
    let rig = rig();
    let payload = "x".repeat(100_000);
    let messages: Vec<_> = (1..=40).map(|n| message(n, Some("k"), &payload)).collect();
    let large = batch(1, messages);
    for expected in [false, true] {
        let outcomes = rig.broker.publish(&large).await.expect("published");
        assert_eq!(duplicates(&outcomes), [expected; 40]);
    }
    let records = everything(&rig.source).await;
    let times: Vec<_> = records.iter().map(|r| r.timestamp).collect();
    assert!(times.is_sorted() && times.len() == 40);
}

#[tokio::test]
async fn a_reader_is_told_of_news_and_keeps_its_place() {
    let rig = rig();
    let wait = rig.source.changed();
    let publish = async {
        rig.broker
            .publish(&batch(1, vec![message(1, Some("k"), "x")]))
            .await
            .expect("published");
    };
    let both = async { tokio::join!(wait, publish) };
    tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("told in time");

    let record = everything(&rig.source).await.remove(0);
    let at: TopicPartition = record.partition;
    assert_eq!(rig.source.committed("billing", &at).await, Ok(0));
    rig.source
        .commit("billing", &[(at.clone(), 1)])
        .await
        .expect("committed");
    assert_eq!(rig.source.committed("billing", &at).await, Ok(1));
    assert_eq!(rig.source.committed("others", &at).await, Ok(0));
    assert!(
        rig.source
            .fetch(&at, 1, 100)
            .await
            .expect("reads")
            .is_empty()
    );
    let beyond = rig.source.fetch(&at, 2, 100).await;
    assert!(matches!(
        beyond,
        Err(outbox_core::SourceError::OffsetOutOfRange {
            offset: 2,
            first: 0,
            end: 1
        })
    ));
}
