//! A broker that dies at the worst instants: between the log and the relay.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use outbox_core::{Batch, Broker, Capabilities, Outcome, PublishError};
use tokio::sync::Notify;

use super::plan::Kill;

/// Kills that are still to come, and the bell that calls for one. It outlives the process that
/// is killed.
#[derive(Debug)]
pub struct Sabotage {
    kills: Mutex<VecDeque<Kill>>,
    published: AtomicU64,
    bell: Notify,
}

impl Sabotage {
    /// With these kills ahead, soonest first.
    pub fn new(kills: Vec<Kill>) -> Arc<Self> {
        Arc::new(Self {
            kills: Mutex::new(kills.into()),
            published: AtomicU64::new(0),
            bell: Notify::new(),
        })
    }

    /// Returns when the process must be killed now. Cancel-safe: a call that nobody heard is
    /// kept.
    pub async fn called(&self) {
        self.bell.notified().await;
    }

    /// `broker`, with the kills in its way.
    pub fn around(self: &Arc<Self>, broker: Arc<dyn Broker>) -> Arc<dyn Broker> {
        Arc::new(Saboteur {
            sabotage: Arc::clone(self),
            broker,
        })
    }

    /// Takes the next kill when this batch reaches it.
    fn take(&self, batch: &Batch) -> Option<Kill> {
        let size = batch.messages.len() as u64;
        let total = self.published.fetch_add(size, Ordering::Relaxed) + size;
        let mut kills = self.kills.lock().unwrap_or_else(PoisonError::into_inner);
        kills.pop_front_if(|kill| kill.after_messages <= total)
    }

    /// Rings, and never comes back: what is in the middle of it dies with its runtime.
    async fn die(&self) -> ! {
        self.bell.notify_one();
        std::future::pending().await
    }
}

struct Saboteur {
    sabotage: Arc<Sabotage>,
    broker: Arc<dyn Broker>,
}

#[async_trait]
impl Broker for Saboteur {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    async fn publish(&self, batch: &Batch) -> Result<Vec<Outcome>, PublishError> {
        match self.sabotage.take(batch) {
            None => self.broker.publish(batch).await,
            Some(kill) => {
                if kill.acknowledged {
                    self.broker.publish(batch).await?;
                }
                self.sabotage.die().await
            }
        }
    }
}
