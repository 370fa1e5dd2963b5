//! One key with more followers than rows are allowed for.

use std::time::Duration;

use outbox_core::limits::PARKED_ROWS_PER_KEY_MAX;
use outbox_core::{Capabilities, DeliveryState, RequestAction};

use crate::support::{Bed, Fate, ScriptedBroker, message, pass};

/// The strictest broker: it believes what batches say of the log.
fn believing() -> ScriptedBroker {
    ScriptedBroker::with(Capabilities {
        ordered_batches: true,
        fences: true,
        drops_duplicates: true,
    })
}

fn poison_first(broker: &ScriptedBroker) {
    broker.script(|m| match m.seq == 1 && m.redelivery == 0 {
        true => Fate::Permanent,
        false => Fate::Accept,
    });
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_messages_behind_one_poisoned_key_cost_a_thousand_rows() {
    let bed = Bed::new(believing());
    poison_first(&bed.broker);
    for n in 0..101_000 {
        bed.enqueue(if n % 101 == 100 { "other" } else { "poisoned" });
    }
    let relay = bed.start("a");
    bed.until("other keys flow", || bed.broker.seqs().len() == 1_000)
        .await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(bed.broker.seqs().len(), 1_000);
    assert!(bed.store.tables().most_rows <= PARKED_ROWS_PER_KEY_MAX + 1);
    bed.store.request("d", RequestAction::Resend, &[1]);
    bed.done().await;
    assert_eq!(bed.broker.seqs().len(), 101_000, "each exactly once");
    assert_eq!(bed.broker.out_of_order(), []);
    assert!(bed.store.tables().destinations["d"].rows.is_empty());
    let marked = bed.enqueue("poisoned");
    bed.done().await;
    assert_eq!(bed.broker.seqs().last(), Some(&marked), "the key is free");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_marker_outlives_the_relay_and_catches_up_under_traffic() {
    let bed = Bed::new(believing());
    poison_first(&bed.broker);
    bed.enqueue_many("k", 5_000);
    let first = bed.start("a");
    bed.until("settled", || {
        bed.store.tables().destinations["d"].cursor == 5_000
    })
    .await;
    first.kill().await;
    let second = bed.start("b");
    bed.enqueue_many("k", 2_000);
    pass(Duration::from_secs(20)).await;
    bed.store.request("d", RequestAction::Unblock, &[1]);
    for _ in 0..200 {
        bed.enqueue_many("k", 10);
        pass(Duration::from_millis(7)).await;
    }
    bed.until("caught up", || {
        bed.store.tables().destinations["d"].markers.is_empty()
    })
    .await;
    bed.until("all went", || bed.broker.seqs().len() == 8_999)
        .await;
    assert_eq!(bed.broker.seqs(), (2..=9_000).collect::<Vec<_>>());
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_behind_a_marker_stops_there_and_goes_on_from_there() {
    let bed = Bed::new(believing());
    let mut failures = 2;
    bed.broker.script(move |m| match m.seq {
        1 if m.redelivery == 0 => Fate::Permanent,
        3_000 if failures > 0 => {
            failures -= 1;
            Fate::Transient
        }
        _ => Fate::Accept,
    });
    bed.enqueue_many("k", 6_000);
    let relay = bed.start("a");
    bed.until("marked", || {
        bed.store.tables().destinations["d"].cursor == 6_000
    })
    .await;
    bed.store.request("d", RequestAction::Resend, &[1]);
    bed.done().await;
    assert_eq!(bed.broker.seqs(), (1..=6_000).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn late_and_scheduled_messages_of_a_marked_key_come_through() {
    let bed = Bed::new(ScriptedBroker::plain());
    poison_first(&bed.broker);
    bed.enqueue_many("k", 10);
    let early = bed.store.begin(message("k"));
    bed.enqueue_many("k", 2_000);
    let behind = bed.store.begin(message("k"));
    let due = chrono::TimeDelta::minutes(30);
    let now = outbox_core::Clock::now(&bed.clock);
    let scheduled = bed.store.enqueue(message("k").deliver_after(now + due));
    bed.enqueue_many("k", 10);
    let relay = bed.start("a");
    bed.until("marked", || {
        bed.store.tables().destinations["d"].markers.len() == 1
    })
    .await;
    bed.store.commit(early);
    bed.store.commit(behind);
    pass(Duration::from_secs(5)).await;
    assert_eq!(bed.store.state_of("d", early), Some(DeliveryState::Parked));
    assert_eq!(
        bed.store.state_of("d", behind),
        None,
        "the marker covers it"
    );
    bed.store.request("d", RequestAction::Discard, &[1]);
    bed.done().await;
    assert_eq!(bed.broker.seqs().last(), Some(&scheduled));
    assert_eq!(bed.broker.seqs().len(), 2_022);
    assert_eq!(bed.broker.out_of_order(), []);
    relay.stop().await;
}
