//! What operators ask for, applied right after a session opened, when nothing is on its way.

use std::collections::HashSet;

use outbox_core::{DeliveryState, Exception, KeyRef, Request, RequestAction, Requested, Seq};

use super::changes::Changes;
use super::{Ended, Engine, bounded};

impl Engine {
    /// Applies every request that waits.
    pub(super) async fn apply_requests(&mut self) -> Result<(), Ended> {
        loop {
            let requests = bounded("requests", self.session.requests()).await?;
            if requests.is_empty() {
                return Ok(());
            }
            // Two requests about one message: the second was read beside a row that the first is
            // about to change, so it waits for the next round, where it is read anew.
            let mut touched = HashSet::new();
            for request in requests {
                let seqs: Vec<Seq> = request.messages.iter().map(|m| m.seq).collect();
                if seqs.iter().any(|seq| touched.contains(seq)) {
                    break;
                }
                touched.extend(seqs);
                self.apply(request);
            }
            // Written before the next are read, or the same ones come again.
            self.settle().await?;
        }
    }

    fn apply(&mut self, request: Request) {
        let mut changes = Changes::default();
        for requested in &request.messages {
            match request.action {
                RequestAction::Resend => self.resend(requested, request.id, &mut changes),
                RequestAction::Discard => self.discard(requested, &mut changes),
                RequestAction::Unblock => self.unblock(requested, &mut changes),
            }
        }
        tracing::info!(
            destination = %self.context.name,
            request = request.id,
            action = request.action.as_str(),
            messages = request.messages.len(),
            "applied a request"
        );
        self.commit_changes(changes);
        self.ledger.applied(request.id);
    }

    fn resend(&mut self, requested: &Requested, request: i64, changes: &mut Changes) {
        let now = self.context.clock.now();
        // A number no earlier request can have given: a sent message has no row to count in.
        // Stores keep it as a 32-bit integer with a sign.
        let raised = request.clamp(1, i64::from(i32::MAX)) as u32;
        let mut row = match &requested.exception {
            None if self.is_still_to_come(requested) => return,
            None => sent(requested),
            Some(row) => row.clone(),
        };
        match row.state {
            DeliveryState::Parked | DeliveryState::ParkedFrom => return,
            DeliveryState::Retrying | DeliveryState::Scheduled => self.low_water.stays(row.seq),
            DeliveryState::Dead | DeliveryState::Expired => {
                row.redelivery = raised.max(row.redelivery.saturating_add(1));
            }
        }
        row.state = DeliveryState::Retrying;
        row.attempts = 0;
        row.next_attempt = Some(now);
        changes.upsert(row);
    }

    fn discard(&mut self, requested: &Requested, changes: &mut Changes) {
        let Some(row) = &requested.exception else {
            return;
        };
        match (row.state, key_of(requested)) {
            (DeliveryState::ParkedFrom, _) => return,
            (DeliveryState::Parked, Some(key)) => self.keys.unpark(&key),
            (DeliveryState::Retrying | DeliveryState::Dead, Some(key)) if row.blocks_key => {
                self.keys.unblock(&key);
            }
            _ => {}
        }
        if !matches!(row.state, DeliveryState::Dead | DeliveryState::Expired) {
            self.low_water.left(row.seq);
        }
        changes.remove(row.seq);
    }

    fn unblock(&mut self, requested: &Requested, changes: &mut Changes) {
        let Some(row) = &requested.exception else {
            return;
        };
        if row.state != DeliveryState::Dead || !row.blocks_key {
            return;
        }
        if let Some(key) = key_of(requested) {
            self.keys.unblock(&key);
        }
        changes.upsert(Exception {
            blocks_key: false,
            ..row.clone()
        });
    }

    /// A message without a row that will be sent anyway: not read yet, or behind a marker.
    fn is_still_to_come(&self, requested: &Requested) -> bool {
        requested.seq > self.cursor
            || key_of(requested).is_some_and(|key| self.keys.covers(&key, requested.seq))
    }
}

fn key_of(requested: &Requested) -> Option<KeyRef> {
    Some(KeyRef {
        topic: requested.topic.clone(),
        key: requested.key.clone()?,
    })
}

/// The row of a message that was sent: like a dead one that blocks nobody.
fn sent(requested: &Requested) -> Exception {
    Exception {
        seq: requested.seq,
        topic: requested.topic.clone(),
        key: requested.key.clone(),
        state: DeliveryState::Dead,
        attempts: 0,
        next_attempt: None,
        last_error: None,
        redelivery: 0,
        blocks_key: false,
    }
}
