//! A broker that does what a test tells it, and checks what the relay tells it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outbox_core::{
    Batch, Broker, Capabilities, Class, Failure, KeyRef, Outcome, Pending, PublishError, Receipt,
    Seq,
};

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Accept,
    Transient,
    Permanent,
    /// It says it failed, but it was stored.
    Timeout,
}

type Script = Box<dyn FnMut(&Pending) -> Fate + Send>;

/// A message as it was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub seq: Seq,
    pub key: Option<KeyRef>,
    pub epoch: i64,
    pub redelivery: u32,
    pub late: bool,
    pub scheduled: bool,
    pub headers: Option<Arc<outbox_core::Headers>>,
}

pub struct State {
    pub stored: Vec<Stored>,
    pub batches: u64,
    pub calls: u64,
    pub outage: bool,
    pub fenced: bool,
    pub latency: Duration,
    script: Script,
    /// What a broker that drops duplicates knows: seqs stored, and those that never come.
    done: BTreeMap<Arc<str>, Done>,
}

#[derive(Default)]
struct Done {
    seqs: BTreeSet<Seq>,
    low_water: Seq,
    stored: HashSet<(Seq, u32)>,
}

#[derive(Clone)]
pub struct ScriptedBroker {
    state: Arc<Mutex<State>>,
    capabilities: Capabilities,
}

impl ScriptedBroker {
    /// One that keeps the order of a batch, and neither fences nor drops duplicates.
    pub fn plain() -> Self {
        Self::with(Capabilities {
            ordered_batches: true,
            ..Capabilities::default()
        })
    }

    pub fn with(capabilities: Capabilities) -> Self {
        let state = State {
            stored: Vec::new(),
            batches: 0,
            calls: 0,
            outage: false,
            fenced: false,
            latency: Duration::ZERO,
            script: Box::new(|_| Fate::Accept),
            done: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            capabilities,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the broker")
    }

    /// Decides about each message that gets as far as being tried.
    pub fn script(&self, script: impl FnMut(&Pending) -> Fate + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// Seqs in the order they were stored.
    pub fn seqs(&self) -> Vec<Seq> {
        self.state().stored.iter().map(|s| s.seq).collect()
    }

    /// First deliveries of each key that were stored out of order. Late and scheduled ones have
    /// no place in it.
    pub fn out_of_order(&self) -> Vec<(Seq, Seq)> {
        self.out_of_order_but(&HashSet::new())
    }

    /// The same, without messages that are known to have been committed late: one that becomes
    /// visible while a new leader catches up is not flagged.
    pub fn out_of_order_but(&self, late: &HashSet<Seq>) -> Vec<(Seq, Seq)> {
        let mut highest: BTreeMap<KeyRef, Seq> = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut wrong = Vec::new();
        for stored in &self.state().stored {
            let late = stored.late || late.contains(&stored.seq);
            let plain = !late && !stored.scheduled && stored.redelivery == 0;
            let Some(key) = stored
                .key
                .clone()
                .filter(|_| plain && seen.insert(stored.seq))
            else {
                continue;
            };
            let last = highest.entry(key).or_insert(stored.seq);
            if stored.seq < *last {
                wrong.push((*last, stored.seq));
            }
            *last = stored.seq.max(*last);
        }
        wrong
    }
}

impl State {
    fn store(&mut self, batch: &Batch, drops: bool) -> Vec<Outcome> {
        let ordered_failures = drops || batch.messages.len() > 1;
        let mut failed: HashSet<KeyRef> = HashSet::new();
        let mut outcomes = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            let key = message.key_ref();
            let behind = key.as_ref().is_some_and(|k| failed.contains(k));
            let fate = match behind && ordered_failures {
                true => Fate::Transient,
                false => (self.script)(message),
            };
            if fate == Fate::Accept || fate == Fate::Timeout {
                let duplicate = drops && self.knows(batch, message);
                if !duplicate {
                    self.keep(batch, message);
                }
                if fate == Fate::Accept {
                    outcomes.push(Outcome::Sent(Receipt {
                        duplicate,
                        ..Receipt::default()
                    }));
                    continue;
                }
            }
            failed.extend(key);
            outcomes.push(Outcome::Failed(Failure {
                class: match fate {
                    Fate::Permanent => Class::Permanent,
                    _ => Class::Transient,
                },
                maybe_accepted: fate == Fate::Timeout,
                text: format!("{fate:?}"),
            }));
        }
        self.cover(batch, &outcomes);
        outcomes
    }

    /// Whether a broker that believes what batches say would take this for a duplicate.
    fn knows(&mut self, batch: &Batch, message: &Pending) -> bool {
        let done = self
            .done
            .entry(batch.fence.destination.clone())
            .or_default();
        if message.redelivery > 0 {
            return done.stored.contains(&(message.seq, message.redelivery));
        }
        let known = message.seq < done.low_water || done.seqs.contains(&message.seq);
        let stored = self.stored.iter().any(|s| s.seq == message.seq);
        assert!(
            !known || stored,
            "seq {} was said never to come",
            message.seq
        );
        known
    }

    fn keep(&mut self, batch: &Batch, message: &Pending) {
        let done = self
            .done
            .entry(batch.fence.destination.clone())
            .or_default();
        done.seqs.insert(message.seq);
        done.stored.insert((message.seq, message.redelivery));
        self.stored.push(Stored {
            seq: message.seq,
            key: message.key_ref(),
            epoch: batch.fence.epoch,
            redelivery: message.redelivery,
            late: message.late,
            scheduled: message.deliver_after.is_some(),
            headers: message.headers.clone(),
        });
    }

    /// Believes the batch: everything of its range but what failed or is excepted never comes.
    fn cover(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        let done = self
            .done
            .entry(batch.fence.destination.clone())
            .or_default();
        assert!(
            batch.except.windows(2).all(|w| w[0].1 < w[1].0),
            "{:?}",
            batch.except
        );
        let failed: BTreeSet<Seq> = batch
            .messages
            .iter()
            .zip(outcomes)
            .filter(|(_, o)| matches!(o, Outcome::Failed(_)))
            .map(|(m, _)| m.seq)
            .collect();
        if let Some((from, through)) = batch.range {
            let excepted = |seq: Seq| batch.except.iter().any(|(a, b)| (*a..=*b).contains(&seq));
            done.seqs
                .extend((from..=through).filter(|s| !excepted(*s) && !failed.contains(s)));
        }
        done.low_water = done.low_water.max(batch.low_water);
    }
}

#[async_trait]
impl Broker for ScriptedBroker {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn publish(&self, batch: &Batch) -> Result<Vec<Outcome>, PublishError> {
        assert!(!batch.messages.is_empty(), "an empty batch");
        let latency = {
            let mut state = self.state();
            state.calls += 1;
            state.latency
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.state();
        if state.outage {
            return Err(PublishError::Outage("connection refused".into()));
        }
        if state.fenced {
            let epoch = batch.fence.epoch;
            let newer = epoch + 1;
            return Err(PublishError::Fenced { epoch, newer });
        }
        if !self.capabilities.ordered_batches {
            let mut keys = HashSet::new();
            let mut keyed = batch.messages.iter().filter_map(Pending::key_ref);
            assert!(keyed.all(|key| keys.insert(key)), "a key twice in a wave");
        }
        state.batches += 1;
        Ok(state.store(batch, self.capabilities.drops_duplicates))
    }
}
