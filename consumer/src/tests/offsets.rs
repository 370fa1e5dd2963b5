//! Offsets: committed behind the lowest unfinished record, at a stop, and when the log moved.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;
use crate::limits;

/// A consumer whose handler waits for a permit before the payload "wait".
fn gated(world: &World, gate: &Arc<Semaphore>) -> Consumer<Inbox> {
    let gate = gate.clone();
    world.consumer().on("orders", move |record, mut tx| {
        let gate = gate.clone();
        async move {
            if &record.payload[..] == b"wait" {
                gate.acquire().await.expect("open").forget();
            }
            tx.push(effect_of(&record));
            Ok(())
        }
    })
}

/// Two keys that different workers serve, of four.
fn two_keys() -> (String, String) {
    let worker =
        |key: &String| crate::queue::worker_of(&record("orders", key, ""), limits::WORKERS);
    let first = "k0".to_owned();
    let others = (1..).map(|n| format!("k{n}"));
    let second = others
        .into_iter()
        .find(|k| worker(k) != worker(&first))
        .expect("one");
    (first, second)
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_not_committed_past_a_record_that_is_not_finished() {
    let world = World::default();
    let (slow, fast) = two_keys();
    world.append(&fast, "0");
    world.append(&slow, "wait");
    for n in 2..20 {
        world.append(&fast, &n.to_string());
    }
    let gate = Arc::new(Semaphore::new(0));
    let run = Run::start(gated(&world, &gate));
    until(
        || world.payloads_of(&fast).len() == 19,
        || "all fast ones".to_owned(),
    )
    .await;
    sleep(limits::COMMIT_INTERVAL * 3).await;
    assert_eq!(world.source.committed_offset("billing", &orders()), Some(1));
    gate.add_permits(1);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_flight_and_commits_it() {
    let world = World::default();
    world.append("k", "wait");
    let gate = Arc::new(Semaphore::new(0));
    let run = Run::start(gated(&world, &gate).batch(1));
    sleep(Duration::from_secs(1)).await;
    world.append("k", "later");
    run.stop.cancel();
    sleep(Duration::from_secs(1)).await;
    assert!(
        !run.task.is_finished(),
        "it waits for the transaction in flight"
    );
    gate.add_permits(1);
    soon(run.stop()).await.expect("clean");
    assert_eq!(world.payloads(), ["wait"]);
    assert_eq!(world.source.committed_offset("billing", &orders()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_at_most_ten_seconds_and_rolls_back_what_hangs() {
    let world = World::default();
    world.append("k", "wait");
    let gate = Arc::new(Semaphore::new(0));
    let run = Run::start(gated(&world, &gate));
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    run.stop().await.expect("clean");
    assert!(
        asked.elapsed() <= Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(world.payloads(), [""; 0]);
    assert_eq!(world.source.committed_offset("billing", &orders()), None);
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_transaction_and_the_offset_applies_nothing_twice() {
    let world = World::default();
    for n in 0..50 {
        world.append("k", &n.to_string());
    }
    let run = Run::start(world.keeper(|_| Ok(())));
    until(|| world.payloads().len() == 50, || "all effects".to_owned()).await;
    assert_eq!(
        world.source.committed_offset("billing", &orders()),
        None,
        "no offset yet"
    );
    run.kill().await;
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_slower_than_retention_goes_on_at_the_first_record_held() {
    let world = World::default();
    for n in 0..10 {
        world.append("k", &n.to_string());
    }
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    for n in 10..20 {
        world.append("k", &n.to_string());
    }
    world.source.retain_from(&orders(), 15);
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    let expected: Vec<String> = (0..10).chain(15..20).map(|n| n.to_string()).collect();
    assert_eq!(world.payloads(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_made_anew_is_read_from_its_start() {
    let world = World::default();
    for n in 0..10 {
        world.append("k", &n.to_string());
    }
    let run = Run::start(world.keeper(|_| Ok(())));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    // The same offsets were committed at a source that holds less now.
    let anew = World {
        source: MemorySource::new(),
        inbox: world.inbox.clone(),
    };
    anew.append("k", "new");
    let committed = [(orders(), 10)];
    outbox_core::Source::commit(&anew.source, "billing", &committed)
        .await
        .expect("stored");
    let run = Run::start(anew.keeper(|_| Ok(())));
    let last = || anew.payloads().last().cloned();
    until(
        || last().as_deref() == Some("new"),
        || "the new record".to_owned(),
    )
    .await;
    run.stop().await.expect("clean");
    assert_eq!(anew.source.committed_offset("billing", &orders()), Some(1));
}
