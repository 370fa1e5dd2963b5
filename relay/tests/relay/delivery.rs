//! What goes well, and what goes wrong at the broker.

use std::time::Duration;

use chrono::TimeDelta;
use outbox_core::{
    AlertKind, AlertState, Capabilities, Clock, DeliveryState, Message, OnDead, Order,
    RequestAction, RetryPolicy,
};

use crate::support::{Bed, Fate, ScriptedBroker, destination, message, pass};

#[tokio::test(start_paused = true)]
async fn every_committed_message_is_sent_once_in_order_and_settled() {
    let bed = Bed::new(ScriptedBroker::plain());
    let relay = bed.start("a");
    for round in 0..200 {
        bed.enqueue(&format!("k{}", round % 7));
        pass(Duration::from_millis(round % 3)).await;
    }
    bed.done().await;
    assert_eq!(bed.broker.seqs(), (1..=200).collect::<Vec<_>>());
    assert!(bed.store.tables().settles <= 30, "settles are coalesced");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_many_pages_goes_out_in_order() {
    let bed = Bed::new(ScriptedBroker::plain());
    for n in 0..30_000 {
        bed.enqueue(&format!("k{}", n % 100));
    }
    bed.broker.state().latency = Duration::from_millis(20);
    let relay = bed.start("a");
    bed.done().await;
    assert_eq!(bed.broker.seqs(), (1..=30_000).collect::<Vec<_>>());
    assert!(bed.broker.state().batches <= 5);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_every_backoff_burns_no_attempt_and_kills_nothing() {
    let bed = Bed::new(ScriptedBroker::plain());
    let relay = bed.start("a");
    bed.broker.state().outage = true;
    for n in 0..50 {
        bed.enqueue(&format!("k{}", n % 5));
    }
    pass(Duration::from_secs(3600)).await;
    assert_eq!(
        bed.store.tables().most_rows,
        0,
        "nothing is parked, nothing retried"
    );
    assert!(bed.broker.state().calls < 2_000, "it backs off");
    bed.broker.state().outage = false;
    bed.done().await;
    assert_eq!(bed.broker.seqs(), (1..=50).collect::<Vec<_>>());
    pass(Duration::from_secs(120)).await;
    assert_eq!(
        bed.alerts.of(AlertKind::Outage, AlertState::Firing).len(),
        1
    );
    assert_eq!(
        bed.alerts.of(AlertKind::Outage, AlertState::Resolved).len(),
        1
    );
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_message_holds_its_key_and_no_other() {
    let bed = Bed::new(ScriptedBroker::plain());
    let mut failures = 3;
    bed.broker.script(move |m| {
        if m.seq == 2 && failures > 0 {
            failures -= 1;
            return Fate::Transient;
        }
        Fate::Accept
    });
    for key in ["a", "b", "a", "b", "b", "c"] {
        bed.enqueue(key);
    }
    let relay = bed.start("a");
    bed.until("others went", || bed.broker.seqs().len() == 3)
        .await;
    assert_eq!(bed.broker.seqs(), [1, 3, 6]);
    bed.until("it is settled", || bed.store.state_of("d", 2).is_some())
        .await;
    assert_eq!(bed.store.state_of("d", 2), Some(DeliveryState::Retrying));
    assert_eq!(bed.store.state_of("d", 4), Some(DeliveryState::Parked));
    assert_eq!(bed.store.row("d", 4).expect("parked").attempts, 0);
    bed.enqueue("b");
    bed.done().await;
    assert_eq!(bed.broker.seqs(), [1, 3, 6, 2, 4, 5, 7]);
    assert!(bed.store.tables().destinations["d"].rows.is_empty());
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn poison_in_the_middle_of_a_key_blocks_it_until_somebody_decides() {
    for action in [
        RequestAction::Discard,
        RequestAction::Unblock,
        RequestAction::Resend,
    ] {
        let bed = Bed::new(ScriptedBroker::plain());
        bed.broker.script(|m| match m.seq {
            3 if m.redelivery == 0 => Fate::Permanent,
            _ => Fate::Accept,
        });
        for key in ["k", "o", "k", "k", "o", "k"] {
            bed.enqueue(key);
        }
        let relay = bed.start("a");
        pass(Duration::from_secs(600)).await;
        assert_eq!(bed.broker.seqs(), [1, 2, 5]);
        assert_eq!(bed.store.state_of("d", 3), Some(DeliveryState::Dead));
        assert_eq!(bed.alerts.of(AlertKind::Dead, AlertState::Firing).len(), 1);
        bed.store.request("d", action, &[3]);
        bed.done().await;
        let rest: &[i64] = match action {
            RequestAction::Resend => &[1, 2, 5, 3, 4, 6],
            _ => &[1, 2, 5, 4, 6],
        };
        assert_eq!(bed.broker.seqs(), rest, "{action:?}");
        let dead = bed.store.state_of("d", 3) == Some(DeliveryState::Dead);
        assert_eq!(dead, action == RequestAction::Unblock);
        relay.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_skip_the_key_goes_on_behind_a_dead_message() {
    let mut skip = destination("d");
    skip.on_dead = OnDead::Skip;
    let bed = Bed::with(ScriptedBroker::plain(), &[skip]);
    bed.broker.script(|m| match m.seq {
        2 | 3 => Fate::Permanent,
        _ => Fate::Accept,
    });
    bed.enqueue_many("k", 5);
    let relay = bed.start("a");
    bed.done().await;
    assert_eq!(bed.broker.seqs(), [1, 4, 5]);
    assert_eq!(bed.store.state_of("d", 2), Some(DeliveryState::Dead));
    assert_eq!(bed.store.state_of("d", 3), Some(DeliveryState::Dead));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_end_where_the_policy_says() {
    let mut few = destination("d");
    few.retry = RetryPolicy {
        max_attempts: Some(4),
        ..RetryPolicy::default()
    };
    let bed = Bed::with(ScriptedBroker::plain(), &[few]);
    bed.broker.script(|_| Fate::Transient);
    bed.enqueue("k");
    let relay = bed.start("a");
    bed.until("dead", || {
        bed.store.state_of("d", 1) == Some(DeliveryState::Dead)
    })
    .await;
    assert_eq!(bed.store.row("d", 1).expect("dead").attempts, 4);
    assert_eq!(bed.broker.state().batches, 4);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_makes_its_followers_wait() {
    let bed = Bed::new(ScriptedBroker::plain());
    let mut first = true;
    bed.broker
        .script(move |m| match m.seq == 1 && std::mem::take(&mut first) {
            true => Fate::Timeout,
            false => Fate::Accept,
        });
    bed.enqueue_many("k", 3);
    let relay = bed.start("a");
    bed.done().await;
    assert_eq!(
        bed.broker.seqs(),
        [1, 1, 2, 3],
        "a duplicate, and no overtaking"
    );
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_order_a_failure_holds_up_nothing() {
    let mut unordered = destination("d");
    unordered.order = Order::None;
    let bed = Bed::with(ScriptedBroker::with(Capabilities::default()), &[unordered]);
    let mut first = true;
    bed.broker
        .script(move |m| match m.seq == 1 && std::mem::take(&mut first) {
            true => Fate::Transient,
            false => Fate::Accept,
        });
    bed.enqueue_many("k", 3);
    let relay = bed.start("a");
    bed.done().await;
    assert_eq!(bed.broker.seqs(), [2, 3, 1]);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_ordered_batches_gets_waves() {
    let bed = Bed::new(ScriptedBroker::with(Capabilities::default()));
    let mut first = true;
    bed.broker
        .script(move |m| match m.seq == 3 && std::mem::take(&mut first) {
            true => Fate::Transient,
            false => Fate::Accept,
        });
    for key in ["a", "a", "b", "b", "a", "b", "c"] {
        bed.enqueue(key);
    }
    let relay = bed.start("a");
    bed.done().await;
    assert_eq!(bed.broker.out_of_order(), []);
    assert_eq!(bed.broker.seqs().len(), 7);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scheduled_messages_go_when_they_are_due_and_expired_ones_never() {
    let bed = Bed::new(ScriptedBroker::plain());
    let now = bed.clock.now();
    let at = |seconds| now + TimeDelta::seconds(seconds);
    bed.store.enqueue(message("k").deliver_after(at(600)));
    bed.store.enqueue(message("k"));
    bed.store.enqueue(message("k").expires_at(at(-1)));
    bed.store.enqueue(message("k").deliver_after(at(300)));
    let relay = bed.start("a");
    pass(Duration::from_secs(200)).await;
    assert_eq!(bed.broker.seqs(), [2]);
    assert_eq!(bed.store.state_of("d", 3), Some(DeliveryState::Expired));
    pass(Duration::from_secs(101)).await;
    assert_eq!(bed.broker.seqs(), [2, 4]);
    bed.done().await;
    assert_eq!(bed.broker.seqs(), [2, 4, 1]);
    assert!(bed.clock.now() < at(605));
    bed.store.request("d", RequestAction::Resend, &[3, 2]);
    bed.until("sent again", || bed.broker.seqs().len() == 5)
        .await;
    assert_eq!(
        bed.broker.seqs()[3..].iter().sum::<i64>(),
        5,
        "the expired one too, when asked for"
    );
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_is_delivered_and_a_rollback_never_is() {
    let bed = Bed::new(ScriptedBroker::with(Capabilities {
        ordered_batches: true,
        fences: true,
        drops_duplicates: true,
    }));
    let relay = bed.start("a");
    let (late, never) = (bed.store.begin(message("k")), bed.store.begin(message("k")));
    bed.enqueue("k");
    bed.until("the visible one went", || bed.broker.seqs() == [3])
        .await;
    pass(Duration::from_secs(300)).await;
    bed.enqueue("k");
    bed.store.commit(late);
    bed.store.roll_back(never);
    bed.until("all went", || bed.broker.seqs().len() == 3).await;
    bed.enqueue("k");
    bed.done().await;
    assert_eq!(
        bed.broker.seqs().len(),
        4,
        "the broker took nothing for a duplicate"
    );
    assert!(
        bed.broker
            .state()
            .stored
            .iter()
            .any(|s| s.seq == late && s.late)
    );
    assert!(!bed.broker.seqs().contains(&never));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn trace_context_travels_in_the_headers_untouched() {
    let bed = Bed::new(ScriptedBroker::plain());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    bed.store.enqueue(
        message("k")
            .header("traceparent", trace)
            .header("tracestate", "a=b"),
    );
    let relay = bed.start("a");
    bed.done().await;
    let stored = bed.broker.state().stored[0]
        .headers
        .clone()
        .expect("headers");
    assert_eq!(stored["traceparent"], trace);
    assert_eq!(stored["tracestate"], "a=b");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn topics_of_other_destinations_are_passed_over() {
    let bed = Bed::new(ScriptedBroker::plain());
    let relay = bed.start("a");
    for _ in 0..10 {
        bed.store
            .enqueue(Message::bytes("billing.paid", "x").key("k"));
    }
    bed.enqueue("k");
    bed.done().await;
    assert_eq!(bed.broker.seqs(), [11]);
    relay.stop().await;
}
