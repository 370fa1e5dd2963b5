//! Retries, dead letters, and what other keys see of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::{DeadPolicy, HandlerError, limits};

#[tokio::test(start_paused = true)]
async fn a_failing_record_is_retried_while_its_key_waits_and_others_go_on() {
    let world = World::default();
    let healed = Arc::new(AtomicBool::new(false));
    world.append("bad", "poison");
    // More than a queue holds, so that the reader has to leave records out and read them again.
    let followers = limits::QUEUE_RECORDS_MAX * 2 + 100;
    for n in 0..followers {
        world.append("bad", &format!("{n}"));
        world.append("good", &format!("{n}"));
    }
    let heal = healed.clone();
    let consumer = world.keeper(move |payload| match payload {
        "poison" if !heal.load(Ordering::Relaxed) => Err("not yet".into()),
        _ => Ok(()),
    });
    let run = Run::start(consumer.retry(policy(1_000)));
    let good = || world.payloads_of("good").len();
    until(|| good() == followers, || format!("{} good ones", good())).await;
    assert_eq!(
        world.payloads_of("bad"),
        [""; 0],
        "they wait for their first"
    );
    assert_eq!(
        world
            .source
            .committed_offset("billing", &orders())
            .unwrap_or(0),
        0
    );
    healed.store(true, Ordering::Relaxed);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    let in_order = (0..followers).map(|n| n.to_string());
    let expected: Vec<String> = ["poison".to_owned()]
        .into_iter()
        .chain(in_order.clone())
        .collect();
    assert_eq!(world.payloads_of("bad"), expected);
    assert_eq!(world.payloads_of("good"), in_order.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn with_every_worker_stalled_the_reader_waits_and_nothing_is_lost() {
    let world = World::default();
    let healed = Arc::new(AtomicBool::new(false));
    let records = limits::QUEUE_RECORDS_MAX * 5;
    for n in 0..records {
        world.append(&format!("k{}", n % 50), &n.to_string());
    }
    let heal = healed.clone();
    let consumer = world.keeper(move |_| match heal.load(Ordering::Relaxed) {
        false => Err("not yet".into()),
        true => Ok(()),
    });
    let run = Run::start(consumer.retry(policy(1_000)).workers(3));
    sleep(Duration::from_secs(3_600)).await;
    healed.store(true, Ordering::Relaxed);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads().len(), records);
    for key in 0..50 {
        let of_key = world.payloads_of(&format!("k{key}"));
        assert!(of_key.is_sorted_by_key(|p| p.parse::<usize>().expect("a number")));
    }
}

#[tokio::test(start_paused = true)]
async fn exhausted_attempts_make_a_dead_letter_and_the_key_goes_on() {
    let world = World::default();
    for payload in ["a", "poison", "b"] {
        world.append("k", payload);
    }
    let run = Run::start(world.keeper(|payload| match payload {
        "poison" => Err("no good".into()),
        _ => Ok(()),
    }));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a", "b"]);
    let [dead] = &world.inbox.dead()[..] else {
        panic!("one dead letter");
    };
    assert_eq!((dead.consumer.as_str(), dead.attempts), ("billing", 3));
    assert_eq!((dead.record.offset, dead.error.as_str()), (1, "no good"));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_and_an_unreadable_body_are_dead_at_once() {
    let world = World::default();
    world.append("k", "not json");
    let consumer = world.consumer().on("orders", |record, _tx| async move {
        let _: u64 = record.json()?;
        Ok(())
    });
    let run = Run::start(consumer);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.inbox.dead()[0].attempts, 1);

    let world = World::default();
    world.append("k", "a");
    let run = Run::start(world.keeper(|_| Err(HandlerError::permanent("never"))));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.inbox.dead()[0].attempts, 1);
    assert_eq!(
        world.payloads(),
        [""; 0],
        "the failed attempt was rolled back"
    );
}

