//! Transactions while nothing goes wrong but their producers: all partitions and offsets, or none.

use std::sync::Arc;
use std::time::Duration;

use outbox_log_broker::{
    AppendError, Isolation, Log, LogOptions, OffsetCommit, Producer, TransactionError,
    TransactionState,
};

use crate::disk::SimDisk;
use crate::rig::{
    As, Client, TOPIC, append, committed_values, create_topic, open, options, produce, run, values,
};

const NONE: [&str; 0] = [];

fn text(value: &str) -> Vec<String> {
    vec![value.to_owned()]
}

/// A log with a topic of three partitions.
fn log_on(disk: &SimDisk) -> Arc<Log> {
    let log = open(disk).expect("opens");
    create_topic(&log, 3).expect("created");
    log
}

#[test]
fn a_transaction_is_seen_in_all_partitions_at_its_commit_and_never_when_aborted() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    client.add(&log, &[0, 1]).expect("added");
    client.send(&log, 0, "first").expect("appended");
    client.send(&log, 1, "second").expect("appended");
    append(&log, &[(0, text("plain"))]).expect("appended");
    assert_eq!(values(&log, 0).expect("reads"), ["first", "plain"]);
    assert_eq!(committed_values(&log, 0).expect("reads"), NONE);
    assert_eq!(log.last_stable_offset(TOPIC, 0).expect("there"), 0);

    client.end(&log, true).expect("committed");
    assert_eq!(
        committed_values(&log, 0).expect("reads"),
        ["first", "plain"]
    );
    assert_eq!(committed_values(&log, 1).expect("reads"), ["second"]);
    assert_eq!(
        log.offsets(TOPIC, 0).expect("there"),
        (0, 3),
        "with a marker"
    );

    client.add(&log, &[0, 2]).expect("added");
    client.send(&log, 0, "third").expect("appended");
    client.end(&log, false).expect("aborted");
    assert_eq!(
        committed_values(&log, 0).expect("reads"),
        ["first", "plain"]
    );
    assert_eq!(values(&log, 0).expect("reads"), ["first", "plain", "third"]);
    assert_eq!(
        log.offsets(TOPIC, 2).expect("there"),
        (0, 0),
        "nothing to end"
    );
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "fourth").expect("appended");
    client.end(&log, true).expect("committed");
    let seen = ["first", "plain", "fourth"];
    assert_eq!(committed_values(&log, 0).expect("reads"), seen);
}

#[test]
fn a_fetch_of_committed_records_names_the_aborted_transactions_in_its_range() {
    let log = log_on(&SimDisk::default());
    let (mut a, mut b) = (Client::begin(&log, "a"), Client::begin(&log, "b"));
    for client in [&mut a, &mut b] {
        client.add(&log, &[0]).expect("added");
        client.send(&log, 0, "x").expect("appended");
    }
    b.send(&log, 0, "y").expect("appended");
    a.end(&log, false).expect("aborted");
    let fetch = |offset, isolation| {
        let fetched = log.fetch_isolated(TOPIC, 0, offset, 10_000, isolation);
        let fetched = fetched.expect("reads");
        let aborted = fetched.aborted.iter();
        let aborted: Vec<_> = aborted.map(|a| (a.producer_id, a.first_offset)).collect();
        (fetched.last_stable_offset, fetched.batches.len(), aborted)
    };
    let (stable, bytes, aborted) = fetch(0, Isolation::Committed);
    assert_eq!(
        (stable, aborted),
        (1, vec![(a.producer.id, 0)]),
        "b is open"
    );
    let (_, all, none) = fetch(0, Isolation::Uncommitted);
    assert!(bytes > 0 && bytes < all && none.is_empty());
    assert_eq!(fetch(1, Isolation::Committed), (1, 0, vec![]));
    b.end(&log, false).expect("aborted");
    let (_, _, aborted) = fetch(0, Isolation::Committed);
    assert_eq!(aborted, [(a.producer.id, 0), (b.producer.id, 1)]);
    let (_, _, aborted) = fetch(4, Isolation::Committed);
    assert_eq!(aborted, [(b.producer.id, 1)], "behind the marker of a");
}

