//! The page's statement: gaps and stretch in one snapshot, with the facts about that snapshot.
//!
//! Two statements lost a message and broke order in tests: between them a late message may commit.
//! Numbers are written into the text, for only constants let the planner leave out partitions. A
//! short page has its numbers as parameters, so that the server keeps the plan (parsing and
//! planning cost several times what running it does), and beside them the constants of a wide
//! window around them, which leave out the same partitions.
//! Topic filters stand in the list of columns (the payload is null where they do not match), never in
//! WHERE, where another destination's rows would look like gaps.

use outbox_core::{KeyRef, PageLimit, Seq, TopicPattern, limits};
use outbox_migrations::{in_schema, quote_literal};
use uuid::Uuid;

use crate::gaps::LookUp;
use crate::page_rows::COLUMNS;

/// Longest stretch that is read by a prepared statement. A longer one is worth its planning, and COPY
/// hands its rows over cheaper.
const PREPARED_ROWS_MAX: i64 = 256;

/// Seqs of one window. As wide as a partition is at least, and cut where the first ones are, so
/// that a plan holds one partition or two; each window is planned once.
const WINDOW_SEQS: i64 = 1_000_000;

/// A short page as a statement to prepare: the text is the same for every page of its window.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) text: String,
    /// `$1`: everything behind this seq …
    pub(crate) after: Seq,
    /// … `$2`: up to and with this one.
    pub(crate) bound: Seq,
    /// `$3`, when there are any.
    pub(crate) seqs: Vec<Seq>,
}

/// What one page reads.
pub(crate) struct PageRequest<'a> {
    pub(crate) schema: &'a str,
    pub(crate) destination: &'a str,
    /// The session's token, which the snapshot must still hold.
    pub(crate) token: Uuid,
    /// Everything behind this seq …
    pub(crate) after: Seq,
    /// … up to and with this one.
    pub(crate) bound: Seq,
    /// Topics of ours in that stretch.
    pub(crate) patterns: &'a [TopicPattern],
    pub(crate) look_up: &'a LookUp,
    pub(crate) limit: PageLimit,
}