#[tokio::test(start_paused = true)]
async fn under_the_stop_policy_the_consumer_ends_and_the_next_run_starts_with_the_record() {
    let world = World::default();
    for payload in ["a", "poison", "b"] {
        world.append("k", payload);
    }
    let refuse = |payload: &str| match payload {
        "poison" => Err("no good".into()),
        _ => Ok(()),
    };
    let run = Run::start(world.keeper(refuse).on_dead(DeadPolicy::Stop));
    let error = soon(run.task)
        .await
        .expect("no panic")
        .expect_err("stopped");
    let text = error.to_string();
    assert!(text.contains("orders partition 0 offset 1"), "{text}");
    assert!(
        text.contains("after 3 attempts") && text.contains("no good"),
        "{text}"
    );
    assert_eq!(world.source.committed_offset("billing", &orders()), Some(1));
    assert_eq!(
        (world.payloads(), world.inbox.dead().len()),
        (vec!["a".to_owned()], 0)
    );

    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a", "poison", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_is_a_failed_attempt() {
    let world = World::default();
    world.append("k", "boom");
    world.append("k", "a");
    let run = Run::start(world.keeper(|payload| match payload {
        "boom" => panic!("with a reason"),
        _ => Ok(()),
    }));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a"]);
    assert_eq!(
        world.inbox.dead()[0].error,
        "the handler panicked: with a reason"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cut_off_and_counts_as_failed() {
    let world = World::default();
    world.append("k", "hang");
    world.append("k", "a");
    let consumer = world.consumer().on("orders", |record, mut tx| async move {
        tx.push(effect_of(&record));
        if &record.payload[..] == b"hang" {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let run = Run::start(consumer.attempt_timeout(Duration::from_secs(2)));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a"]);
    assert_eq!(
        world.inbox.dead()[0].error,
        "the handler took longer than 2s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_keeps_the_transaction_has_failed_and_nothing_of_it_commits() {
    let world = World::default();
    world.append("k", "a");
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = kept.clone();
    let consumer = world.consumer().on("orders", move |record, mut tx| {
        let keep = keep.clone();
        async move {
            tx.push(effect_of(&record));
            keep.lock().expect("no panic").push(tx);
            Ok(())
        }
    });
    let run = Run::start(consumer);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), [""; 0]);
    assert!(world.inbox.dead()[0].error.contains("kept the transaction"));
}

#[tokio::test(start_paused = true)]
async fn in_a_batch_only_the_failing_record_burns_attempts() {
    let world = World::default();
    for n in 0..100 {
        world.append("k", if n == 41 { "poison" } else { "fine" });
    }
    let run = Run::start(world.keeper(|payload| match payload {
        "poison" => Err("no good".into()),
        _ => Ok(()),
    }));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads().len(), 99);
    let dead: Vec<_> = world
        .inbox
        .dead()
        .iter()
        .map(|d| (d.record.offset, d.attempts))
        .collect();
    assert_eq!(dead, [(41, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_gets_runs_of_records_and_a_failing_one_is_isolated() {
    let world = World::default();
    for n in 0..100 {
        world.append("k", if n == 41 { "poison" } else { "fine" });
    }
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let consumer = world.consumer().on_batch("orders", move |records, mut tx| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(!records.is_empty());
            for record in &records {
                tx.push(effect_of(record));
            }
            match records.iter().any(|r| &r.payload[..] == b"poison") {
                true => Err("no good".into()),
                false => Ok(()),
            }
        }
    });
    let run = Run::start(consumer);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads().len(), 99);
    let dead: Vec<_> = world
        .inbox
        .dead()
        .iter()
        .map(|d| (d.record.offset, d.attempts))
        .collect();
    assert_eq!(dead, [(41, 3)]);
    assert!(
        calls.load(Ordering::Relaxed) < 30,
        "records were not batched"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_only_batches_cause_burns_no_attempt() {
    let world = World::default();
    for n in 0..64 {
        world.append("k", &n.to_string());
    }
    let consumer = world
        .consumer()
        .on_batch("orders", move |records, mut tx| async move {
            for record in &records {
                tx.push(effect_of(record));
            }
            match records.len() {
                1 => Ok(()),
                _ => Err("deadlock".into()),
            }
        });
    let run = Run::start(consumer.retry(policy(1)));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    let expected: Vec<String> = (0..64).map(|n| n.to_string()).collect();
    assert_eq!((world.payloads(), world.inbox.dead().len()), (expected, 0));
}