#[test]
fn what_is_open_committed_or_aborted_is_so_after_a_crash_with_and_without_a_checkpoint() {
    for checkpoints in [false, true] {
        let disk = SimDisk::default();
        let log = log_on(&disk);
        let mut clients: Vec<_> = ["a", "b", "c"].map(|id| Client::begin(&log, id)).into();
        for client in &mut clients {
            client.add(&log, &[0, 1]).expect("added");
            client.send(&log, 0, &client.id.clone()).expect("appended");
            client.send(&log, 1, &client.id.clone()).expect("appended");
        }
        clients[0].end(&log, true).expect("committed");
        clients[1].end(&log, false).expect("aborted");
        if checkpoints {
            log.checkpoint().expect("a checkpoint");
        }
        let described = log.transactions();
        let log = open(&disk.after_kill()).expect("opens");
        assert_eq!(log.transactions(), described, "checkpoint: {checkpoints}");
        assert_eq!(committed_values(&log, 0).expect("reads"), ["a"]);
        assert_eq!(log.last_stable_offset(TOPIC, 0).expect("there"), 2);
        // The open one goes on as if nothing had been.
        clients[2].send(&log, 1, "later").expect("appended");
        clients[2].end(&log, true).expect("committed");
        assert_eq!(committed_values(&log, 0).expect("reads"), ["a", "c"]);
        assert_eq!(
            committed_values(&log, 1).expect("reads"),
            ["a", "c", "later"]
        );
        clients[0].end(&log, true).expect("it was committed");
    }
}

#[test]
fn an_end_that_is_asked_again_is_answered_the_same_and_the_opposite_is_refused() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    let nothing_open = client.end(&log, true);
    assert!(
        matches!(nothing_open, Err(TransactionError::State { .. })),
        "{nothing_open:?}"
    );
    for commits in [true, false] {
        client.add(&log, &[0]).expect("added");
        client.add(&log, &[0]).expect("added again");
        client.send(&log, 0, "x").expect("appended");
        client.end(&log, commits).expect("ended");
        let end = log.offsets(TOPIC, 0).expect("there");
        client.end(&log, commits).expect("ended again");
        let opposite = client.end(&log, !commits);
        assert!(
            matches!(opposite, Err(TransactionError::State { .. })),
            "{opposite:?}"
        );
        assert_eq!(log.offsets(TOPIC, 0).expect("there"), end, "one marker");
    }
}

#[test]
fn whoever_takes_a_transactional_id_aborts_what_was_open_and_shuts_out_its_holder() {
    let log = log_on(&SimDisk::default());
    let mut old = Client::begin(&log, "a");
    old.add(&log, &[0]).expect("added");
    old.send(&log, 0, "old").expect("appended");
    let mut new = Client::begin(&log, "a");
    assert_eq!(new.producer.id, old.producer.id);
    assert_eq!(new.producer.epoch, old.producer.epoch + 1);
    assert_eq!(committed_values(&log, 0).expect("reads"), NONE);
    assert_eq!(
        log.last_stable_offset(TOPIC, 0).expect("there"),
        2,
        "aborted"
    );

    let fenced = old.send(&log, 0, "zombie");
    assert!(
        matches!(fenced, Err(AppendError::StaleProducer { .. })),
        "{fenced:?}"
    );
    for fenced in [old.add(&log, &[1]), old.end(&log, true)] {
        assert!(
            matches!(fenced, Err(TransactionError::Fenced { .. })),
            "{fenced:?}"
        );
    }
    new.add(&log, &[0]).expect("added");
    new.send(&log, 0, "new").expect("from sequence 0");
    new.end(&log, true).expect("committed");
    assert_eq!(committed_values(&log, 0).expect("reads"), ["new"]);
}

