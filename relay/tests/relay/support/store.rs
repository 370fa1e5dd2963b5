//! A store in memory that keeps the contract to the letter, with faults on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use outbox_core::{
    Beat, Board, Clock, DeliveryState, Destination, Exception, KeyRef, Lease, LeaseRow, Maintained,
    Maintenance, Message, Pending, Request, RequestAction, Requested, Seq, Session, Store,
    StoreError,
};
use tokio::sync::watch;

use super::session::MemorySession;

/// What a seq has become.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Its transaction is open.
    Open(Message),
    Committed(Pending),
    RolledBack,
}

/// One destination's rows.
#[derive(Debug)]
pub struct Rows {
    pub config: Destination,
    pub owner: Option<String>,
    pub epoch: i64,
    pub control_version: i64,
    pub cursor: Seq,
    pub gaps: BTreeSet<Seq>,
    pub rows: BTreeMap<Seq, Exception>,
    pub markers: BTreeMap<KeyRef, Seq>,
    pub requests: Vec<(i64, RequestAction, Vec<Seq>)>,
}

#[derive(Default)]
pub struct Tables {
    pub log: Vec<Slot>,
    /// When each seq was taken.
    began: Vec<DateTime<Utc>>,
    pub destinations: BTreeMap<String, Rows>,
    beats: BTreeMap<String, i64>,
    next_request: i64,
    pub settles: u64,
    pub most_rows: usize,
    pub maintained: u64,
    /// Rows that house-keeping finds in the default partition.
    pub default_rows: u64,
    /// The next so many calls of a session fail.
    pub broken: u32,
    /// Every call fails.
    pub down: bool,
    /// `open` fails for good.
    pub foreign: bool,
    pub refused_settles: u64,
    /// Relays that leave stay on the board.
    pub keeps_leavers: bool,
    /// Beats of these relays hang.
    pub silent: BTreeSet<String>,
}

#[derive(Clone)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    pub clock: Arc<dyn Clock>,
    /// Settles wait while it is true.
    pub settles_hang: Arc<watch::Sender<bool>>,
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            tables: Arc::default(),
            clock,
            settles_hang: Arc::new(watch::Sender::new(false)),
        }
    }

    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables
            .lock()
            .expect("no test panics while it holds the tables")
    }

    pub fn declare(&self, config: Destination) {
        let rows = Rows {
            owner: None,
            epoch: 0,
            control_version: 1,
            cursor: 0,
            gaps: BTreeSet::new(),
            rows: BTreeMap::new(),
            markers: BTreeMap::new(),
            requests: Vec::new(),
            config: config.clone(),
        };
        self.tables().destinations.insert(config.name, rows);
    }

    /// Takes a seq without committing.
    pub fn begin(&self, message: Message) -> Seq {
        let now = self.clock.now();
        let mut tables = self.tables();
        tables.log.push(Slot::Open(message));
        tables.began.push(now);
        tables.log.len() as Seq
    }

    pub fn commit(&self, seq: Seq) {
        let now = self.clock.now();
        let mut tables = self.tables();
        let slot = &mut tables.log[seq as usize - 1];
        if let Slot::Open(message) = slot {
            *slot = Slot::Committed(pending(seq, message.clone(), now));
        }
    }

    pub fn roll_back(&self, seq: Seq) {
        self.tables().log[seq as usize - 1] = Slot::RolledBack;
    }

    pub fn enqueue(&self, message: Message) -> Seq {
        let seq = self.begin(message);
        self.commit(seq);
        seq
    }

    pub fn request(&self, destination: &str, action: RequestAction, seqs: &[Seq]) {
        let mut tables = self.tables();
        tables.next_request += 1;
        let id = tables.next_request;
        let rows = tables.destinations.get_mut(destination).expect("declared");
        rows.requests.push((id, action, seqs.to_vec()));
        rows.control_version += 1;
    }

    pub fn pause(&self, destination: &str, paused: bool) {
        let mut tables = self.tables();
        let rows = tables.destinations.get_mut(destination).expect("declared");
        rows.config.paused = paused;
        rows.control_version += 1;
    }

    pub fn owners(&self) -> BTreeMap<String, Option<String>> {
        let tables = self.tables();
        let owners = tables.destinations.iter();
        owners
            .map(|(name, rows)| (name.clone(), rows.owner.clone()))
            .collect()
    }

    pub fn state_of(&self, destination: &str, seq: Seq) -> Option<DeliveryState> {
        let tables = self.tables();
        tables.destinations[destination]
            .rows
            .get(&seq)
            .map(|r| r.state)
    }

    pub fn row(&self, destination: &str, seq: Seq) -> Option<Exception> {
        self.tables().destinations[destination]
            .rows
            .get(&seq)
            .cloned()
    }

    /// Whether nothing is left to do: everything is settled, no row waits, no gap is open.
    pub fn is_done(&self, destination: &str) -> bool {
        let tables = self.tables();
        let rows = &tables.destinations[destination];
        let last = tables.log.len() as Seq;
        rows.cursor >= last
            && rows.gaps.is_empty()
            && rows.markers.is_empty()
            && rows.requests.is_empty()
            && rows
                .rows
                .values()
                .all(|r| matches!(r.state, DeliveryState::Dead | DeliveryState::Expired))
    }
}

