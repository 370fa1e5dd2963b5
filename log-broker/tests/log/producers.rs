//! Producers with an id: each batch is stored once and in order, whatever is sent again.

use std::sync::Arc;
use std::time::Duration;

use outbox_log_broker::{Append, AppendError, Appended, Log, LogOptions, Producer};

use crate::disk::SimDisk;
use crate::rig::{As, TOPIC, append, append_as, create_topic, open, options, produce, run, values};

fn texts(from: i32, count: i32) -> Vec<String> {
    (from..from + count).map(|n| format!("value-{n}")).collect()
}

/// A log with a topic of two partitions, and a producer.
fn log_and_producer(disk: &SimDisk) -> (Arc<Log>, Producer) {
    let log = open(disk).expect("opens");
    create_topic(&log, 2).expect("created");
    let producer = run(log.init_producer(None, 0, None)).expect("an id");
    (log, producer)
}

/// The batch of `count` values from sequence `first` on, to partition 0.
fn send(log: &Log, producer: Producer, first: i32, count: i32) -> Result<Appended, AppendError> {
    produce(log, plain(producer, first), 0, &texts(first, count))
}

fn plain(producer: Producer, sequence: i32) -> As {
    As {
        producer,
        sequence,
        transactional: false,
    }
}

#[test]
fn a_batch_that_is_sent_again_answers_its_original_offset_also_after_a_crash() {
    let disk = SimDisk::default();
    let (log, producer) = log_and_producer(&disk);
    append(&log, &[(0, texts(0, 4))]).expect("appended");
    for n in 0..6 {
        let appended = send(&log, producer, 3 * n, 3).expect("appended");
        assert_eq!(appended.first_offsets, [i64::from(4 + 3 * n)]);
        assert!(!appended.duplicate);
    }
    let before = values(&log, 0).expect("reads");
    let check = |log: &Log, what: &str| {
        for n in 1..6 {
            let again = send(log, producer, 3 * n, 3).expect("appended");
            assert!(again.duplicate, "{what}");
            assert_eq!(again.first_offsets, [i64::from(4 + 3 * n)], "{what}");
        }
        let old = send(log, producer, 0, 3);
        assert!(
            matches!(old, Err(AppendError::OldDuplicate { .. })),
            "{what}: {old:?}"
        );
        let gap = send(log, producer, 19, 1);
        let expected = Err(18);
        assert_eq!(due(gap), expected, "{what}");
        assert_eq!(values(log, 0).expect("reads"), before, "{what}");
    };
    check(&log, "at once");
    check(&open(&disk.after_kill()).expect("opens"), "after a kill");
    log.checkpoint().expect("a checkpoint");
    check(
        &open(&disk.after_kill()).expect("opens"),
        "from a checkpoint",
    );
    log.close();
    let log = open(&disk).expect("opens");
    check(&log, "after a clean stop");
    send(&log, producer, 18, 1).expect("goes on");
}

