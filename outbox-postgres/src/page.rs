//! One page: what to read, what it means for gaps, and whether it is durable.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use outbox_core::{Page, PageLimit, Pending, Seq, StoreError, Unrouted};
use sqlx::Row;

use crate::error::{OrStoreError, damaged};
use crate::gaps::{LookUp, missing};
use crate::page_rows::{Kind, LogRow, copy_rows, prepared_rows};
use crate::page_statement::{PageRequest, Prepared};
use crate::session::{PostgresSession, Tail};
use crate::session_routes::Routes;
use crate::sql::{FLUSHED, FORCE_FLUSH, HOLDERS};

/// Seqs at the end of the log that are missing for so long become a gap like any other. Until then they
/// are simply read next time: most commit within a millisecond, in order.
const TAIL_AGE_MAX: Duration = Duration::from_millis(100);

/// How often the flush position is read before a flush is forced: other commits nearly always flush
/// first, and one round trip is about as long as a flush.
const FLUSH_READS_MAX: usize = 3;

/// Reads the next page of a session.
pub(crate) async fn read(
    session: &mut PostgresSession,
    limit: PageLimit,
) -> Result<Page, StoreError> {
    if !session.sequence.fresh {
        session.read_sequence().await?;
    }
    session.sequence.fresh = false;
    let limit = PageLimit {
        rows: limit.rows.max(1),
        ..limit
    };
    let from = session.position + 1;
    let bound = session.sequence.last.min(session.routes.same_until(from));
    let look_up = session.gaps.look_up(session.now());
    if bound < from && look_up.is_empty() {
        session.tail = None;
        return Ok(empty(session));
    }
    let bound = bound.max(session.position);
    let read = read_rows(session, bound, look_up, limit).await?;
    let page = take_in(session, bound, read).await?;
    let opened = session.now();
    if session.gaps.wants_locks(opened) {
        read_locks(session).await?;
    }
    Ok(page)
}

fn empty(session: &PostgresSession) -> Page {
    Page {
        from: session.position + 1,
        through: session.position,
        ..Page::default()
    }
}

/// What the statement answered.
struct ReadRows {
    header: Header,
    look_up: LookUp,
    /// Rows of open gaps.
    late: Vec<LogRow>,
    /// Messages of the stretch that are ours.
    messages: Vec<Pending>,
    /// Seqs of the stretch that are not there, below the last one that is.
    missing: Vec<(Seq, Seq)>,
    /// The last seq of the stretch that is there; the position when none is.
    last: Seq,
    /// Topics of the stretch that are not ours.
    foreign: BTreeMap<Arc<str>, Unrouted>,
    /// Rows came out of order: the books of gaps would be wrong.
    disordered: bool,
}

/// The two ways to send one and the same statement.
enum PageStatement {
    Prepared(Prepared),
    Copy(String),
}

async fn read_rows(
    session: &mut PostgresSession,
    bound: Seq,
    look_up: LookUp,
    limit: PageLimit,
) -> Result<ReadRows, StoreError> {
    let request = PageRequest {
        schema: session.store.schema(),
        destination: &session.lease.destination,
        token: session.token,
        after: session.position,
        bound,
        patterns: &session.routes.patterns_at(session.position + 1),
        look_up: &look_up,
        limit,
    };
    // Behind a pooler nothing stays prepared.
    let statement = match request.prepared() {
        Some(prepared) if !session.store.pooled() => PageStatement::Prepared(prepared),
        _ => PageStatement::Copy(request.copy()),
    };
    let expected = usize::try_from(bound - session.position)
        .unwrap_or(0)
        .min(limit.rows);
    let mut header = None;
    let mut rows = ReadRows {
        header: Header::default(),
        look_up,
        late: Vec::new(),
        messages: Vec::with_capacity(expected),
        missing: Vec::new(),
        last: session.position,
        foreign: BTreeMap::new(),
        disordered: false,
    };
    let counts = session.counts_unrouted;
    let each = |row: LogRow| match row.kind {
        Kind::Header => header = Some(row.topic),
        Kind::LookedUp => rows.late.push(row),
        Kind::Stretch => rows.stretch(row, counts),
    };
    let (connection, interner) = (&mut session.connection, &mut session.interner);
    match statement {
        PageStatement::Prepared(prepared) => {
            prepared_rows(connection, prepared, interner, each).await?;
        }
        PageStatement::Copy(copy) => copy_rows(connection, &copy, interner, each).await?,
    }
    rows.header = Header::parse(&header.unwrap_or_default())
        .ok_or_else(|| damaged("read a page of the log", "the header is malformed"))?;
    rows.header.check()?;
    if rows.disordered {
        return Err(damaged("read a page of the log", "rows came out of order"));
    }
    Ok(rows)
}

