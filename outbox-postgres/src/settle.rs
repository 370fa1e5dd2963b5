//! Settle: what became of messages, in one statement, under the epoch.

use std::collections::BTreeMap;

use outbox_core::{DeliveryState, Exception, Seq, Settlement, StoreError, Unrouted, limits};
use sqlx::Row;

use crate::error::{OrStoreError, damaged};
use crate::gaps::GapChanges;
use crate::session::PostgresSession;
use crate::sql::{OPEN_LEASE, SETTLE};

/// Writes `settlement`, and the gaps and unrouted counts that go with it.
pub(crate) async fn settle(
    session: &mut PostgresSession,
    settlement: &Settlement,
) -> Result<(), StoreError> {
    if settlement.through > session.position {
        let beyond = format!(
            "it would move the cursor to {}, but the last page ended at {}",
            settlement.through, session.position
        );
        return Err(refused(session, beyond).await?);
    }
    let cursor = settlement.through.max(session.cursor);
    let changes = session
        .gaps
        .changes(cursor, &settlement.late, session.now());
    let unrouted = unrouted_up_to(&session.unrouted, cursor);
    let moved = cursor > session.cursor;
    if !moved && changes.is_empty() && unrouted.is_empty() && is_empty(settlement) {
        return Ok(());
    }
    let Some(xid) = write(session, settlement, cursor, &changes, &unrouted).await? else {
        let changed = "the destination's topics were changed while the session was open: open it \
                       again";
        return Err(refused(session, changed).await?);
    };
    session.gaps.settled(&changes, &settlement.late, xid);
    session.unrouted.retain(|(through, _)| *through > cursor);
    session.high_water = session.high_water.max(session.position);
    session.cursor = cursor;
    Ok(())
}

fn is_empty(settlement: &Settlement) -> bool {
    settlement.late.is_empty()
        && settlement.upsert.is_empty()
        && settlement.remove.is_empty()
        && settlement.markers.is_empty()
        && settlement.requests.is_empty()
}

/// Runs the statement; `None` when the guard found nothing, and then nothing was written.
async fn write(
    session: &mut PostgresSession,
    settlement: &Settlement,
    cursor: Seq,
    changes: &GapChanges,
    unrouted: &[Unrouted],
) -> Result<Option<u64>, StoreError> {
    let upserts = Upserts::new(&settlement.upsert);
    let removed = settlement
        .remove
        .iter()
        .copied()
        .filter(|seq| !upserts.seqs.contains(seq));
    let removed: Vec<Seq> = removed.collect();
    // Of one key the last word counts; one statement cannot write a row twice.
    let markers: BTreeMap<_, _> = settlement
        .markers
        .iter()
        .map(|(key, from)| (key, *from))
        .collect();
    let lowest = session
        .gaps
        .lowest()
        .into_iter()
        .chain(upserts.lowest_live)
        .min();
    let fences: Vec<Option<String>> = changes
        .write
        .iter()
        .map(|gap| gap.fence.map(|fence| fence.to_string()))
        .collect();
    let row = session
        .store
        .query(SETTLE)
        .bind(&session.lease.destination)
        .bind(session.lease.epoch)
        .bind(session.route_version)
        .bind(true)
        .bind(&session.opened.incarnation)
        .bind(cursor)
        .bind(session.high_water.max(session.position))
        .bind(lowest)
        .bind(&changes.remove)
        .bind(changes.write.iter().map(|gap| gap.lo).collect::<Vec<_>>())
        .bind(changes.write.iter().map(|gap| gap.hi).collect::<Vec<_>>())
        .bind(fences)
        .bind(
            changes
                .write
                .iter()
                .map(|gap| gap.age.as_secs_f64())
                .collect::<Vec<_>>(),
        )
        .bind(removed)
        .bind(&upserts.seqs)
        .bind(&upserts.topics)
        .bind(&upserts.keys)
        .bind(&upserts.states)
        .bind(&upserts.attempts)
        .bind(&upserts.next_attempts)
        .bind(&upserts.errors)
        .bind(&upserts.redeliveries)
        .bind(&upserts.block)
        .bind(markers.keys().map(|key| &*key.topic).collect::<Vec<_>>())
        .bind(markers.keys().map(|key| &*key.key).collect::<Vec<_>>())
        .bind(markers.values().copied().collect::<Vec<_>>())
        .bind(&settlement.requests)
        .bind(
            unrouted
                .iter()
                .map(|u| u.topic.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            unrouted
                .iter()
                .map(|u| u.count.cast_signed())
                .collect::<Vec<_>>(),
        )
        .bind(unrouted.iter().map(|u| u.first).collect::<Vec<_>>())
        .bind(unrouted.iter().map(|u| u.last).collect::<Vec<_>>())
        .bind(&session.lease.owner)
        .fetch_optional(&mut session.connection)
        .await
        .or_store("settle")?;
    row.map(|row| {
        let xid: &str = row.get(0);
        xid.parse()
            .map_err(|_| damaged("settle", format!("xid {xid:?} is no number")))
    })
    .transpose()
}

/// Why nothing may be written: the lease is lost, or else `otherwise`.
async fn refused(
    session: &mut PostgresSession,
    otherwise: impl Into<String>,
) -> Result<StoreError, StoreError> {
    let row = session
        .store
        .query(OPEN_LEASE)
        .bind(&session.lease.destination)
        .fetch_optional(&mut session.connection)
        .await
        .or_store("read the lease")?;
    let leads = row.is_some_and(|row| {
        row.get::<Option<i64>, _>("epoch") == Some(session.lease.epoch)
            && row.get::<Option<&str>, _>("owner") == Some(&session.lease.owner)
    });
    if leads {
        return Ok(damaged("settle", otherwise));
    }
    Ok(StoreError::LeaseLost {
        destination: session.lease.destination.clone(),
        epoch: session.lease.epoch,
    })
}

/// Counts of pages up to the cursor, one entry for each topic.
fn unrouted_up_to(pages: &[(Seq, Vec<Unrouted>)], cursor: Seq) -> Vec<Unrouted> {
    let mut topics: BTreeMap<&str, Unrouted> = BTreeMap::new();
    let settled = pages.iter().filter(|(through, _)| *through <= cursor);
    for found in settled.flat_map(|(_, found)| found) {
        topics
            .entry(&found.topic)
            .and_modify(|sum| {
                sum.count += found.count;
                sum.first = sum.first.min(found.first);
                sum.last = sum.last.max(found.last);
            })
            .or_insert_with(|| found.clone());
    }
    topics.into_values().collect()
}

/// Delivery rows by column, as UNNEST takes them; of one seq the last.
#[derive(Default)]
struct Upserts<'a> {
    seqs: Vec<Seq>,
    topics: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    states: Vec<&'static str>,
    attempts: Vec<i32>,
    next_attempts: Vec<Option<chrono::DateTime<chrono::Utc>>>,
    errors: Vec<Option<String>>,
    redeliveries: Vec<i32>,
    block: Vec<bool>,
    /// The lowest seq that will be published again.
    lowest_live: Option<Seq>,
}