/// The sequence that is due, of a refusal.
fn due(result: Result<Appended, AppendError>) -> Result<(), i32> {
    match result {
        Ok(_) => Ok(()),
        Err(AppendError::OutOfOrder { expected, .. }) => Err(expected),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn many_batches_in_flight_share_syncs_and_stay_in_order() {
    let disk = SimDisk::default();
    let (log, producer) = log_and_producer(&disk);
    let before = *log.version().borrow();
    // Without tokio's budget, so that all are queued at the first poll.
    run(tokio::task::unconstrained(async {
        let sent: Vec<_> = (0..500)
            .map(|n| log.append(append_as(plain(producer, 2 * n), 0, &texts(2 * n, 2))))
            .collect();
        // Also a duplicate of one that is not durable yet.
        let again = log.append(append_as(plain(producer, 998), 0, &texts(998, 2)));
        let (first, again) = tokio::join!(all(sent), again);
        for (n, appended) in first.into_iter().enumerate() {
            let appended = appended.expect("appended");
            assert_eq!(appended.first_offsets, [2 * n as i64]);
            assert!(!appended.duplicate);
        }
        let again = again.expect("stored already");
        assert!(again.duplicate);
        assert_eq!(again.first_offsets, [998]);
    }));
    let syncs = *log.version().borrow() - before;
    assert!(syncs < 100, "{syncs} sync groups for 500 batches in flight");
    assert_eq!(values(&log, 0).expect("reads"), texts(0, 1000));
}

/// Polls all of them from the first on, so that they are queued in order.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[test]
fn a_new_epoch_starts_at_sequence_zero_and_shuts_out_the_old_one() {
    let (log, producer) = log_and_producer(&SimDisk::default());
    send(&log, producer, 0, 5).expect("appended");
    let newer = Producer {
        epoch: producer.epoch + 1,
        ..producer
    };
    assert_eq!(due(send(&log, newer, 5, 1)), Err(0));
    send(&log, newer, 0, 1).expect("appended");
    let stale = send(&log, producer, 5, 1);
    assert!(
        matches!(stale, Err(AppendError::StaleProducer { newer: 1, .. })),
        "{stale:?}"
    );
    // In the other partition it has not been seen yet.
    produce(&log, plain(producer, 0), 1, &texts(0, 1)).expect("appended");
}

#[test]
fn a_first_batch_that_is_missing_is_told_from_a_producer_that_is_unknown() {
    let (log, producer) = log_and_producer(&SimDisk::default());
    assert_eq!(
        due(send(&log, producer, 3, 1)),
        Err(0),
        "its first is on its way"
    );
    let foreign = Producer {
        id: producer.id + 7,
        epoch: 0,
    };
    let unknown = send(&log, foreign, 3, 1);
    assert!(
        matches!(unknown, Err(AppendError::UnknownProducer { .. })),
        "{unknown:?}"
    );
    send(&log, foreign, 0, 1).expect("its first batch is taken");
    send(&log, foreign, 1, 1).expect("and the next");
}

#[test]
fn an_idle_producer_is_forgotten_and_asked_to_start_again() {
    let disk = SimDisk::default();
    let short = LogOptions {
        producer_expiry: Duration::from_secs(60),
        ..options()
    };
    let log = Log::open_on(Arc::new(disk), short).expect("opens");
    create_topic(&log, 2).expect("created");
    let producer = run(log.init_producer(None, 0, None)).expect("an id");
    send(&log, producer, 0, 1).expect("appended");
    let appended_ms = log.producers(TOPIC, 0).expect("there")[0].appended_ms;
    log.forget_idle_producers(appended_ms + 59_999)
        .expect("kept");
    assert_eq!(log.producers(TOPIC, 0).expect("there").len(), 1);
    send(&log, producer, 1, 1).expect("goes on");
    log.forget_idle_producers(appended_ms + 600_000)
        .expect("forgotten");
    assert!(log.producers(TOPIC, 0).expect("there").is_empty());
    let unknown = send(&log, producer, 2, 1);
    assert!(
        matches!(unknown, Err(AppendError::UnknownProducer { .. })),
        "{unknown:?}"
    );
    let described = run(log.init_producer(None, 0, None)).expect("an id");
    assert_ne!(described.id, producer.id);
}

#[test]
fn ids_are_given_out_once_also_over_crashes_and_at_the_same_time() {
    let mut disk = SimDisk::default();
    let (mut log, first) = log_and_producer(&disk);
    let mut last = first.id;
    for round in 0..4 {
        let ids = run(async {
            let asked: Vec<_> = (0..20).map(|_| log.init_producer(None, 0, None)).collect();
            all(asked).await
        });
        for id in ids {
            let producer = id.expect("an id");
            assert_eq!(producer.epoch, 0);
            assert!(producer.id > last, "round {round}");
            last = producer.id;
        }
        if round % 2 == 0 {
            log.checkpoint().expect("a checkpoint");
        }
        disk = disk.after_kill();
        log = open(&disk).expect("opens");
    }
}

#[test]
fn the_producers_of_a_partition_are_described() {
    let (log, producer) = log_and_producer(&SimDisk::default());
    send(&log, producer, 0, 7).expect("appended");
    let described = log.producers(TOPIC, 0).expect("there");
    assert_eq!(described.len(), 1);
    assert_eq!(described[0].producer, producer);
    assert_eq!(described[0].last_sequence, Some(6));
    assert_eq!(described[0].transaction_first_offset, None);
    assert!(log.producers(TOPIC, 1).expect("there").is_empty());
    assert!(log.producers(TOPIC, 2).is_err());
}

#[test]
fn what_a_batch_says_about_its_producer_must_make_sense() {
    let (log, producer) = log_and_producer(&SimDisk::default());
    let refused = |append: Append| {
        let error = run(log.append(append)).expect_err("refused");
        assert!(matches!(error, AppendError::Batch { .. }), "{error}");
        error.to_string()
    };
    let text = refused(append_as(plain(producer, -1), 0, &texts(0, 1)));
    assert!(text.contains("base sequence"), "{text}");
    let no_epoch = Producer {
        epoch: -1,
        ..producer
    };
    refused(append_as(plain(no_epoch, 0), 0, &texts(0, 1)));
    let nobody = As {
        producer: Producer { id: -1, epoch: -1 },
        sequence: -1,
        transactional: true,
    };
    refused(append_as(nobody, 0, &texts(0, 1)));

    // Two batches in one append could not be refused alone.
    let mut both = append_as(plain(producer, 0), 0, &texts(0, 1));
    let second = append_as(plain(producer, 1), 0, &texts(1, 1));
    both.slices[0].bytes += second.buffer.len();
    both.buffer.extend(second.buffer);
    let error = run(log.append(both)).expect_err("refused");
    assert!(error.to_string().contains("the only one"), "{error}");
    assert!(values(&log, 0).expect("reads").is_empty());
}

#[test]
fn nobody_but_the_log_writes_markers() {
    let (log, producer) = log_and_producer(&SimDisk::default());
    let mut append = append_as(plain(producer, 0), 0, &texts(0, 1));
    append.buffer[22] = 0x30;
    let crc = crc32c::crc32c(&append.buffer[21..]);
    append.buffer[17..21].copy_from_slice(&crc.to_be_bytes());
    let error = run(log.append(append)).expect_err("refused");
    assert!(error.to_string().contains("marker"), "{error}");
}
