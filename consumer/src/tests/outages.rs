//! Outages of the inbox and of the source: waited for, told once, and nobody's fault.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outbox_core::{Alert, AlertKind, AlertSink, AlertState};

use super::*;
use crate::HandlerError;

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<Alert>>);

#[async_trait]
impl AlertSink for Told {
    fn name(&self) -> &str {
        "told"
    }
    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().expect("no panic").push(alert.clone());
        Ok(())
    }
}

impl Told {
    fn kinds(&self) -> Vec<(AlertKind, AlertState, u64)> {
        let alerts = self.0.lock().expect("no panic");
        alerts.iter().map(|a| (a.kind, a.state, a.count)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_inbox_outage_burns_no_attempt_and_is_told_once() {
    let world = World::default();
    let told = Arc::new(Told::default());
    for n in 0..10 {
        world.append("k", &n.to_string());
    }
    world.inbox.set_outage(true);
    let consumer = world
        .keeper(|_| Ok(()))
        .retry(policy(1))
        .alerts(told.clone());
    let run = Run::start(consumer);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.source.committed_offset("billing", &orders()), None);
    world.inbox.set_outage(false);
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!((world.payloads().len(), world.inbox.dead().len()), (10, 0));
    let outage = AlertKind::Outage;
    let expected = [
        (outage, AlertState::Firing, 1),
        (outage, AlertState::Resolved, 1),
    ];
    assert_eq!(told.kinds(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_a_handler_meets_burns_no_attempt() {
    let world = World::default();
    world.append("k", "a");
    let tries = Arc::new(Mutex::new(0));
    let consumer = world.keeper(move |_| {
        let mut tries = tries.lock().expect("no panic");
        *tries += 1;
        match *tries {
            ..20 => Err(HandlerError::outage("away")),
            _ => Ok(()),
        }
    });
    let run = Run::start(consumer.retry(policy(1)));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(
        (world.payloads(), world.inbox.dead().len()),
        (vec!["a".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_recognised() {
    let world = World::default();
    for n in 0..100 {
        world.append(&format!("k{}", n % 9), &n.to_string());
    }
    world.inbox.lose_answers(5);
    let run = Run::start(world.keeper(|_| Ok(())).batch(7));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_source_outage_is_waited_for_and_told_once() {
    let world = World::default();
    let told = Arc::new(Told::default());
    world.append("k", "a");
    let run = Run::start(world.keeper(|_| Ok(())).alerts(told.clone()));
    soon(world.settled()).await;
    world.append("k", "b");
    world.source.set_outage(true);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.payloads().len(), 1);
    world.source.set_outage(false);
    soon(world.settled()).await;
    sleep(Duration::from_secs(10)).await;
    run.stop().await.expect("clean");
    assert_eq!(world.payloads(), ["a", "b"]);
    let of = |wanted| {
        told.kinds()
            .iter()
            .filter(|(_, state, _)| *state == wanted)
            .count()
    };
    assert_eq!(of(AlertState::Firing), of(AlertState::Resolved));
    assert!(
        (1..=2).contains(&of(AlertState::Firing)),
        "{:?}",
        told.kinds()
    );
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_told_in_groups() {
    let world = World::default();
    let told = Arc::new(Told::default());
    for n in 0..50 {
        world.append("k", &n.to_string());
    }
    let never = world.keeper(|_| Err(HandlerError::permanent("never")));
    let run = Run::start(never.alerts(told.clone()));
    soon(world.settled()).await;
    run.stop().await.expect("clean");
    let alerts = told.kinds();
    assert!(alerts.len() <= 3, "{alerts:?}");
    assert!(alerts.iter().all(|(kind, ..)| *kind == AlertKind::Dead));
    assert_eq!(alerts.iter().map(|(.., count)| count).sum::<u64>(), 50);
}