impl<'a> Upserts<'a> {
    fn new(exceptions: &'a [Exception]) -> Self {
        let last_of_each: BTreeMap<Seq, &Exception> = exceptions
            .iter()
            .map(|exception| (exception.seq, exception))
            .collect();
        let mut columns = Self::default();
        for exception in last_of_each.into_values() {
            columns.push(exception);
        }
        columns
    }

    fn push(&mut self, exception: &'a Exception) {
        let live = !matches!(
            exception.state,
            DeliveryState::Dead | DeliveryState::Expired
        );
        if live && self.lowest_live.is_none() {
            self.lowest_live = Some(exception.seq);
        }
        self.seqs.push(exception.seq);
        self.topics.push(&exception.topic);
        self.keys.push(exception.key.as_deref());
        self.states.push(exception.state.as_str());
        self.attempts
            .push(exception.attempts.min(i32::MAX as u32).cast_signed());
        self.next_attempts.push(exception.next_attempt);
        self.errors
            .push(exception.last_error.as_deref().map(storable));
        self.redeliveries
            .push(exception.redelivery.min(i32::MAX as u32).cast_signed());
        self.block.push(exception.blocks_key);
    }
}

/// An error's text as a column can hold it: without NUL, and not too long.
fn storable(text: &str) -> String {
    let mut end = text.len().min(limits::ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_cut_at_a_character_and_holds_no_nul() {
        let long = format!("a\0{}", "é".repeat(limits::ERROR_TEXT_BYTES_MAX));
        let kept = storable(&long);
        assert!(kept.starts_with("a\u{fffd}é"));
        assert!(kept.len() <= limits::ERROR_TEXT_BYTES_MAX + 2);
        assert_eq!(storable("short"), "short");
    }

    #[test]
    fn unrouted_counts_wait_for_the_cursor_and_add_up_by_topic() {
        let found = |count, first, last| Unrouted {
            topic: "t".to_owned(),
            count,
            first,
            last,
        };
        let pages = [
            (10, vec![found(2, 3, 9)]),
            (20, vec![found(1, 12, 12)]),
            (30, vec![found(5, 21, 30)]),
        ];
        assert_eq!(unrouted_up_to(&pages, 20), [found(3, 3, 12)]);
        assert_eq!(unrouted_up_to(&pages, 9), []);
    }

    #[test]
    fn of_two_rows_for_one_seq_the_last_counts() {
        let exception = |state, attempts| Exception {
            seq: 7,
            topic: "t".into(),
            key: None,
            state,
            attempts,
            next_attempt: None,
            last_error: None,
            redelivery: 0,
            blocks_key: false,
        };
        let rows = [
            exception(DeliveryState::Retrying, 1),
            exception(DeliveryState::Dead, 2),
        ];
        let columns = Upserts::new(&rows);
        assert_eq!(
            (columns.seqs.as_slice(), columns.states.as_slice()),
            (&[7][..], &["dead"][..])
        );
        assert_eq!(columns.lowest_live, None);
    }
}
