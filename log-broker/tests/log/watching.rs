//! Readers that wait hear of their partitions and of no others.

use std::time::Duration;

use outbox_log_broker::Watch;

use crate::disk::SimDisk;
use crate::rig::{Client, TOPIC, append, create_topic, open, run};

fn is_told(watch: &Watch) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    // All is told before the append returns, so that nothing needs to be waited for.
    runtime.expect("a runtime").block_on(async {
        let told = tokio::time::timeout(Duration::ZERO, watch.changed());
        told.await.is_ok()
    })
}

fn text(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

#[test]
fn only_whoever_watches_the_partition_is_told_and_once() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 3).expect("created");
    let (first, both) = (
        log.watch(vec![(TOPIC.into(), 0)]),
        log.watch(vec![(TOPIC.into(), 0), (TOPIC.into(), 1)]),
    );
    append(&log, &[(2, text("nobody's"))]).expect("appended");
    assert!(!is_told(&first) && !is_told(&both));
    append(&log, &[(1, text("one"))]).expect("appended");
    assert!(!is_told(&first) && is_told(&both) && !is_told(&both));
    append(&log, &[(0, text("zero")), (1, text("one"))]).expect("appended");
    assert!(is_told(&first) && is_told(&both) && !is_told(&both));
}

#[test]
fn the_end_of_a_transaction_is_news_in_each_of_its_partitions() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 2).expect("created");
    let mut client = Client::begin(&log, "a");
    client.add(&log, &[0]).expect("added");
    client.send(&log, 0, "text").expect("sent");
    let watches = [0, 1].map(|n| log.watch(vec![(TOPIC.into(), n)]));
    client.end(&log, true).expect("ended");
    assert_eq!(watches.each_ref().map(is_told), [true, false]);
}

#[test]
fn a_change_of_topics_is_news_for_everybody() {
    let log = open(&SimDisk::default()).expect("opens");
    create_topic(&log, 1).expect("created");
    let watch = log.watch(vec![(TOPIC.into(), 0), ("later".into(), 7)]);
    run(log.delete_topic(TOPIC)).expect("deleted");
    assert!(is_told(&watch) && !is_told(&watch));
}