#[test]
fn a_producer_that_goes_on_after_an_error_keeps_its_id_unless_somebody_took_it() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    let first = client.producer;
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "x").expect("appended");
    let init = |current| run(log.init_producer(Some("a"), 60_000, Some(current)));
    let second = init(first).expect("a new epoch");
    assert_eq!((second.id, second.epoch), (first.id, first.epoch + 1));
    assert_eq!(
        log.last_stable_offset(TOPIC, 0).expect("there"),
        2,
        "aborted"
    );
    assert_eq!(init(first).expect("the answer was lost"), second);
    let third = init(second).expect("a new epoch");
    let fenced = init(first);
    assert!(
        matches!(fenced, Err(TransactionError::Fenced { .. })),
        "{fenced:?}"
    );
    let taken = run(log.init_producer(Some("a"), 60_000, None)).expect("taken");
    assert_eq!(taken.epoch, third.epoch + 1);
    let fenced = init(third);
    assert!(
        matches!(fenced, Err(TransactionError::Fenced { .. })),
        "{fenced:?}"
    );
}

#[test]
fn a_batch_belongs_to_an_open_transaction_that_spans_its_partition() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    let outside = |result: Result<_, AppendError>| {
        assert!(
            matches!(result, Err(AppendError::NotInTransaction { .. })),
            "{result:?}"
        );
    };
    outside(client.send(&log, 0, "before"));
    client.add(&log, &[0]).expect("added");
    outside(client.send(&log, 1, "elsewhere"));
    let plain = As {
        producer: client.producer,
        sequence: 0,
        transactional: false,
    };
    outside(produce(&log, plain, 0, &text("plain")).map(drop));
    client.send(&log, 0, "inside").expect("appended");
    client.end(&log, true).expect("committed");
    outside(client.send(&log, 0, "after"));

    let idempotent = run(log.init_producer(None, 0, None)).expect("an id");
    let nobody = As {
        producer: idempotent,
        sequence: 0,
        transactional: true,
    };
    let refused = produce(&log, nobody, 0, &text("x"));
    assert!(
        matches!(refused, Err(AppendError::NoTransactionalId { .. })),
        "{refused:?}"
    );
    assert_eq!(values(&log, 0).expect("reads"), ["inside"]);
}

#[test]
fn a_transaction_that_times_out_is_aborted_and_its_producer_shut_out() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "x").expect("appended");
    let started_ms = log
        .transaction("a")
        .expect("known")
        .started_ms
        .expect("open");
    assert_eq!(log.abort_timed_out(started_ms + 59_999).expect("looked"), 0);
    assert_eq!(
        log.abort_timed_out(started_ms + 60_000).expect("aborted"),
        1
    );
    assert_eq!(
        log.transaction("a").expect("known").state,
        TransactionState::Aborted
    );
    assert_eq!(log.last_stable_offset(TOPIC, 0).expect("there"), 2);
    let late = client.send(&log, 0, "late");
    assert!(
        matches!(late, Err(AppendError::StaleProducer { .. })),
        "{late:?}"
    );
    let late = client.end(&log, true);
    assert!(
        matches!(late, Err(TransactionError::Fenced { .. })),
        "{late:?}"
    );
    Client::begin(&log, "a");
}

#[test]
fn a_log_aborts_by_itself_what_has_timed_out() {
    let log = log_on(&SimDisk::default());
    let producer = run(log.init_producer(Some("a"), 5, None)).expect("an id");
    let mut version = log.version();
    run(log.transaction_add_partitions("a", producer, &[(TOPIC.into(), 0)])).expect("added");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let aborted = async {
            while log.transaction("a").expect("known").state != TransactionState::Aborted {
                version.changed().await.expect("open");
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, aborted).await.expect("aborted");
    });
}

