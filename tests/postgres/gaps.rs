//! Gaps and fences: every way a seq can be missing, against a reader that must neither skip nor repeat.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use outbox_core::{Admin, Message, Page, PageLimit, Pending, Seq, Session, Settlement};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::{destination, lead, messages};
use outbox_tests::postgres::TestDb;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio_util::sync::CancellationToken;

use crate::stage::Stage;

/// Time within which a reader must have caught up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A reader that settles every page at once, and keeps what it read.
struct Reader {
    session: Box<dyn Session>,
    messages: Vec<Pending>,
    gaps_open_max: u64,
    last: Page,
}

impl Reader {
    async fn new(stage: &Stage) -> Self {
        Self {
            session: stage.lead_all("d").await,
            messages: Vec::new(),
            gaps_open_max: 0,
            last: Page::default(),
        }
    }

    /// One page, settled.
    async fn turn(&mut self) {
        let page = self.session.page(PageLimit::default()).await.expect("page");
        let late = page
            .messages
            .iter()
            .filter(|m| m.late)
            .map(|m| m.seq)
            .collect();
        let settlement = Settlement {
            through: page.through,
            late,
            ..Settlement::default()
        };
        self.session.settle(&settlement).await.expect("settle");
        self.gaps_open_max = self.gaps_open_max.max(page.gaps_open);
        self.last = page.clone();
        self.messages.extend(page.messages);
    }

    /// Turns until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < TIMEOUT,
                "{what}: not in time; last {:?}",
                self.last
            );
            self.turn().await;
        }
    }

    async fn read(&mut self, count: usize) {
        self.until("messages", |r| r.messages.len() >= count).await;
        assert_eq!(self.messages.len(), count, "more came than were committed");
    }

    async fn no_gap_open(&mut self) {
        self.until("gaps close", |r| {
            r.last.gaps_open == 0 && r.last.through < r.last.from
        })
        .await;
    }

    fn payloads(&self) -> Vec<String> {
        let text = |m: &Pending| String::from_utf8_lossy(&m.payload).into_owned();
        self.messages.iter().map(text).collect()
    }
}

/// Enqueues one message in whatever transaction `connection` is in.
async fn enqueue(connection: &mut PgConnection, payload: &str) -> Seq {
    let message = Message::bytes("t", payload.to_owned());
    Outbox::default()
        .enqueue(&mut *connection, message)
        .await
        .expect("enqueue");
    let last = "select currval('outbox.message_seq')";
    sqlx::query_scalar(last)
        .fetch_one(connection)
        .await
        .expect("currval")
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = sql.to_owned();
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn connect(stage: &Stage) -> PgConnection {
    PgConnection::connect(stage.database.url())
        .await
        .expect("connect")
}

/// Takes 100 values: `nextval` takes an xid by itself every 32nd time, and hides what must be seen.
async fn warm_up(stage: &Stage) {
    stage.enqueue(messages("warm", 100)).await;
}

#[tokio::test]
async fn an_open_transaction_delays_only_its_own_message_across_many_polls() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    let held = enqueue(&mut open, "late").await;
    for round in 0..50 {
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + round).await;
    }
    assert_eq!(reader.last.gaps_open, 1);
    assert!(reader.messages.iter().all(|m| m.seq != held && !m.late));
    run(&mut open, "commit").await;
    reader.read(151).await;
    let late = reader.messages.last().expect("late");
    assert_eq!(
        (late.seq, late.late, &late.payload[..]),
        (held, true, &b"late"[..])
    );
    reader.no_gap_open().await;
    assert_eq!(stage.number("select count(*) from outbox.gap").await, 0);
}

