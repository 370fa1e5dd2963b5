//! What is to be written at the next settle.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use outbox_core::{DeliveryState, Exception, KeyRef, Pending, Seq, Settlement};

/// Delivery rows and markers that change together.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    upsert: BTreeMap<Seq, Exception>,
    remove: BTreeSet<Seq>,
    markers: HashMap<KeyRef, Option<Seq>>,
}

impl Changes {
    /// Writes a row; the last word about a seq counts.
    pub(crate) fn upsert(&mut self, row: Exception) {
        self.remove.remove(&row.seq);
        self.upsert.insert(row.seq, row);
    }

    /// Removes a row, whether or not the store has it yet.
    pub(crate) fn remove(&mut self, seq: Seq) {
        self.upsert.remove(&seq);
        self.remove.insert(seq);
    }

    /// Sets or clears a marker.
    pub(crate) fn marker(&mut self, key: KeyRef, from: Option<Seq>) {
        self.markers.insert(key, from);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.upsert.is_empty() && self.remove.is_empty() && self.markers.is_empty()
    }

    /// Adds `later`, which has the last word.
    pub(crate) fn append(&mut self, later: Changes) {
        if self.is_empty() {
            *self = later;
            return;
        }
        later.upsert.into_values().for_each(|row| self.upsert(row));
        later.remove.into_iter().for_each(|seq| self.remove(seq));
        self.markers.extend(later.markers);
    }

    /// The rows to be written.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Exception> {
        self.upsert.values()
    }

    /// When the earliest of the rows to be written is due.
    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        self.upsert.values().filter_map(|r| r.next_attempt).min()
    }
}

/// Everything that was finished since the last settle.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    through: Option<Seq>,
    late: Vec<Seq>,
    changes: Changes,
    requests: Vec<i64>,
}

impl Ledger {
    /// A stretch of the log is accounted for: `changes` are its exceptions.
    pub(crate) fn passed(&mut self, through: Seq, mut late: Vec<Seq>, changes: Changes) {
        self.through = Some(through);
        self.late.append(&mut late);
        self.changes.append(changes);
    }

    /// Rows changed without the cursor.
    pub(crate) fn changed(&mut self, changes: Changes) {
        self.changes.append(changes);
    }

    /// A request was applied.
    pub(crate) fn applied(&mut self, request: i64) {
        self.requests.push(request);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.through.is_none() && !self.is_urgent()
    }

    /// Whether rows are waiting to be written: those are not put off, for `due` and `parked` read
    /// them back from the store.
    pub(crate) fn is_urgent(&self) -> bool {
        !(self.late.is_empty() && self.changes.is_empty() && self.requests.is_empty())
    }

    /// The settlement, beginning a new one. `cursor` is where the last one went.
    pub(crate) fn take(&mut self, cursor: Seq) -> Settlement {
        let Ledger {
            through,
            late,
            changes,
            requests,
        } = std::mem::take(self);
        Settlement {
            through: through.unwrap_or(cursor),
            late,
            upsert: changes.upsert.into_values().collect(),
            remove: changes.remove.into_iter().collect(),
            markers: changes.markers.into_iter().collect(),
            requests,
        }
    }
}

/// A row for `message` in `state`, with what the message brings along.
pub(crate) fn row(message: &Pending, state: DeliveryState) -> Exception {
    Exception {
        seq: message.seq,
        topic: message.topic.clone(),
        key: message.key.clone(),
        state,
        attempts: message.attempts,
        next_attempt: None,
        last_error: None,
        redelivery: message.redelivery,
        blocks_key: false,
    }
}

/// A text of at most [`outbox_core::limits::ERROR_TEXT_BYTES_MAX`], cut at a character.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(outbox_core::limits::ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // PostgreSQL's text cannot hold NUL, and one in an error text must not stop the destination.
    text[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(seq: Seq) -> Exception {
        Exception {
            seq,
            topic: "t".into(),
            key: None,
            state: DeliveryState::Dead,
            attempts: 1,
            next_attempt: None,
            last_error: None,
            redelivery: 0,
            blocks_key: false,
        }
    }

    #[test]
    fn the_last_word_about_a_seq_counts_and_is_said_once() {
        let mut ledger = Ledger::default();
        let mut first = Changes::default();
        first.upsert(exception(1));
        first.remove(2);
        let mut second = Changes::default();
        second.remove(1);
        second.upsert(exception(2));
        ledger.changed(first);
        ledger.changed(second);
        let settlement = ledger.take(7);
        assert_eq!(settlement.through, 7);
        assert_eq!(settlement.upsert, vec![exception(2)]);
        assert_eq!(settlement.remove, vec![1]);
        assert!(ledger.is_empty());
    }

    #[test]
    fn an_error_text_is_cut_at_a_character_and_holds_no_nul() {
        let long = "é".repeat(1_000);
        assert_eq!(cut(&long).len(), 1_024);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), 1_023);
        assert_eq!(cut("a\0b"), "a\u{fffd}b");
    }
}
