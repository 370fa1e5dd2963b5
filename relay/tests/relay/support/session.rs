//! The session of the store in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use outbox_core::{
    BlockedKey, DeliveryState, Due, Exception, KeyRef, Lease, Opened, Page, PageLimit, Parked,
    Pending, Request, Seq, Session, Settlement, StoreError, Unrouted, Waiting,
};

use super::store::{MemoryStore, Rows, Slot, Tables};

pub struct MemorySession {
    store: MemoryStore,
    lease: Lease,
    opened: Opened,
    read: Seq,
    /// Gaps that are open, those handed out as late and not yet settled included.
    gaps: BTreeSet<Seq>,
    handed: BTreeSet<Seq>,
}

impl MemorySession {
    pub fn open(store: MemoryStore, lease: &Lease, tables: &Tables) -> Result<Self, StoreError> {
        let rows = &tables.destinations[&lease.destination];
        check(lease, rows)?;
        Ok(Self {
            store,
            lease: lease.clone(),
            opened: opened(rows),
            read: rows.cursor,
            gaps: rows.gaps.clone(),
            handed: BTreeSet::new(),
        })
    }

    /// Gap messages that have become visible; gaps of transactions that rolled back close.
    fn late(&mut self, tables: &Tables) -> Vec<Pending> {
        let mut late = Vec::new();
        for seq in self.gaps.clone() {
            match &tables.log[seq as usize - 1] {
                Slot::Open(_) => {}
                Slot::RolledBack => {
                    self.gaps.remove(&seq);
                }
                Slot::Committed(message) if self.handed.insert(seq) => {
                    if message.covered_by(&self.opened.destination.patterns) {
                        late.push(Pending {
                            late: true,
                            ..message.clone()
                        });
                    } else {
                        self.gaps.remove(&seq);
                    }
                }
                Slot::Committed(_) => {}
            }
        }
        late
    }
}

/// What a session loads, computed from the rows alone.
fn opened(rows: &Rows) -> Opened {
    let waits = |state| matches!(state, DeliveryState::Retrying | DeliveryState::Scheduled);
    let waiting = rows.rows.values().filter(|r| waits(r.state)).count() as u64;
    let held = rows
        .rows
        .values()
        .filter(|r| waits(r.state) || r.state == DeliveryState::Parked);
    let floors = held
        .map(|r| r.seq)
        .chain(rows.gaps.iter().copied())
        .chain(rows.markers.values().copied());
    Opened {
        destination: rows.config.clone(),
        incarnation: "memory".into(),
        cursor: rows.cursor,
        low_water: floors.min().unwrap_or(rows.cursor + 1).min(rows.cursor + 1),
        waiting,
        keys: blocked(rows),
        control_version: rows.control_version,
    }
}

fn blocked(rows: &Rows) -> Vec<BlockedKey> {
    let mut keys: Vec<BlockedKey> = Vec::new();
    let mut of = |key: KeyRef, change: &dyn Fn(&mut BlockedKey)| match keys
        .iter_mut()
        .find(|k| k.key == key)
    {
        Some(known) => change(known),
        None => {
            let mut new = BlockedKey {
                key,
                blockers: 0,
                parked: 0,
                marker: None,
            };
            change(&mut new);
            keys.push(new);
        }
    };
    for row in rows.rows.values().filter(|r| r.blocks_key) {
        let Some(key) = key_of(row) else { continue };
        match row.state {
            DeliveryState::Parked => of(key, &|k| k.parked += 1),
            DeliveryState::Retrying | DeliveryState::Dead => of(key, &|k| k.blockers += 1),
            state => panic!("a {state} row must not block a key"),
        }
    }
    for (key, from) in &rows.markers {
        of(key.clone(), &|k| k.marker = Some(*from));
    }
    keys
}

fn key_of(row: &Exception) -> Option<KeyRef> {
    Some(KeyRef {
        topic: row.topic.clone(),
        key: row.key.clone()?,
    })
}

fn check(lease: &Lease, rows: &Rows) -> Result<(), StoreError> {
    if rows.epoch != lease.epoch || rows.owner.as_ref() != Some(&lease.owner) {
        return Err(StoreError::LeaseLost {
            destination: lease.destination.clone(),
            epoch: lease.epoch,
        });
    }
    Ok(())
}

fn with_row(message: &Pending, row: &Exception) -> Pending {
    Pending {
        attempts: row.attempts,
        redelivery: row.redelivery,
        ..message.clone()
    }
}

#[async_trait]
impl Session for MemorySession {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    async fn poll(&mut self) -> Result<bool, StoreError> {
        let store = self.store.clone();
        let mut tables = store.tables();
        tables.fault()?;
        Ok(tables.log.len() as Seq > self.read || !self.gaps.is_empty())
    }