impl ReadRows {
    fn stretch(&mut self, row: LogRow, counts: bool) {
        let seq = row.seq;
        if seq > self.last + 1 {
            self.missing.push((self.last + 1, seq - 1));
        }
        self.disordered |= seq <= self.last;
        self.last = self.last.max(seq);
        let topic = row.topic.clone();
        match row.into_pending(false) {
            Some(message) => self.messages.push(message),
            None if counts => count(&mut self.foreign, topic, seq),
            None => {}
        }
    }
}

fn count(topics: &mut BTreeMap<Arc<str>, Unrouted>, topic: Arc<str>, seq: Seq) {
    let entry = topics.entry(topic.clone()).or_insert_with(|| Unrouted {
        topic: topic.to_string(),
        count: 0,
        first: seq,
        last: seq,
    });
    entry.count += 1;
    entry.first = entry.first.min(seq);
    entry.last = entry.last.max(seq);
}

/// Facts about the page's snapshot.
#[derive(Debug, Default)]
struct Header {
    xmin: u64,
    /// Taken after the snapshot: every commit it shows lies before.
    insert_lsn: i64,
    flush_lsn: i64,
    row_security: bool,
    session_holds: bool,
    /// Where each arm was cut, the stretch last.
    cuts: Vec<Option<Seq>>,
}