/// The holder of an xid in another database keeps xmin back for the whole cluster.
#[tokio::test]
async fn gaps_close_by_locks_while_a_foreign_transaction_holds_xmin_back() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let elsewhere = TestDb::new().await;
    let mut foreign = PgConnection::connect(elsewhere.url())
        .await
        .expect("connect");
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    for round in 0..300usize {
        run(&mut writer, "begin").await;
        enqueue(&mut writer, "never").await;
        run(&mut writer, "rollback").await;
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + round).await;
    }
    reader.no_gap_open().await;
    assert!(reader.gaps_open_max > 0, "nothing was put to the test");
    assert_eq!(reader.messages.len(), 400);
    run(&mut foreign, "rollback").await;
}

#[tokio::test]
async fn a_rate_of_rollbacks_under_a_held_xmin_leaves_few_gaps_open() {
    let stage = Stage::new().await;
    let elsewhere = TestDb::new().await;
    let mut foreign = PgConnection::connect(elsewhere.url())
        .await
        .expect("connect");
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    let stop = CancellationToken::new();
    let writers = (0..4).map(|_| {
        tokio::spawn(roll_back_some(
            stage.database.url().to_owned(),
            stop.clone(),
        ))
    });
    let writers: Vec<_> = writers.collect();
    let begun = Instant::now();
    let mut gaps_open_late = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        reader.turn().await;
        if begun.elapsed() > Duration::from_secs(2) {
            gaps_open_late = gaps_open_late.max(reader.last.gaps_open);
        }
    }
    stop.cancel();
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.expect("writer");
    }
    reader.read(committed).await;
    assert!(gaps_open_late <= 120, "{gaps_open_late} gaps open at once");
    reader.no_gap_open().await;
    run(&mut foreign, "rollback").await;
}

/// Commits about fifty messages a second, and rolls back about ten.
async fn roll_back_some(url: String, stop: CancellationToken) -> usize {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    let mut committed = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(17));
    while !stop.is_cancelled() {
        ticks.tick().await;
        let commits = rand::random_range(0..6) > 0;
        run(&mut connection, "begin").await;
        enqueue(&mut connection, "x").await;
        run(&mut connection, if commits { "commit" } else { "rollback" }).await;
        committed += usize::from(commits);
    }
    committed
}

#[tokio::test]
async fn a_bulk_insert_that_rolled_back_is_one_gap_and_closes() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let bulk =
        "select count(outbox.enqueue_bytes('t', 'x', 'text/plain')) from generate_series(1, 35000)";
    run(&mut writer, bulk).await;
    stage.enqueue(messages("t", 3)).await;
    reader.read(3).await;
    assert_eq!(reader.last.gaps_open, 1, "one range, not 35,000 seqs");
    run(&mut writer, "rollback").await;
    reader.no_gap_open().await;
    assert_eq!(reader.messages.len(), 3);
}

#[tokio::test]
async fn a_large_late_transaction_is_read_in_pages_and_none_is_skipped() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let bulk =
        "select count(outbox.enqueue_bytes('t', 'x', 'text/plain')) from generate_series(1, 20000)";
    run(&mut writer, bulk).await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(1).await;
    run(&mut writer, "commit").await;
    reader.read(20_001).await;
    let seqs: HashSet<Seq> = reader.messages.iter().map(|m| m.seq).collect();
    assert_eq!(seqs.len(), 20_001, "one came twice");
    reader.no_gap_open().await;
}

#[tokio::test]
async fn what_a_savepoint_took_back_is_skipped_and_the_rest_is_not() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin; savepoint a").await;
    enqueue(&mut writer, "taken back").await;
    run(&mut writer, "rollback to a; savepoint b").await;
    enqueue(&mut writer, "kept").await;
    run(&mut writer, "release b").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(101).await;
    run(&mut writer, "commit").await;
    reader.read(102).await;
    assert_eq!(reader.payloads()[101], "kept");
    reader.no_gap_open().await;
    assert_eq!(reader.messages.len(), 102);
}