impl PageRequest<'_> {
    /// The statement, its numbers written into it.
    pub(crate) fn copy(&self) -> String {
        let select = self.select(&self.arms());
        in_schema(
            &format!("copy ({select}) to stdout (format binary)"),
            self.schema,
        )
    }

    /// The statement to prepare, when the page is short, looks up no range, and all of it lies
    /// in one window.
    pub(crate) fn prepared(&self) -> Option<Prepared> {
        let window = Window::of(self.after + 1);
        let seqs = &self.look_up.seqs;
        let fits = self.bound - self.after <= PREPARED_ROWS_MAX
            && window.holds(self.bound)
            && self.look_up.ranges.is_empty()
            && seqs.iter().all(|&seq| window.holds(seq));
        fits.then(|| Prepared {
            text: in_schema(&self.select(&self.arms_within(&window)), self.schema),
            after: self.after,
            bound: self.bound,
            seqs: seqs.clone(),
        })
    }

    fn select(&self, arms: &[Arm]) -> String {
        let mut ctes = Vec::new();
        let mut cuts = Vec::new();
        let mut selects = Vec::new();
        for (place, arm) in arms.iter().enumerate() {
            let name = format!("cut_{place}");
            if arm.needs_cut(self.limit) {
                ctes.push(format!("{name} as materialized ({})", arm.cut(self.limit)));
                cuts.push(format!(
                    "(select case when whole then '-' else seq::text end from {name})"
                ));
                selects.push(arm.select(self.limit, Some(&name)));
            } else {
                cuts.push("'-'".to_owned());
                selects.push(arm.select(self.limit, None));
            }
        }
        let with = if ctes.is_empty() {
            String::new()
        } else {
            format!("with {} ", ctes.join(", "))
        };
        let all = [vec![self.header(&cuts)], selects]
            .concat()
            .join(" union all ");
        format!("{with}{all}")
    }

    /// Single seqs, each range, and the stretch: one arm each, for an OR of them would be a filter
    /// over everything already sent.
    fn arms(&self) -> Vec<Arm> {
        let seqs = &self.look_up.seqs;
        let singles = Arm::late(seqs_predicate(seqs), seqs.len() as i64);
        let ranges =
            self.look_up.ranges.iter().map(|&(lo, hi)| {
                Arm::late(format!("m.seq >= {lo} and m.seq <= {hi}"), hi - lo + 1)
            });
        let predicate = format!("m.seq > {} and m.seq <= {}", self.after, self.bound);
        let singles = (!seqs.is_empty()).then_some(singles);
        singles
            .into_iter()
            .chain(ranges)
            .chain([self.stretch(predicate)])
            .collect()
    }

    /// The same with parameters: single seqs if there are any, and the stretch.
    fn arms_within(&self, window: &Window) -> Vec<Arm> {
        let seqs = &self.look_up.seqs;
        let within = format!("m.seq >= {} and m.seq <= {}", window.lo, window.hi);
        let predicate = format!("m.seq = any ($3::int8[]) and {within}");
        let singles = (!seqs.is_empty()).then(|| Arm::late(predicate, seqs.len() as i64));
        let stretch = format!("m.seq > $1::int8 and m.seq <= $2::int8 and {within}");
        singles.into_iter().chain([self.stretch(stretch)]).collect()
    }

    fn stretch(&self, predicate: String) -> Arm {
        Arm {
            kind: 2,
            predicate,
            ours: ours(self.patterns),
            rows_max: self.bound - self.after,
        }
    }

    /// The facts, as words: xmin, insert LSN, flush LSN, row security, whether the session's row
    /// is still there, and for each arm the seq it was cut at (`-`: it was not).
    /// The LSN is taken after the snapshot, so it lies behind every commit the snapshot shows.
    /// `set_config` adds no word: a function that is unsafe in parallel plans keeps the rows in order.
    fn header(&self, cuts: &[String]) -> String {
        format!(
            "(select 0::int2, 0::int8, null::uuid, concat_ws(' ', \
                pg_snapshot_xmin(pg_current_snapshot()), \
                (pg_current_wal_insert_lsn() - '0/0')::int8, \
                (pg_current_wal_flush_lsn() - '0/0')::int8, \
                row_security_active('{{schema_in_text}}.message'::regclass)::int, \
                (exists (select from {{schema}}.session s where s.destination = {} \
                    and s.token = '{}'))::int, \
                nullif(set_config('row_security', 'off', true), 'off'), {}), \
                null::text, null::bytea, null::text, null::jsonb, \
                null::timestamptz, null::timestamptz, null::timestamptz)",
            quote_literal(self.destination),
            self.token,
            cuts.join(", "),
        )
    }
}

/// A stretch of seqs whose ends are constants of a prepared statement.
struct Window {
    lo: Seq,
    hi: Seq,
}

impl Window {
    /// The window that holds `seq`, which is 1 or above.
    fn of(seq: Seq) -> Self {
        let lo = (seq - 1).div_euclid(WINDOW_SEQS) * WINDOW_SEQS + 1;
        Self {
            lo,
            hi: lo + WINDOW_SEQS - 1,
        }
    }

    fn holds(&self, seq: Seq) -> bool {
        (self.lo..=self.hi).contains(&seq)
    }
}

/// One part of the union.
struct Arm {
    kind: i16,
    predicate: String,
    /// SQL that says whether a row is ours; `None`: every row is.
    ours: Option<String>,
    /// No more rows than this can match.
    rows_max: i64,
}

impl Arm {
    /// Rows of open gaps. Which topics were ours at an earlier seq is decided row by row, by the
    /// caller.
    fn late(predicate: String, rows_max: i64) -> Self {
        Self {
            kind: 1,
            predicate,
            ours: None,
            rows_max,
        }
    }

    /// Whether the limit may end this arm early.
    fn needs_cut(&self, limit: PageLimit) -> bool {
        let rows = usize::try_from(self.rows_max).unwrap_or(usize::MAX);
        rows > limit.rows || rows.saturating_mul(limits::PAYLOAD_BYTES_MAX) > limit.bytes
    }

