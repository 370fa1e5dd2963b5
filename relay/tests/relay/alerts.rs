//! What an operator is told: once when it begins, once when it ends, and in time.

use std::time::Duration;

use outbox_core::{Alert, AlertKind, AlertState, Message};

use crate::support::{Bed, ScriptedBroker, destination, pass};

/// Time for a summed-up or resolved notice to come out: the alerts' interval and a little.
const AN_INTERVAL: Duration = Duration::from_secs(65);

fn firing(bed: &Bed, kind: AlertKind) -> Vec<Alert> {
    bed.alerts.of(kind, AlertState::Firing)
}

fn resolved(bed: &Bed, kind: AlertKind) -> usize {
    bed.alerts.of(kind, AlertState::Resolved).len()
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_stays_open_is_told_once_and_so_is_its_end() {
    let bed = Bed::new(ScriptedBroker::plain());
    let held = bed.store.begin(Message::bytes("orders.placed", "held"));
    bed.enqueue("k");
    let relay = bed.start("a");
    pass(Duration::from_secs(58)).await;
    assert_eq!(bed.broker.seqs(), [2], "nothing waits for the gap");
    assert!(firing(&bed, AlertKind::StuckGap).is_empty(), "young still");
    pass(Duration::from_secs(600)).await;
    let told = firing(&bed, AlertKind::StuckGap);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].destination.as_deref(), Some("d"));
    assert!(told[0].text.contains("1 open gap(s)"), "{}", told[0].text);
    assert!(told[0].text.contains("outbox doctor"), "{}", told[0].text);
    assert_eq!(resolved(&bed, AlertKind::StuckGap), 0);
    bed.store.commit(held);
    bed.done().await;
    pass(AN_INTERVAL).await;
    assert_eq!(bed.broker.seqs(), [2, 1]);
    assert_eq!(resolved(&bed, AlertKind::StuckGap), 1);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_lags_is_told_once_and_so_is_its_recovery() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.broker.state().outage = true;
    bed.enqueue("k");
    let relay = bed.start("a");
    pass(Duration::from_secs(298)).await;
    assert!(
        firing(&bed, AlertKind::Lag).is_empty(),
        "not yet five minutes"
    );
    pass(Duration::from_secs(900)).await;
    let told = firing(&bed, AlertKind::Lag);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains("more than 300 s"), "{}", told[0].text);
    bed.broker.state().outage = false;
    bed.done().await;
    pass(AN_INTERVAL).await;
    assert_eq!(resolved(&bed, AlertKind::Lag), 1);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_threshold_nobody_is_told_of_a_lag() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.broker.state().outage = true;
    bed.enqueue("k");
    let mut options = bed.options("a");
    options.alerts.lag_after = None;
    let relay = bed.start_with(options);
    pass(Duration::from_secs(3_600)).await;
    assert!(firing(&bed, AlertKind::Lag).is_empty());
    assert_eq!(firing(&bed, AlertKind::Outage).len(), 1);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_nobody_covers_are_told_of_with_topic_and_count() {
    let broker = ScriptedBroker::plain();
    let bed = Bed::with(broker, &[destination("d"), destination("e")]);
    let relay = bed.start("a");
    let mistyped = || bed.store.enqueue(Message::bytes("odres.placed", "x"));
    mistyped();
    pass(Duration::from_secs(5)).await;
    let told = firing(&bed, AlertKind::Unrouted);
    assert_eq!(told.len(), 1, "two destinations, one notice: {told:?}");
    assert_eq!(told[0].count, 1);
    assert!(
        told[0].text.contains("\"odres.placed\""),
        "{}",
        told[0].text
    );
    for _ in 0..3 {
        mistyped();
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(
        firing(&bed, AlertKind::Unrouted).len(),
        1,
        "summed up first"
    );
    pass(AN_INTERVAL).await;
    let told = firing(&bed, AlertKind::Unrouted);
    assert_eq!(told.iter().map(|a| a.count).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(bed.broker.seqs(), [] as [i64; 0]);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_in_the_default_partition_are_told_of_until_they_are_gone() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.store.tables().default_rows = 5;
    let relay = bed.start("a");
    pass(Duration::from_secs(30)).await;
    let told = firing(&bed, AlertKind::DefaultPartition);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        told[0].destination, None,
        "it is the store's, not one destination's"
    );
    assert!(told[0].text.contains("5 row(s)"), "{}", told[0].text);
    bed.store.tables().default_rows = 7;
    pass(Duration::from_secs(300)).await;
    assert_eq!(firing(&bed, AlertKind::DefaultPartition).len(), 1);
    assert_eq!(resolved(&bed, AlertKind::DefaultPartition), 0);
    bed.store.tables().default_rows = 0;
    pass(2 * AN_INTERVAL).await;
    assert_eq!(resolved(&bed, AlertKind::DefaultPartition), 1);
    relay.stop().await;
}

/// A seed repeats a run to the last wait: the instants of all tries in an outage are the same.
#[tokio::test(start_paused = true)]
async fn a_seed_repeats_every_random_wait() {
    let calls = |seed: u64| async move {
        let mut bed = Bed::new(ScriptedBroker::plain());
        bed.seed = seed;
        bed.broker.state().outage = true;
        bed.enqueue("k");
        let relay = bed.start("a");
        let mut calls = Vec::new();
        for _ in 0..600 {
            pass(Duration::from_millis(50)).await;
            calls.push(bed.broker.state().calls);
        }
        relay.stop().await;
        calls
    };
    let first = calls(1).await;
    assert!(first.last() > Some(&5), "{first:?}");
    assert_eq!(first, calls(1).await);
    assert_ne!(first, calls(2).await);
}