#[test]
fn a_timeout_is_bounded_by_the_log() {
    let short = LogOptions {
        transaction_timeout_max: Duration::from_secs(1),
        ..options()
    };
    let log = Log::open_on(Arc::new(SimDisk::default()), short).expect("opens");
    for timeout_ms in [0, 1001] {
        let refused = run(log.init_producer(Some("a"), timeout_ms, None));
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains("1 to 1000 ms"), "{refused}");
    }
    run(log.init_producer(Some("a"), 1000, None)).expect("an id");
}

#[test]
fn offsets_of_a_group_are_committed_with_the_transaction_or_not_at_all() {
    let mut disk = SimDisk::default();
    let mut log = log_on(&disk);
    let mut client = Client::begin(&log, "a");
    let offset = |next| [OffsetCommit::new(TOPIC.into(), 0, next)];
    let commit = |log: &Log, producer: Producer, next| {
        run(log.transaction_commit_offsets("a", producer, "g", &offset(next)))
    };
    let early = commit(&log, client.producer, 5);
    assert!(
        matches!(early, Err(TransactionError::State { .. })),
        "{early:?}"
    );
    let held = |log: &Log| log.committed("g", TOPIC, 0).map(|c| c.next_offset);
    for (commits, next, expected) in [(true, 7, Some(7)), (false, 9, Some(7))] {
        let before = held(&log);
        run(log.transaction_add_group("a", client.producer, "g")).expect("added");
        commit(&log, client.producer, next - 1).expect("noted");
        commit(&log, client.producer, next).expect("noted");
        assert_eq!(held(&log), before, "not yet");
        // The offsets wait in the log, not only in memory.
        disk = disk.after_kill();
        log = open(&disk).expect("opens");
        client.end(&log, commits).expect("ended");
        assert_eq!(held(&log), expected);
        log.checkpoint().expect("a checkpoint");
        disk = disk.after_kill();
        log = open(&disk).expect("opens");
        assert_eq!(held(&log), expected);
    }
    let nowhere = [OffsetCommit::new("nowhere".into(), 0, 1)];
    run(log.transaction_add_group("a", client.producer, "g")).expect("added");
    let refused = run(log.transaction_commit_offsets("a", client.producer, "g", &nowhere));
    assert!(
        matches!(refused, Err(TransactionError::Append(_))),
        "{refused:?}"
    );
}

#[test]
fn partitions_are_added_all_or_none_and_never_more_than_one_frame_can_end() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "a");
    let unknown = client.add(&log, &[0, 3]);
    assert!(
        matches!(
            unknown,
            Err(TransactionError::UnknownPartition { partition: 3, .. })
        ),
        "{unknown:?}"
    );
    assert_eq!(
        log.transaction("a").expect("known").state,
        TransactionState::Empty
    );

    run(log.create_partitions(TOPIC, 300)).expect("grown");
    let all: Vec<u32> = (0..300).collect();
    let refused = client.add(&log, &all);
    assert!(
        matches!(refused, Err(TransactionError::TooManyPartitions { .. })),
        "{refused:?}"
    );
    let mut added = 0;
    while client.add(&log, &[added]).is_ok() {
        client.send(&log, added, "x").expect("appended");
        added += 1;
    }
    assert!(added > 50, "only {added} partitions");
    client.end(&log, true).expect("the end fits");
    for partition in 0..added {
        assert_eq!(committed_values(&log, partition).expect("reads"), ["x"]);
    }
}