    async fn page(&mut self, limit: PageLimit) -> Result<Page, StoreError> {
        let store = self.store.clone();
        let mut tables = store.tables();
        tables.fault()?;
        let mut page = Page {
            messages: self.late(&tables),
            from: self.read + 1,
            through: self.read,
            ..Page::default()
        };
        let mut missing = Vec::new();
        let last = tables.log.len() as Seq;
        for seq in self.read + 1..=last {
            if (seq - self.read) as usize > limit.rows {
                page.more = true;
                break;
            }
            let Some(message) = tables.committed(seq) else {
                missing.push(seq);
                continue;
            };
            page.gaps.extend(missing.iter().map(|s| (*s, *s)));
            self.gaps.extend(missing.drain(..));
            page.through = seq;
            if message.covered_by(&self.opened.destination.patterns) {
                page.messages.push(message.clone());
            } else if tables.counts_unrouted(message, &self.lease.destination) {
                page.unrouted.push(Unrouted {
                    topic: message.topic.to_string(),
                    count: 1,
                    first: seq,
                    last: seq,
                });
            }
        }
        self.read = page.through;
        page.gaps_open = self.gaps.len() as u64;
        page.gap_age_max = match self.gaps.first() {
            Some(oldest) => tables.age(*oldest, store.clock.now()),
            None => Duration::ZERO,
        };
        Ok(page)
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: PageLimit) -> Result<Due, StoreError> {
        let store = self.store.clone();
        let mut tables = store.tables();
        tables.fault()?;
        let rows = &tables.destinations[&self.lease.destination];
        let mut waiting: Vec<_> = rows
            .rows
            .values()
            .filter_map(|r| Some((r.next_attempt?, r)))
            .collect();
        waiting.sort_by_key(|(at, row)| (*at, row.seq));
        let due = waiting
            .iter()
            .take_while(|(at, _)| *at <= now)
            .count()
            .min(limit.rows);
        let messages = waiting[..due].iter().map(|(_, row)| {
            let message = tables.committed(row.seq).expect("a row has a message");
            Waiting {
                message: with_row(message, row),
                state: row.state,
                blocks_key: row.blocks_key,
            }
        });
        Ok(Due {
            messages: messages.collect(),
            next: waiting.get(due).map(|(at, _)| *at),
        })
    }

    async fn parked(&mut self, key: &KeyRef, limit: PageLimit) -> Result<Parked, StoreError> {
        let store = self.store.clone();
        let mut tables = store.tables();
        tables.fault()?;
        let rows = &tables.destinations[&self.lease.destination];
        let parked = rows
            .rows
            .values()
            .filter(|r| r.state == DeliveryState::Parked && key_of(r).as_ref() == Some(key));
        let mut messages: Vec<Pending> = parked
            .map(|r| with_row(tables.committed(r.seq).expect("a row has a message"), r))
            .collect();
        let (mut through, mut more) = (None, messages.len() > limit.rows);
        if let (true, Some(from)) = (messages.is_empty(), rows.markers.get(key)) {
            let followers = (*from..=self.read).filter_map(|seq| tables.committed(seq));
            messages = followers
                .filter(|m| m.key_ref().as_ref() == Some(key))
                .cloned()
                .collect();
            more = messages.len() > limit.rows;
            through = Some(match more {
                true => messages[limit.rows - 1].seq,
                false => self.read,
            });
        }
        messages.truncate(limit.rows);
        Ok(Parked {
            messages,
            through,
            more,
        })
    }

    async fn requests(&mut self) -> Result<Vec<Request>, StoreError> {
        let store = self.store.clone();
        let mut tables = store.tables();
        tables.fault()?;
        Ok(tables.requests_of(&self.lease.destination))
    }

    fn gap_floor(&self) -> Seq {
        self.gaps.first().copied().unwrap_or(Seq::MAX)
    }

    async fn settle(&mut self, settlement: &Settlement) -> Result<(), StoreError> {
        let store = self.store.clone();
        let mut hang = store.settles_hang.subscribe();
        hang.wait_for(|hangs| !hangs)
            .await
            .expect("the store outlives its sessions");
        let mut tables = store.tables();
        tables.fault()?;
        tables.settles += 1;
        let rows = tables
            .destinations
            .get_mut(&self.lease.destination)
            .expect("declared");
        if let Err(lost) = check(&self.lease, rows) {
            tables.refused_settles += 1;
            return Err(lost);
        }
        assert!(
            settlement.through <= self.read,
            "a settle beyond the last page"
        );
        rows.cursor = rows.cursor.max(settlement.through);
        for seq in &settlement.late {
            assert!(
                self.handed.remove(seq),
                "seq {seq} was not handed out as late"
            );
            self.gaps.remove(seq);
        }
        rows.gaps = self
            .gaps
            .iter()
            .copied()
            .filter(|seq| *seq <= rows.cursor)
            .collect();
        for seq in &settlement.remove {
            rows.rows.remove(seq);
        }
        for row in &settlement.upsert {
            assert_eq!(
                row.next_attempt.is_some(),
                matches!(
                    row.state,
                    DeliveryState::Retrying | DeliveryState::Scheduled
                ),
            );
            rows.rows.insert(row.seq, row.clone());
        }
        for (key, from) in &settlement.markers {
            match from {
                Some(from) => rows.markers.insert(key.clone(), *from),
                None => rows.markers.remove(key),
            };
        }
        rows.requests
            .retain(|(id, _, _)| !settlement.requests.contains(id));
        let count = rows.rows.len();
        tables.most_rows = tables.most_rows.max(count);
        Ok(())
    }
}
