//! Promise: each record is applied exactly once, in the order of its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outbox_core::{RetryPolicy, TopicPartition};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::HandlerError;

#[tokio::test(start_paused = true)]
async fn every_record_is_applied_once_and_its_offset_committed() {
    let world = World::default();
    for n in 0..1_000 {
        world.append(&format!("k{}", n % 17), &n.to_string());
    }
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    let mut numbers: Vec<i32> = world
        .payloads()
        .iter()
        .map(|p| p.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_record_delivered_twice_is_applied_once() {
    let world = World::default();
    let twice = record("orders", "k", "a");
    world.source.append(twice.clone());
    world.source.append(twice.clone());
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    world.source.append(twice);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn records_without_an_id_are_recognised_by_their_place() {
    let world = World::default();
    for payload in ["a", "b"] {
        let mut record = record("orders", "k", payload);
        record.id = None;
        world.source.append(record);
    }
    // The answers of both commits get lost, so that both records are applied again.
    world.inbox.lose_answers(2);
    let run = Run::start(world.keeper(|_| Ok(())).batch(1));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn two_consumers_with_two_names_both_apply() {
    let world = World::default();
    world.append("k", "a");
    let billing = Run::start(world.keeper(|_| Ok(())));
    let shipping = Run::start(world.keeper(|_| Ok(())).name("shipping"));
    let both = || world.payloads().len() == 2;
    until(both, || "two effects".to_owned()).await;
    billing.stop().await.expect("clean");
    shipping.stop().await.expect("clean");
}

#[tokio::test(start_paused = true)]
async fn a_topic_and_a_partition_that_appear_later_are_read() {
    let world = World::default();
    let consumer = world.consumer().on("*", |record, mut tx| async move {
        tx.push(effect_of(&record));
        Ok(())
    });
    let run = Run::start(consumer);
    world.append("k", "first");
    soon(world.settled()).await;
    world.source.append(record("invoices", "k", "other topic"));
    let mut late = record("orders", "k", "other partition");
    late.partition.partition = 7;
    world.source.append(late);
    until(
        || world.payloads().len() == 3,
        || "three effects".to_owned(),
    )
    .await;
    run.stop().await.expect("clean");
}

#[tokio::test(start_paused = true)]
async fn the_first_pattern_that_covers_a_topic_has_it() {
    let world = World::default();
    world.append("k", "a");
    let consumer = (world.consumer())
        .on("orders", |_, mut tx| async move {
            tx.push(("first".to_owned(), String::new()));
            Ok(())
        })
        .on("*", |_, mut tx| async move {
            tx.push(("second".to_owned(), String::new()));
            Ok(())
        });
    let run = Run::start(consumer);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.inbox.effects()[0].0, "first");
}

/// Handlers that fail at random, lost answers, an inbox that comes and goes, redelivered records
/// and crashes at random: every record is applied exactly once, and every key in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_failures_and_crashes_break_neither_once_nor_order() {
    let seed = rand::random::<u64>();
    println_seed(seed);
    let world = World::default();
    let mut rng = StdRng::seed_from_u64(seed);
    append_at_random(&world, &mut rng);
    let ends = |world: &World| -> Vec<(TopicPartition, i64)> {
        (0..3)
            .map(|p| (partition(p), world.source.end(&partition(p))))
            .collect()
    };
    for crash in 0..30 {
        world.inbox.lose_answers(rng.random_range(0..3));
        let run = Run::start(faulty(&world, seed ^ crash));
        let some = world.inbox.effects().len() + rng.random_range(1..150);
        let all = 3_000;
        until_real(|| world.inbox.effects().len() >= some.min(all)).await;
        run.kill().await;
    }
    let run = Run::start(faulty(&world, seed));
    for (of, end) in ends(&world) {
        until_real(|| world.source.committed_offset("billing", &of) == Some(end)).await;
    }
    run.stop().await.expect("clean");
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for (key, payload) in world.inbox.effects() {
        let n: i64 = payload.parse().expect("a number");
        let expected = last.get(&key).map_or(0, |last| last + 1);
        assert_eq!(n, expected, "key {key}, seed {seed}");
        last.insert(key, n);
    }
    assert_eq!(world.inbox.effects().len(), 3_000, "seed {seed}");
    assert!(world.inbox.dead().is_empty(), "seed {seed}");
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition {
        topic: "orders".into(),
        partition: number,
    }
}

/// 3,000 messages of 60 keys over three partitions, one in ten of them delivered twice.
fn append_at_random(world: &World, rng: &mut StdRng) {
    let mut next = BTreeMap::new();
    for _ in 0..3_000 {
        let key = rng.random_range(0..60);
        let n = next.entry(key).and_modify(|n| *n += 1).or_insert(0);
        let mut record = record("orders", &format!("k{key}"), n.to_string());
        record.partition.partition = key % 3;
        if rng.random_bool(0.1) {
            world.source.append(record.clone());
        }
        world.source.append(record);
    }
}

fn faulty(world: &World, seed: u64) -> Consumer<Inbox> {
    let calls = Arc::new(AtomicU64::new(seed));
    let retry = RetryPolicy {
        initial: Duration::from_micros(200),
        max: Duration::from_millis(2),
        max_attempts: None,
        ..RetryPolicy::default()
    };
    let keeper = world.keeper(move |_| {
        let mut rng = StdRng::seed_from_u64(calls.fetch_add(1, Ordering::Relaxed));
        match rng.random_range(0..200) {
            0 => Err(HandlerError::transient("at random")),
            1 => Err(HandlerError::outage("at random")),
            2 => panic!("at random"),
            _ => Ok(()),
        }
    });
    // Queues shorter than a batch: workers fall behind, and catch up, all the time.
    keeper.retry(retry).workers(4).batch(32).queue(8)
}

/// As `until`, for tests on a running clock.
async fn until_real(done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < limit, "it never came");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Captured by the test runner, and shown when the test fails.
#[expect(clippy::print_stdout)]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}