    /// The last seq within both limits, and whether that is all of it. The first row with a payload
    /// always is within, however large: its running sum is its own length. Lengths are read without
    /// the payloads; the running sum, which costs as much as the rows themselves, runs only when the
    /// whole does not fit.
    fn cut(&self, limit: PageLimit) -> String {
        let length = match &self.ours {
            None => "octet_length(m.payload)".to_owned(),
            Some(ours) => format!("case when {ours} then octet_length(m.payload) else 0 end"),
        };
        let base = format!(
            "(select m.seq, {length} as bytes from {{schema}}.message m where {} \
              order by m.seq limit {})",
            self.predicate, limit.rows
        );
        format!(
            "select count(*) < {rows} and coalesce(sum(bytes), 0) <= {bytes} as whole, \
                case when sum(bytes) <= {bytes} then max(seq) else ( \
                select max(w.seq) filter (where w.total <= {bytes} or w.total = w.bytes) from ( \
                    select seq, bytes, \
                           sum(bytes) over (order by seq rows unbounded preceding) as total \
                      from {base} running) w) end as seq \
              from {base} whole",
            bytes = limit.bytes,
            rows = limit.rows,
        )
    }

    fn select(&self, limit: PageLimit, cut: Option<&str>) -> String {
        let keep = |column: &str| match &self.ours {
            None => format!("m.{column}"),
            Some(ours) => format!("case when {ours} then m.{column} end"),
        };
        let columns = COLUMNS
            .replace("{kind}", &self.kind.to_string())
            .replace("{payload}", &keep("payload"))
            .replace("{headers}", &keep("headers"));
        let cut = cut.map_or(String::new(), |cut| {
            format!(" and m.seq <= (select seq from {cut})")
        });
        format!(
            "(select {columns} from {{schema}}.message m where {}{cut} order by m.seq limit {})",
            self.predicate, limit.rows
        )
    }
}

/// Rows by their seqs, for the look-up of gaps and of exceptions.
pub(crate) fn seqs_predicate(seqs: &[Seq]) -> String {
    let seqs: Vec<String> = seqs.iter().map(Seq::to_string).collect();
    format!("m.seq = any ('{{{}}}'::int8[])", seqs.join(","))
}

/// Both places a message can be: the log, and what was kept when its partition went. A message may be
/// in both for a while.
const PLACES: [&str; 2] = ["message", "kept"];

/// Rows of these seqs, wherever they are.
pub(crate) fn copy_seqs(schema: &str, seqs: &[Seq]) -> String {
    let columns = COLUMNS
        .replace("{kind}", "1")
        .replace("{payload}", "m.payload")
        .replace("{headers}", "m.headers");
    let selects = everywhere(&format!("select {columns}"), &seqs_predicate(seqs));
    in_schema(
        &format!("copy ({selects}) to stdout (format binary)"),
        schema,
    )
}

/// Seq and payload length of these seqs.
pub(crate) fn lengths_of_seqs(schema: &str, seqs: &[Seq]) -> String {
    let lengths = "select m.seq, octet_length(m.payload)";
    in_schema(&everywhere(lengths, &seqs_predicate(seqs)), schema)
}

/// Seq, topic and key of these seqs.
pub(crate) fn heads_of_seqs(schema: &str, seqs: &[Seq]) -> String {
    let heads = everywhere("select m.seq, m.topic, m.key", &seqs_predicate(seqs));
    in_schema(
        &format!("select distinct * from ({heads}) heads order by seq"),
        schema,
    )
}

/// Seq and payload length of the first messages of a key in a stretch that have no delivery row.
pub(crate) fn lengths_of_key(
    schema: &str,
    destination: &str,
    key: &KeyRef,
    (from, through): (Seq, Seq),
    rows: usize,
) -> String {
    let predicate = format!(
        "m.seq >= {from} and m.seq <= {through} and m.topic = {} and m.key = {{key}} \
         and not exists (select from {{schema}}.delivery d where d.destination = {} \
             and d.seq = m.seq)",
        quote_literal(&key.topic),
        quote_literal(destination),
    );
    let all = everywhere("select m.seq, octet_length(m.payload) as bytes", &predicate);
    let text = format!("select distinct seq, bytes from ({all}) found order by seq limit {rows}");
    // The key goes in last: it is anybody's text, and may hold what looks like a placeholder.
    in_schema(&text, schema).replace("{key}", &quote_literal(&key.key))
}

fn everywhere(select: &str, predicate: &str) -> String {
    PLACES
        .map(|place| format!("{select} from {{schema}}.{place} m where {predicate}"))
        .join(" union all ")
}