#[test]
fn a_producer_that_does_not_hold_the_id_is_told_so() {
    let log = log_on(&SimDisk::default());
    let client = Client::begin(&log, "a");
    let mut stranger = Client::begin(&log, "b");
    stranger.id = "a".to_owned();
    for mut lost in [
        stranger,
        Client {
            id: "c".into(),
            ..client
        },
    ] {
        for refused in [lost.add(&log, &[0]), lost.end(&log, true)] {
            assert!(
                matches!(refused, Err(TransactionError::UnknownProducer { .. })),
                "{refused:?}"
            );
        }
    }
    for id in ["", &"x".repeat(513)] {
        let refused = run(log.init_producer(Some(id), 1, None));
        assert!(
            matches!(refused, Err(TransactionError::Id { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_topic_that_is_deleted_in_the_midst_of_a_transaction_does_not_hold_up_its_end() {
    let disk = SimDisk::default();
    let log = log_on(&disk);
    let mut client = Client::begin(&log, "a");
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "gone").expect("appended");
    run(log.transaction_add_group("a", client.producer, "g")).expect("added");
    let offsets = [OffsetCommit::new(TOPIC.into(), 0, 1)];
    run(log.transaction_commit_offsets("a", client.producer, "g", &offsets)).expect("noted");
    run(log.delete_topic(TOPIC)).expect("deleted");
    create_topic(&log, 1).expect("created");
    let outside = client.send(&log, 0, "x");
    assert!(
        matches!(outside, Err(AppendError::NotInTransaction { .. })),
        "{outside:?}"
    );
    client.end(&log, true).expect("committed");
    assert_eq!(log.offsets(TOPIC, 0).expect("there"), (0, 0));
    assert_eq!(log.committed("g", TOPIC, 0), None);
    let log = open(&disk.after_kill()).expect("opens");
    assert_eq!(log.damage(), None);
    assert_eq!(log.offsets(TOPIC, 0).expect("there"), (0, 0));
}

#[test]
fn an_idle_transactional_id_is_forgotten_unless_its_transaction_is_open() {
    let log = log_on(&SimDisk::default());
    let idle = Client::begin(&log, "idle");
    let mut open = Client::begin(&log, "open");
    open.add(&log, &[0]).expect("added");
    open.send(&log, 0, "x").expect("appended");
    let begun_ms = log
        .transaction("open")
        .expect("known")
        .started_ms
        .expect("open");
    log.forget_idle_producers(begun_ms + 8 * 24 * 60 * 60 * 1000)
        .expect("forgotten");
    assert_eq!(log.transaction("idle"), None);
    open.end(&log, true).expect("committed");
    assert_eq!(committed_values(&log, 0).expect("reads"), ["x"]);
    let again = Client::begin(&log, "idle");
    assert!(again.producer.id > idle.producer.id, "a new id");
    // Its state in the partition goes when it is idle, and it goes on where it was.
    log.forget_idle_producers(begun_ms + 3 * 24 * 60 * 60 * 1000)
        .expect("forgotten");
    assert!(log.producers(TOPIC, 0).expect("there").is_empty());
    open.add(&log, &[0]).expect("added");
    open.send(&log, 0, "y").expect("goes on");
    open.end(&log, true).expect("committed");
    assert_eq!(committed_values(&log, 0).expect("reads"), ["x", "y"]);
}

#[test]
fn transactional_ids_and_open_transactions_are_described() {
    let log = log_on(&SimDisk::default());
    let mut client = Client::begin(&log, "b");
    Client::begin(&log, "a");
    client.add(&log, &[2, 0]).expect("added");
    client.send(&log, 2, "x").expect("appended");
    let described = log.transactions();
    assert_eq!(described.len(), 2);
    assert_eq!(described[0].state, TransactionState::Empty);
    assert_eq!(described[0].started_ms, None);
    let open = &described[1];
    assert_eq!(
        (&*open.transactional_id, open.producer),
        ("b", client.producer)
    );
    assert_eq!(
        (open.state, open.timeout_ms),
        (TransactionState::Ongoing, 60_000)
    );
    assert_eq!(open.partitions, [(TOPIC.into(), 0), (TOPIC.into(), 2)]);
    let in_partition = log.producers(TOPIC, 2).expect("there");
    assert_eq!(in_partition[0].transaction_first_offset, Some(0));
}