fn pending(seq: Seq, message: Message, now: DateTime<Utc>) -> Pending {
    Pending {
        seq,
        id: message.id,
        topic: message.topic.into(),
        key: message.key.map(Into::into),
        payload: message.payload,
        content_type: message.content_type.into(),
        headers: (!message.headers.is_empty()).then(|| Arc::new(message.headers)),
        created_at: now,
        deliver_after: message.deliver_after,
        expires_at: message.expires_at,
        late: false,
        attempts: 0,
        redelivery: 0,
    }
}

impl Tables {
    pub fn committed(&self, seq: Seq) -> Option<&Pending> {
        match self.log.get(seq as usize - 1)? {
            Slot::Committed(message) => Some(message),
            _ => None,
        }
    }

    /// How long ago `seq` was taken.
    pub fn age(&self, seq: Seq, now: DateTime<Utc>) -> Duration {
        outbox_core::age(self.began[seq as usize - 1], now)
    }

    /// Whether no destination covers `message`, and `counter` is the one of them that says so.
    pub fn counts_unrouted(&self, message: &Pending, counter: &str) -> bool {
        let covered = |rows: &Rows| message.covered_by(&rows.config.patterns);
        let first = self.destinations.keys().next().map(String::as_str);
        first == Some(counter) && !self.destinations.values().any(covered)
    }

    pub fn fault(&mut self) -> Result<(), StoreError> {
        if self.down {
            return Err(StoreError::Outage("the store is down".into()));
        }
        if self.broken > 0 {
            self.broken -= 1;
            return Err(StoreError::Outage("the connection broke".into()));
        }
        Ok(())
    }

    pub fn requests_of(&self, destination: &str) -> Vec<Request> {
        let rows = &self.destinations[destination];
        let requests = rows
            .requests
            .iter()
            .take(2)
            .map(|(id, action, seqs)| Request {
                id: *id,
                action: *action,
                messages: seqs
                    .iter()
                    .filter_map(|seq| {
                        let message = self.committed(*seq)?;
                        Some(Requested {
                            seq: *seq,
                            topic: message.topic.clone(),
                            key: message.key.clone(),
                            exception: rows.rows.get(seq).cloned(),
                        })
                    })
                    .collect(),
            });
        requests.collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self) -> Result<(), StoreError> {
        match self.tables().down {
            true => Err(StoreError::Outage("the store is down".into())),
            false => Ok(()),
        }
    }

    async fn beat(&self, instance: &str) -> Result<Board, StoreError> {
        if self.tables().silent.contains(instance) {
            std::future::pending::<()>().await;
        }
        let mut tables = self.tables();
        if tables.down {
            return Err(StoreError::Outage("the store is down".into()));
        }
        *tables.beats.entry(instance.to_owned()).or_default() += 1;
        let instances = tables.beats.iter().map(|(instance, beat)| Beat {
            instance: instance.clone(),
            beat: *beat,
        });
        let leases = tables.destinations.iter().map(|(name, rows)| LeaseRow {
            destination: name.clone(),
            owner: rows.owner.clone(),
            epoch: rows.epoch,
            paused: rows.config.paused,
            control_version: rows.control_version,
        });
        Ok(Board {
            instances: instances.collect(),
            leases: leases.collect(),
        })
    }

    async fn claim(&self, seen: &LeaseRow, instance: &str) -> Result<Option<Lease>, StoreError> {
        let mut tables = self.tables();
        let rows = tables
            .destinations
            .get_mut(&seen.destination)
            .expect("declared");
        if rows.owner != seen.owner || rows.epoch != seen.epoch {
            return Ok(None);
        }
        rows.owner = Some(instance.to_owned());
        rows.epoch += 1;
        Ok(Some(Lease {
            destination: seen.destination.clone(),
            owner: instance.to_owned(),
            epoch: rows.epoch,
        }))
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let rows = tables
            .destinations
            .get_mut(&lease.destination)
            .expect("declared");
        if rows.epoch == lease.epoch && rows.owner.as_ref() == Some(&lease.owner) {
            rows.owner = None;
        }
        Ok(())
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if !tables.keeps_leavers {
            tables.beats.remove(instance);
        }
        Ok(())
    }

    async fn open(&self, lease: &Lease) -> Result<Box<dyn Session>, StoreError> {
        let mut tables = self.tables();
        tables.fault()?;
        if tables.foreign {
            return Err(StoreError::Foreign {
                destination: lease.destination.clone(),
                stored: "one".into(),
                found: "another".into(),
            });
        }
        let session = MemorySession::open(self.clone(), lease, &tables)?;
        Ok(Box::new(session))
    }

    async fn maintain(&self, policy: &Maintenance) -> Result<Maintained, StoreError> {
        assert!(policy.retention > Duration::ZERO);
        let mut tables = self.tables();
        tables.maintained += 1;
        Ok(Maintained {
            default_rows: tables.default_rows,
            ..Maintained::default()
        })
    }
}
