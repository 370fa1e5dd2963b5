//! What `/livez` and `/readyz` answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outbox_core::Clock;
use serde::Serialize;

use crate::http::Monitored;

/// Shared by everything that knows how it goes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// When the supervisor's loop last turned, on the boot clock.
    turned: Option<Duration>,
    /// When a beat last came through.
    beat: Option<Duration>,
    led: BTreeMap<String, Led>,
}

/// The relay as `/livez` and `/readyz` see it.
pub(crate) struct Watched {
    pub health: Health,
    pub clock: Arc<dyn Clock>,
    /// Silence of the store, or of the loop, after which the answer is no.
    pub patience: Duration,
}

impl Monitored for Watched {
    fn is_live(&self) -> bool {
        self.health.live(self.clock.boot(), self.patience)
    }

    /// The store answers, and every destination led here can be sent to.
    fn readiness(&self) -> (bool, serde_json::Value) {
        let answer = self.health.readiness(self.clock.boot(), self.patience);
        (answer.ready, serde_json::json!(answer))
    }
}

/// How one led destination does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Led {
    /// A session is being opened.
    Opening,
    /// Messages flow, or would.
    Running,
    /// The broker takes nothing.
    Outage {
        /// What it said.
        text: String,
    },
    /// It needs a person.
    Stopped {
        /// Why.
        text: String,
    },
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Readiness {
    /// Whether everything this relay leads can be sent.
    pub ready: bool,
    /// Whether the store answered lately.
    pub store: bool,
    /// Destinations that this relay leads or that stopped here.
    pub destinations: BTreeMap<String, Led>,
}

impl Health {
    pub(crate) fn turned(&self, now: Duration) {
        self.lock().turned = Some(now);
    }

    pub(crate) fn beat(&self, now: Duration) {
        self.lock().beat = Some(now);
    }

    pub(crate) fn set(&self, destination: &str, led: Led) {
        self.lock().led.insert(destination.to_owned(), led);
    }

    pub(crate) fn clear(&self, destination: &str) {
        self.lock().led.remove(destination);
    }

    /// Whether the supervisor's loop turned within `ttl`.
    pub(crate) fn live(&self, now: Duration, ttl: Duration) -> bool {
        within(self.lock().turned, now, ttl)
    }

    pub(crate) fn readiness(&self, now: Duration, ttl: Duration) -> Readiness {
        let state = self.lock();
        let store = within(state.beat, now, ttl);
        let flows = state.led.values().all(|led| *led == Led::Running);
        Readiness {
            ready: store && flows,
            store,
            destinations: state.led.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data: a panic elsewhere leaves nothing half-done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn within(at: Option<Duration>, now: Duration, ttl: Duration) -> bool {
    at.is_some_and(|at| now.saturating_sub(at) < ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn a_destination_in_outage_is_not_ready_and_says_why() {
        let (health, now) = (Health::default(), Duration::from_secs(100));
        assert!(!health.readiness(now, TTL).ready, "no beat yet");
        health.beat(now);
        assert!(health.readiness(now, TTL).ready);
        let text = "refused".to_owned();
        health.set("orders", Led::Outage { text });
        let answer = health.readiness(now, TTL);
        assert!(!answer.ready && answer.store);
        let json = serde_json::to_string(&answer).expect("plain data");
        assert!(json.contains(r#""orders":{"state":"outage","text":"refused"}"#));
        health.set("orders", Led::Running);
        assert!(health.readiness(now, TTL).ready);
        assert!(
            !health.readiness(now + TTL, TTL).ready,
            "the store fell silent"
        );
    }
}