impl Header {
    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        Some(Self {
            xmin: words.next()?.parse().ok()?,
            insert_lsn: words.next()?.parse().ok()?,
            flush_lsn: words.next()?.parse().ok()?,
            row_security: words.next()? == "1",
            session_holds: words.next()? == "1",
            cuts: words
                .map(|word| match word {
                    "-" => Some(None),
                    seq => seq.parse().ok().map(Some),
                })
                .collect::<Option<_>>()?,
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.row_security {
            return Err(StoreError::Refused {
                problem: "row-level security hides messages from this login, and hidden means lost"
                    .to_owned(),
                cure: "alter role … bypassrls, or take the policies off the outbox's tables"
                    .to_owned(),
            });
        }
        if !self.session_holds {
            return Err(StoreError::Outage(
                "the server has crashed or was promoted since this session opened, or another \
                 session took its place"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Books what was read, and waits until it is durable.
async fn take_in(
    session: &mut PostgresSession,
    bound: Seq,
    mut read: ReadRows,
) -> Result<Page, StoreError> {
    let now = session.now();
    let cut = read
        .header
        .cuts
        .last()
        .copied()
        .flatten()
        .filter(|_| bound > session.position);
    let any_cut = read.header.cuts.iter().any(Option::is_some);
    read.look_up.cut(&read.header.cuts);
    let mut messages = take_late(session, &mut read);
    session.gaps.close(&read.look_up, read.header.xmin);

    let from = session.position + 1;
    let through = match cut {
        Some(last) => last,
        None => end_of_stretch(session, read.last, bound, now),
    };
    let mut gaps = read.missing;
    gaps.extend(missing(read.last + 1, through, std::iter::empty()));
    session.gaps.discover(&gaps, now);
    session.position = through;
    messages.append(&mut read.messages);

    let unrouted = only_unrouted(session, read.foreign, from, through).await?;
    if !unrouted.is_empty() {
        session.unrouted.push((through, unrouted.clone()));
    }
    let (gaps_open, gap_age_max) = session.gaps.count_and_age(now);
    if !messages.is_empty() && read.header.flush_lsn < read.header.insert_lsn {
        wait_until_flushed(session, read.header.insert_lsn).await?;
    }
    Ok(Page {
        messages,
        from,
        through,
        gaps,
        gaps_open,
        gap_age_max,
        unrouted,
        more: any_cut
            || (through > from - 1 && through < session.sequence.last && session.tail.is_none()),
    })
}

/// The late messages that are ours, in order of seq.
fn take_late(session: &mut PostgresSession, read: &mut ReadRows) -> Vec<Pending> {
    read.late.sort_unstable_by_key(|row| row.seq);
    let mut messages = Vec::with_capacity(read.late.len() + read.messages.len());
    for row in read.late.drain(..) {
        let (seq, topic) = (row.seq, row.topic.clone());
        let ours = session.routes.ours(seq, &topic);
        if !session.gaps.saw(seq, ours) {
            continue;
        }
        if ours {
            messages.extend(row.into_pending(true));
        } else if session.counts_unrouted {
            count(&mut read.foreign, topic, seq);
        }
    }
    messages
}

/// Where a stretch ends that was read to its `bound`: at the last seq seen, and once the rest has
/// been missing for a while at the bound, with the rest as a gap.
fn end_of_stretch(session: &mut PostgresSession, last: Seq, bound: Seq, now: Duration) -> Seq {
    if last >= bound {
        session.tail = None;
        return bound;
    }
    let from = last + 1;
    let since = match session.tail {
        Some(tail) if tail.from == from => tail.since,
        _ => now,
    };
    if now.saturating_sub(since) >= TAIL_AGE_MAX {
        session.tail = None;
        return bound;
    }
    let bound = session.sequence.last;
    session.tail = Some(Tail {
        from,
        bound,
        since,
        looked_at: now,
    });
    last
}

/// Of the topics that are not ours, those that are nobody's. Routes may have been added since they
/// were read, so nobody's topics are looked up again before they count.
async fn only_unrouted(
    session: &mut PostgresSession,
    mut foreign: BTreeMap<Arc<str>, Unrouted>,
    from: Seq,
    through: Seq,
) -> Result<Vec<Unrouted>, StoreError> {
    let nobodys = |routes: &Routes, topic: &str, found: &Unrouted| {
        !routes.anyones(found.first.min(from), found.last.min(through), topic)
    };
    foreign.retain(|topic, found| nobodys(&session.routes, topic, found));
    if foreign.is_empty() {
        return Ok(Vec::new());
    }
    let statements = session.store.statements().clone();
    let fresh = Routes::read(
        &mut session.connection,
        &statements,
        &session.lease.destination,
    )
    .await?;
    foreign.retain(|topic, found| nobodys(&fresh, topic, found));
    Ok(foreign.into_values().collect())
}

/// Visible is not yet durable when writers commit asynchronously: what a crash takes back must not
/// have been published.
async fn wait_until_flushed(session: &mut PostgresSession, lsn: i64) -> Result<(), StoreError> {
    let doing = "wait until messages are durable";
    for _ in 0..FLUSH_READS_MAX {
        let row = session
            .store
            .query(FLUSHED)
            .fetch_one(&mut session.connection)
            .await
            .or_store(doing)?;
        if row.get::<i64, _>(0) >= lsn {
            return Ok(());
        }
    }
    // Its own commit record lies behind `lsn`, and its commit returns when that is flushed.
    session
        .store
        .query(FORCE_FLUSH)
        .execute(&mut session.connection)
        .await
        .or_store(doing)?;
    Ok(())
}

/// Who could still commit a gap's seq. Read after the page, so that a transaction which is missing here
/// has ended, and the next page shows what it committed.
async fn read_locks(session: &mut PostgresSession) -> Result<(), StoreError> {
    let rows = session
        .store
        .query(HOLDERS)
        .fetch_all(&mut session.connection)
        .await
        .or_store("read who holds gaps open")?;
    let holders: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    session.gaps.locks_held(&holders);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_its_snapshot_and_where_it_was_cut() {
        let header = Header::parse("812 4096 2048 0 1 - 17").expect("well-formed");
        assert_eq!(
            (header.xmin, header.insert_lsn, header.flush_lsn),
            (812, 4096, 2048)
        );
        assert!(!header.row_security && header.session_holds);
        assert_eq!(header.cuts, [None, Some(17)]);
        assert!(header.check().is_ok());
        assert!(Header::parse("812 4096").is_none());
    }

    #[test]
    fn a_page_from_before_a_crash_or_under_row_security_is_refused() {
        let crashed = Header::parse("812 1 1 0 0 -").expect("well-formed");
        assert!(matches!(crashed.check(), Err(StoreError::Outage(_))));
        let hidden = Header::parse("812 1 1 1 1 -").expect("well-formed");
        assert!(matches!(hidden.check(), Err(StoreError::Refused { .. })));
    }
}