/// PREPARE takes the transaction off its backend and renames the holder of its locks.
#[tokio::test]
async fn two_phase_commit_loses_nothing_even_when_xmin_is_held_back() {
    let stage = Stage::new().await;
    let two_phase = stage
        .number("select current_setting('max_prepared_transactions')::int8")
        .await;
    assert!(
        two_phase > 0,
        "the test server must allow prepared transactions"
    );
    warm_up(&stage).await;
    let mut foreign = connect(&stage).await;
    run(&mut foreign, "begin; select pg_current_xact_id()").await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let name = format!("'{}'", stage.database.name());
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    enqueue(&mut writer, "prepared").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(101).await;
    // Long enough for the lock rule to have looked at the holder under its old name.
    let begun = Instant::now();
    reader
        .until("the gap is old", |_| {
            begun.elapsed() > Duration::from_secs(1)
        })
        .await;
    run(&mut writer, &format!("prepare transaction {name}")).await;
    let prepared = Instant::now();
    reader
        .until("the locks were read", |_| {
            prepared.elapsed() > Duration::from_millis(1_500)
        })
        .await;
    assert_eq!(
        reader.last.gaps_open, 1,
        "the prepared transaction still holds it"
    );
    run(&mut writer, &format!("commit prepared {name}")).await;
    reader.read(102).await;
    assert_eq!(reader.payloads()[101], "prepared");
    run(&mut foreign, "rollback").await;
}

/// The xid must be there before the seq, in a transaction that has none yet.
#[tokio::test]
async fn the_xid_is_taken_before_the_seq() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    reader.read(100).await;
    let mut writer = connect(&stage).await;
    for round in 0..40usize {
        run(&mut writer, "begin").await;
        enqueue(&mut writer, "late").await;
        let own: String = sqlx::query("select pg_current_xact_id_if_assigned()::text")
            .fetch_one(&mut writer)
            .await
            .expect("xid")
            .get(0);
        stage.enqueue(messages("t", 1)).await;
        reader.read(101 + 2 * round).await;
        let fences = "select min(fence::text::int8) from outbox.gap";
        let fence = stage.number(fences).await;
        let own: i64 = own.parse().expect("a number");
        assert!(
            own < fence,
            "xid {own} is not below the fence {fence} of its gap"
        );
        run(&mut writer, "commit").await;
        reader.read(102 + 2 * round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_writers_against_a_reader_skip_nothing_and_repeat_nothing() {
    let stage = Stage::new().await;
    warm_up(&stage).await;
    let mut reader = Reader::new(&stage).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..20)
        .map(|n| {
            tokio::spawn(write_at_random(
                stage.database.url().to_owned(),
                n,
                stop.clone(),
            ))
        })
        .collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        reader.turn().await;
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut committed = HashSet::new();
    for writer in writers {
        committed.extend(writer.await.expect("writer"));
    }
    reader.read(100 + committed.len()).await;
    reader.no_gap_open().await;
    let read: HashSet<String> = reader.payloads().into_iter().skip(100).collect();
    assert_eq!(read.len(), committed.len(), "one came twice");
    assert_eq!(read, committed);
    assert!(
        committed.len() > 500,
        "only {} were written",
        committed.len()
    );
    assert_eq!(stage.number("select count(*) from outbox.gap").await, 0);
    in_order_for_each_writer(&reader);
}

/// Transactions of one to five messages, a third of them rolled back, some with savepoints; answers the
/// payloads that were committed.
async fn write_at_random(url: String, writer: usize, stop: CancellationToken) -> Vec<String> {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    let mut committed = Vec::new();
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        run(&mut connection, "begin").await;
        let mut own = Vec::new();
        for part in 0..rand::random_range(1..=5) {
            let payload = format!("{writer}/{n}/{part}");
            if rand::random_range(0..10) == 0 {
                run(&mut connection, "savepoint s").await;
                enqueue(&mut connection, &payload).await;
                run(&mut connection, "rollback to s").await;
            } else {
                enqueue(&mut connection, &payload).await;
                own.push(payload);
            }
            tokio::task::yield_now().await;
        }
        if rand::random_range(0..3) == 0 {
            run(&mut connection, "rollback").await;
        } else {
            run(&mut connection, "commit").await;
            committed.append(&mut own);
        }
    }
    committed
}

