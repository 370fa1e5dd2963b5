//! Many relays, one leader for each destination.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outbox_core::{AlertKind, AlertState};
use outbox_relay::RelayOptions;

use crate::support::{Bed, ScriptedBroker, destination, pass};

fn shares(bed: &Bed) -> BTreeMap<Option<String>, usize> {
    let mut shares = BTreeMap::new();
    for owner in bed.store.owners().into_values() {
        *shares.entry(owner).or_default() += 1;
    }
    shares
}

fn share(bed: &Bed, relay: &str) -> usize {
    shares(bed)
        .get(&Some(relay.to_owned()))
        .copied()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn two_relays_share_seven_destinations_and_one_takes_over_when_the_other_dies() {
    let seven: Vec<_> = (0..7).map(|n| destination(&format!("d{n}"))).collect();
    let bed = Bed::with(ScriptedBroker::plain(), &seven);
    let one = bed.start("one");
    bed.until("one leads all", || share(&bed, "one") == 7).await;
    let two = bed.start("two");
    bed.until("they share", || {
        share(&bed, "one") == 4 && share(&bed, "two") == 3
    })
    .await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(
        (share(&bed, "one"), share(&bed, "two")),
        (4, 3),
        "and it stays so"
    );
    one.kill().await;
    pass(Duration::from_secs(4)).await;
    assert_eq!(share(&bed, "two"), 3, "not before the TTL");
    pass(Duration::from_secs(6)).await;
    assert_eq!(share(&bed, "two"), 7);
    bed.enqueue("k");
    bed.until("all seven get it", || bed.broker.seqs().len() == 7)
        .await;
    two.stop().await;
    assert_eq!(shares(&bed), BTreeMap::from([(None, 7)]));
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_finishes_what_is_in_flight_and_hands_over_at_once() {
    let bed = Bed::new(ScriptedBroker::plain());
    let one = bed.start("one");
    bed.until("one leads", || share(&bed, "one") == 1).await;
    let two = bed.start("two");
    pass(Duration::from_secs(10)).await;
    bed.broker.state().latency = Duration::from_secs(3);
    bed.enqueue("k");
    pass(Duration::from_secs(1)).await;
    one.stop().await;
    assert_eq!(bed.broker.seqs(), [1], "finished");
    assert!(bed.store.is_done("d"), "and settled");
    assert_eq!(share(&bed, "one"), 0);
    pass(Duration::from_secs(2)).await;
    assert_eq!(share(&bed, "two"), 1, "well before the TTL");
    two.stop().await;
    assert_eq!(bed.broker.seqs(), [1], "nothing twice");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_soon_even_when_the_leaver_stays_on_the_board() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.store.tables().keeps_leavers = true;
    let one = bed.start("one");
    bed.until("one leads", || share(&bed, "one") == 1).await;
    let two = bed.start("two");
    pass(Duration::from_secs(10)).await;
    one.stop().await;
    pass(Duration::from_secs(4)).await;
    assert_eq!(share(&bed, "two"), 1, "before the TTL");
    two.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_abandons_what_takes_too_long_and_loses_nothing() {
    let bed = Bed::new(ScriptedBroker::plain());
    let one = bed.start("one");
    bed.broker.state().latency = Duration::from_secs(20);
    bed.enqueue("k");
    pass(Duration::from_secs(3)).await;
    let began = tokio::time::Instant::now();
    one.stop().await;
    assert!(
        began.elapsed() <= Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(share(&bed, "one"), 0, "handed over all the same");
    bed.broker.state().latency = Duration::ZERO;
    let two = bed.start("two");
    bed.done().await;
    assert!(bed.broker.seqs().contains(&1));
    two.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_an_outage_does_not_wait_for_the_broker() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.broker.state().outage = true;
    bed.enqueue("k");
    let one = bed.start("one");
    pass(Duration::from_secs(60)).await;
    let began = tokio::time::Instant::now();
    one.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(share(&bed, "one"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hangs_past_its_lease_changes_nothing_any_more() {
    let bed = Bed::new(ScriptedBroker::plain());
    let zombie = bed.start("zombie");
    bed.until("it leads", || share(&bed, "zombie") == 1).await;
    bed.store.settles_hang.send_replace(true);
    bed.enqueue("k");
    bed.until("published, not settled", || bed.broker.seqs() == [1])
        .await;
    // Its beats stop too, as under SIGSTOP.
    bed.store.tables().silent.insert("zombie".to_owned());
    let heir = bed.start("heir");
    bed.until("the heir leads", || share(&bed, "heir") == 1)
        .await;
    pass(Duration::from_secs(1)).await;
    bed.store.settles_hang.send_replace(false);
    bed.until("the heir settles", || bed.store.is_done("d"))
        .await;
    bed.until("the zombie is refused", || {
        bed.store.tables().refused_settles == 1
    })
    .await;
    bed.enqueue("k");
    bed.until("the heir goes on", || bed.store.is_done("d"))
        .await;
    let epochs: Vec<_> = bed
        .broker
        .state()
        .stored
        .iter()
        .map(|s| (s.seq, s.epoch))
        .collect();
    assert_eq!(
        epochs,
        [(1, 1), (1, 2), (2, 2)],
        "one duplicate, from the new leader"
    );
    zombie.kill().await;
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_slept_past_its_deadline_publishes_nothing_under_its_old_epoch() {
    let bed = Bed::new(ScriptedBroker::plain());
    let clock = bed.clock.twin();
    let options = RelayOptions {
        clock: Arc::new(clock.clone()),
        ..bed.options("sleeper")
    };
    let sleeper = bed.start_with(options);
    bed.until("it leads", || share(&bed, "sleeper") == 1).await;
    pass(Duration::from_secs(3)).await;
    // Between two beats the machine sleeps for an hour, and wakes up with a message waiting.
    clock.jump(Duration::from_secs(3600));
    bed.enqueue("k");
    bed.done().await;
    let epochs: Vec<_> = bed.broker.state().stored.iter().map(|s| s.epoch).collect();
    assert_eq!(epochs, [2], "only after it had claimed the lease anew");
    sleeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_leader_stops_and_competes_again() {
    let bed = Bed::new(ScriptedBroker::plain());
    let relay = bed.start("a");
    bed.broker.state().fenced = true;
    bed.enqueue("k");
    pass(Duration::from_secs(30)).await;
    let epoch = bed.store.tables().destinations["d"].epoch;
    assert!((2..40).contains(&epoch), "{epoch} claims");
    assert_eq!(bed.store.tables().most_rows, 0, "no message is to blame");
    bed.broker.state().fenced = false;
    bed.done().await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_destination_is_led_by_nobody_until_it_is_resumed() {
    let bed = Bed::new(ScriptedBroker::plain());
    let relay = bed.start("a");
    bed.until("it leads", || share(&bed, "a") == 1).await;
    bed.store.pause("d", true);
    bed.until("given back", || share(&bed, "a") == 0).await;
    bed.enqueue("k");
    pass(Duration::from_secs(30)).await;
    assert_eq!(bed.broker.seqs(), [] as [i64; 0]);
    bed.store.pause("d", false);
    bed.done().await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_the_store_is_not_published_from_until_it_is_adopted() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.store.tables().foreign = true;
    bed.enqueue("k");
    let relay = bed.start("a");
    pass(Duration::from_secs(120)).await;
    assert_eq!(bed.broker.seqs(), [] as [i64; 0]);
    let stopped = bed.alerts.of(AlertKind::Stopped, AlertState::Firing);
    assert_eq!(stopped.len(), 1);
    assert!(
        stopped[0].text.contains("outbox adopt"),
        "{}",
        stopped[0].text
    );
    bed.store.tables().foreign = false;
    bed.done().await;
    pass(Duration::from_secs(61)).await;
    assert_eq!(
        bed.alerts
            .of(AlertKind::Stopped, AlertState::Resolved)
            .len(),
        1
    );
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_waited_for_and_told_once() {
    let bed = Bed::new(ScriptedBroker::plain());
    bed.store.tables().down = true;
    let relay = bed.start("a");
    pass(Duration::from_secs(30)).await;
    bed.store.tables().down = false;
    bed.enqueue("k");
    bed.done().await;
    bed.store.tables().down = true;
    pass(Duration::from_secs(300)).await;
    bed.store.tables().down = false;
    bed.enqueue("k");
    bed.done().await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(
        bed.alerts.of(AlertKind::Outage, AlertState::Firing).len(),
        1
    );
    assert_eq!(
        bed.alerts.of(AlertKind::Outage, AlertState::Resolved).len(),
        1
    );
    assert_eq!(bed.broker.seqs(), [1, 2]);
    assert!(bed.store.tables().maintained > 3);
    relay.stop().await;
}