/// SQL that says whether the topic is ours: `None` when every topic is, `false` when none is.
fn ours(patterns: &[TopicPattern]) -> Option<String> {
    if patterns.iter().any(TopicPattern::is_all) {
        return None;
    }
    let terms: Vec<String> = patterns
        .iter()
        .map(|pattern| {
            if pattern.as_str().contains('*') {
                format!("m.topic like {}", quote_literal(&pattern.to_like()))
            } else {
                format!("m.topic = {}", quote_literal(pattern.as_str()))
            }
        })
        .collect();
    Some(match terms.len() {
        0 => "false".to_owned(),
        _ => format!("({})", terms.join(" or ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(look_up: &'a LookUp, patterns: &'a [TopicPattern]) -> PageRequest<'a> {
        PageRequest {
            schema: "outbox",
            destination: "it's",
            token: Uuid::nil(),
            after: 10,
            bound: 12,
            patterns,
            look_up,
            limit: PageLimit::default(),
        }
    }

    #[test]
    fn a_short_stretch_is_read_without_measuring_it_first() {
        let copy = request(&LookUp::default(), &["*".parse().unwrap()]).copy();
        assert!(!copy.contains("with "), "{copy}");
        assert!(copy.contains("m.seq > 10 and m.seq <= 12"), "{copy}");
        assert!(copy.contains("s.destination = 'it''s'"), "{copy}");
    }

    #[test]
    fn a_topic_filter_stands_in_the_columns_and_never_in_where() {
        let patterns = ["a_b.*".parse().unwrap(), "c".parse().unwrap()];
        let copy = request(&LookUp::default(), &patterns).copy();
        assert!(
            copy.contains(
                "case when (m.topic like E'a\\\\_b.%' or m.topic = 'c') then m.payload end"
            ),
            "{copy}"
        );
        let tail = copy.rsplit("where").next().unwrap();
        assert!(!tail.contains("topic"), "{copy}");
    }

    #[test]
    fn a_key_that_looks_like_a_placeholder_stays_as_it_is() {
        let key = KeyRef {
            topic: "t".into(),
            key: "{schema}'{key}".into(),
        };
        let sql = lengths_of_key("outbox", "d", &key, (1, 2), 10);
        assert!(sql.contains("m.key = '{schema}''{key}'"), "{sql}");
    }

    #[test]
    fn a_short_page_is_one_text_for_a_whole_window() {
        let look_up = LookUp {
            seqs: vec![3, 5],
            ranges: Vec::new(),
        };
        let patterns = ["*".parse().unwrap()];
        let here = request(&look_up, &patterns).prepared().expect("short");
        let there = PageRequest {
            after: 20,
            bound: 21,
            ..request(&look_up, &patterns)
        };
        let there = there.prepared().expect("short");
        assert_eq!(here.text, there.text);
        assert_eq!((there.after, there.bound), (20, 21));
        assert_eq!(there.seqs, [3, 5]);
        let window = "m.seq >= 1 and m.seq <= 1000000";
        assert_eq!(here.text.matches(window).count(), 2, "{}", here.text);
    }

    #[test]
    fn a_page_that_is_long_or_leaves_its_window_is_not_prepared() {
        let (none, late, range) = (
            LookUp::default(),
            LookUp {
                seqs: vec![1_000_000],
                ranges: Vec::new(),
            },
            LookUp {
                seqs: Vec::new(),
                ranges: vec![(1, 2)],
            },
        );
        let prepared = |after, bound, look_up| {
            let request = PageRequest {
                after,
                bound,
                ..request(look_up, &[])
            };
            request.prepared().is_some()
        };
        assert!(prepared(10, 10 + PREPARED_ROWS_MAX, &none));
        assert!(!prepared(10, 11 + PREPARED_ROWS_MAX, &none));
        assert!(!prepared(10, 12, &range));
        assert!(prepared(999_999, 1_000_000, &late));
        assert!(!prepared(999_999, 1_000_001, &none));
        assert!(prepared(1_000_000, 1_000_001, &none));
        assert!(!prepared(1_000_000, 1_000_001, &late));
    }

    #[test]
    fn gaps_are_looked_up_by_constants() {
        let look_up = LookUp {
            seqs: vec![3, 5],
            ranges: vec![(6, 9)],
        };
        let copy = request(&look_up, &[]).copy();
        assert!(copy.contains("m.seq = any ('{3,5}'::int8[])"), "{copy}");
        assert!(copy.contains("where m.seq >= 6 and m.seq <= 9"), "{copy}");
    }
}