/// One writer's commits are in order, unless flagged late.
fn in_order_for_each_writer(reader: &Reader) {
    let mut last = [-1i64; 20];
    for message in reader.messages.iter().skip(100).filter(|m| !m.late) {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let mut parts = text
            .split('/')
            .map(|part| part.parse::<i64>().expect("a number"));
        let writer = parts
            .next()
            .and_then(|n| usize::try_from(n).ok())
            .expect("a writer");
        let place = parts.next().expect("a number") * 10 + parts.next().expect("a number");
        assert!(place > last[writer], "{text} came after {}", last[writer]);
        last[writer] = place;
    }
}

#[tokio::test]
async fn seqs_at_the_end_that_never_come_do_not_keep_the_reader_busy() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut writer = connect(&stage).await;
    run(&mut writer, "begin").await;
    let last = enqueue(&mut writer, "never").await;
    run(&mut writer, "rollback").await;
    reader
        .until("the tail is passed", |r| r.last.through >= last)
        .await;
    reader.no_gap_open().await;
    assert!(
        !reader.session.poll().await.expect("poll"),
        "there is nothing to look for"
    );
    stage.enqueue(messages("t", 1)).await;
    assert!(reader.session.poll().await.expect("poll"));
    reader.read(1).await;
}

#[tokio::test]
async fn a_gap_that_stays_open_is_looked_at_ten_times_a_second_at_most() {
    let stage = Stage::new().await;
    let mut reader = Reader::new(&stage).await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    enqueue(&mut open, "held").await;
    stage.enqueue(messages("t", 1)).await;
    reader.read(1).await;
    let begun = Instant::now();
    reader
        .until("the gap is old", |_| {
            begun.elapsed() > Duration::from_secs(1)
        })
        .await;
    let (begun, mut looks) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        if reader.session.poll().await.expect("poll") {
            looks += 1;
            reader.turn().await;
        }
    }
    assert!((5..=12).contains(&looks), "{looks} looks in a second");
    run(&mut open, "commit").await;
    reader.read(2).await;
}

#[tokio::test]
async fn pages_read_ahead_of_settlements_survive_a_crash_of_the_reader() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    let mut open = connect(&stage).await;
    run(&mut open, "begin").await;
    enqueue(&mut open, "late").await;
    stage.enqueue(messages("t", 5)).await;
    let small = PageLimit {
        rows: 2,
        ..PageLimit::default()
    };
    let first = session.page(small).await.expect("page");
    let second = session.page(small).await.expect("page");
    assert_eq!((first.messages.len(), second.messages.len()), (2, 2));
    run(&mut open, "commit").await;
    let late = loop {
        let page = session.page(small).await.expect("page");
        if page.messages.iter().any(|m| m.late) {
            break page;
        }
    };
    // Only the first page is settled: the late message was handed out, and is not accounted for.
    let settled = Settlement {
        through: first.through,
        ..Settlement::default()
    };
    session.settle(&settled).await.expect("settle");
    drop((session, second, late));
    let mut reader = Reader {
        session: lead(&stage.store, "d", "second").await,
        messages: Vec::new(),
        gaps_open_max: 0,
        last: Page::default(),
    };
    reader.read(4).await;
    let mut payloads = reader.payloads();
    payloads.sort();
    assert_eq!(payloads, ["2", "3", "4", "late"]);
    reader.no_gap_open().await;
}

#[tokio::test]
async fn messages_of_other_destinations_are_no_gaps() {
    let stage = Stage::new().await;
    stage
        .store
        .declare(&[destination("d", &["ours.*"])])
        .await
        .expect("declare");
    let mut session = lead(&stage.store, "d", "first").await;
    stage
        .enqueue([messages("theirs", 20), messages("ours.a", 1)].concat())
        .await;
    let page = session.page(PageLimit::default()).await.expect("page");
    assert_eq!(
        (page.messages.len(), page.gaps.len(), page.through),
        (1, 0, 21)
    );
}
