//! Partitions attached, emptied and dropped with inserts running and transactions open: no insert fails,
//! nothing unread is lost.

use std::time::Duration;

use outbox_core::{
    DeliveryState, Maintained, Maintenance, PageLimit, Seq, Session, Settlement, Store,
};
use outbox_postgres::Outbox;
use outbox_tests::conformance::stage::{
    keep_nothing, keyed, lead, messages, read, row, settle_rows, through,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::stage::Stage;

/// Width of the first partitions.
const WIDTH: Seq = 1_000_000;

async fn keep_house(stage: &Stage) -> Maintained {
    stage
        .store
        .maintain(&keep_nothing())
        .await
        .expect("maintain")
}

/// Rounds until the wanted thing happened: a writer may hold a lock in any one of them.
async fn keep_house_until(stage: &Stage, done: impl Fn(&Maintained) -> bool) -> Maintained {
    for _ in 0..1_000 {
        let round = keep_house(stage).await;
        if done(&round) {
            return round;
        }
    }
    panic!("1,000 rounds of house-keeping did not do it");
}

/// Reads what there is, waits until no gap is open, and settles.
async fn read_and_settle(session: &mut dyn Session, count: usize) -> Vec<Seq> {
    let read = read(session, count).await;
    let late: Vec<Seq> = read.iter().filter(|m| m.late).map(|m| m.seq).collect();
    let through = settle_without_gaps(session, late).await;
    assert!(read.iter().all(|m| m.seq <= through));
    read.into_iter().map(|m| m.seq).collect()
}

async fn settle_without_gaps(session: &mut dyn Session, late: Vec<Seq>) -> Seq {
    let mut through = 0;
    let mut settlement = Settlement {
        late,
        ..Settlement::default()
    };
    let closing = async {
        loop {
            let page = session.page(PageLimit::default()).await.expect("page");
            through = through.max(page.through);
            settlement.through = through;
            session.settle(&settlement).await.expect("settle");
            settlement.late.clear();
            if page.gaps_open == 0 && !page.more {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closing)
        .await
        .expect("gaps close");
    through
}

#[tokio::test]
async fn partitions_are_attached_ahead_until_eight_stand() {
    let stage = Stage::new().await;
    stage.skip_to(3 * WIDTH + 5).await;
    let round = keep_house(&stage).await;
    assert!(round.partitions_attached >= 3, "{round:?}");
    assert_eq!(keep_house(&stage).await.partitions_attached, 0);
    let ahead = "select count(*) from outbox.partitions() where lo > 3000005";
    assert_eq!(stage.number(ahead).await, 8);
}

#[tokio::test]
async fn an_attached_partition_takes_rows_with_every_default_and_index_of_the_log() {
    let stage = Stage::new().await;
    stage.skip_to(8 * WIDTH - 3).await;
    keep_house(&stage).await;
    stage.enqueue(messages("t", 6)).await;
    let there = "select count(*) from outbox.message where seq > 7999997 and xid is not null \
                 and created_at is not null";
    assert_eq!(stage.number(there).await, 6);
    assert_eq!(
        stage
            .number("select count(*) from outbox.message_default")
            .await,
        0
    );
    let indexes = "select count(*) from pg_index i join pg_class c on c.oid = i.indrelid \
                   where c.relname = 'message_p8000001' and i.indisprimary";
    assert_eq!(stage.number(indexes).await, 1);
}

#[tokio::test]
async fn an_insert_beyond_the_last_partition_lands_in_the_net_and_is_read_in_order() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.skip_to(8 * WIDTH - 3).await;
    stage.enqueue(messages("t", 10)).await;
    let round = keep_house(&stage).await;
    assert!(
        round.default_rows > 0 && round.partitions_attached > 0,
        "{round:?}"
    );
    stage.skip_to(9 * WIDTH).await;
    stage.enqueue(messages("t", 5)).await;
    assert_eq!(
        keep_house(&stage).await.default_rows,
        round.default_rows,
        "the net is left behind"
    );
    let seqs = read_and_settle(&mut *session, 15).await;
    assert!(seqs.windows(2).all(|w| w[0] < w[1]), "{seqs:?}");
    let emptied = keep_house_until(&stage, |round| round.default_rows == 0).await;
    assert!(emptied.partitions_emptied > 0, "{emptied:?}");
}

#[tokio::test]
async fn a_partition_that_everybody_is_done_with_is_emptied_and_what_is_needed_is_kept() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.enqueue(keyed("t", "k", 20)).await;
    stage.skip_to(WIDTH).await;
    stage.enqueue(messages("u", 2)).await;
    let all = read(&mut *session, 22).await;
    settle_rows(&mut *session, &all, vec![row(&all[3], DeliveryState::Dead)]).await;
    settle_without_gaps(&mut *session, Vec::new()).await;

    let week = Maintenance {
        retention: Duration::from_secs(7 * 86_400),
    };
    let young = stage.store.maintain(&week).await.expect("maintain");
    assert_eq!(young.partitions_emptied, 0, "not yet old");
    let round = keep_house(&stage).await;
    assert_eq!((round.partitions_emptied, round.kept), (1, 1), "{round:?}");
    assert_eq!(stage.number("select count(*) from outbox.message").await, 2);
    assert_eq!(
        stage.number("select seq from outbox.kept").await,
        all[3].seq
    );

    let remove = Settlement {
        remove: vec![all[3].seq],
        ..Settlement::default()
    };
    session.settle(&remove).await.expect("settle");
    keep_house(&stage).await;
    assert_eq!(
        stage.number("select count(*) from outbox.kept").await,
        0,
        "needed no longer"
    );
}

#[tokio::test]
async fn the_slowest_destination_keeps_its_partition() {
    let stage = Stage::new().await;
    let mut fast = stage.lead_all("fast").await;
    let _slow = stage.lead_all("slow").await;
    stage.enqueue(messages("t", 5)).await;
    stage.skip_to(WIDTH).await;
    stage.enqueue(messages("t", 5)).await;
    read_and_settle(&mut *fast, 10).await;
    assert_eq!(keep_house(&stage).await.partitions_emptied, 0);
    let mut slow = lead(&stage.store, "slow", "second").await;
    read_and_settle(&mut *slow, 10).await;
    assert_eq!(keep_house(&stage).await.partitions_emptied, 1);
}

#[tokio::test]
async fn a_store_without_destinations_keeps_everything() {
    let stage = Stage::new().await;
    stage.enqueue(messages("t", 5)).await;
    stage.skip_to(WIDTH).await;
    stage.enqueue(messages("t", 5)).await;
    assert_eq!(keep_house(&stage).await.partitions_emptied, 0);
    let mut session = stage.lead_all("d").await;
    assert_eq!(read(&mut *session, 10).await.len(), 10);
}

#[tokio::test]
async fn an_open_transaction_keeps_its_partition_until_its_message_was_read() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    stage.enqueue(messages("t", 5)).await;
    let open = stage.enqueue_open(messages("late", 1)).await;
    stage.skip_to(WIDTH).await;
    stage.enqueue(messages("t", 5)).await;
    let all = read(&mut *session, 10).await;
    session.settle(&through(all[9].seq)).await.expect("settle");
    assert_eq!(
        keep_house(&stage).await.partitions_emptied,
        0,
        "its gap is open"
    );

    // Even if every destination had passed it, its lock would hold the partition.
    stage
        .run("create table gaps as select * from outbox.gap; delete from outbox.gap")
        .await;
    let round = keep_house(&stage).await;
    assert_eq!(round.partitions_emptied, 0);
    assert!(round.put_off > 0, "{round:?}");
    stage.run("insert into outbox.gap select * from gaps").await;

    open.commit().await.expect("commit");
    assert_eq!(read_and_settle(&mut *session, 1).await, [6]);
    assert_eq!(keep_house(&stage).await.partitions_emptied, 1);
}

/// Enqueues single messages until told to stop; any statement that waits for a lock for a second,
/// twenty times what house-keeping may hold one for, fails.
async fn write(url: String, stop: CancellationToken) -> usize {
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    sqlx::raw_sql("set lock_timeout = '1s'")
        .execute(&mut connection)
        .await
        .expect("set");
    let mut written = 0;
    while !stop.is_cancelled() {
        let mut tx = connection.begin().await.expect("begin");
        let id = Outbox::default()
            .enqueue(&mut tx, messages("t", 1).remove(0))
            .await;
        id.expect("no insert fails or waits");
        tx.commit().await.expect("commit");
        written += 1;
    }
    written
}

/// Reads a page and settles it; answers how many messages it held.
async fn turn(session: &mut dyn Session) -> usize {
    let page = session.page(PageLimit::default()).await.expect("page");
    let late = page.messages.iter().filter(|m| m.late).map(|m| m.seq);
    let settlement = Settlement {
        through: page.through,
        late: late.collect(),
        ..Settlement::default()
    };
    session.settle(&settlement).await.expect("settle");
    page.messages.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_fails_or_waits_while_partitions_come_and_go() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    // A transaction that wrote to the log stays open for a while.
    let mut open = Some(stage.enqueue_open(messages("late", 1)).await);
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(write(stage.database.url().to_owned(), stop.clone())))
        .collect();

    let mut seen = 0;
    let mut sum = Maintained::default();
    let mut round = async |seen: &mut usize| {
        *seen += turn(&mut *session).await;
        let round = keep_house(&stage).await;
        assert_eq!(round.default_rows, 0, "partitions are there in time");
        sum.partitions_attached += round.partitions_attached;
        sum.partitions_emptied += round.partitions_emptied;
        sum.partitions_dropped += round.partitions_dropped;
    };
    for partition in 1..=10 {
        // As if a million messages had come, but for some that go over the partition's edge.
        stage.skip_to(partition * WIDTH - 20).await;
        for _ in 0..4 {
            round(&mut seen).await;
        }
        if partition == 5
            && let Some(open) = open.take()
        {
            open.commit().await.expect("commit");
        }
    }
    stop.cancel();
    let mut written = 1;
    for writer in writers {
        written += writer.await.expect("no insert fails or waits");
    }
    let finishing = async {
        while seen < written || stage.number("select count(*) from outbox.gap").await > 0 {
            round(&mut seen).await;
        }
        for _ in 0..8 {
            round(&mut seen).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), finishing)
        .await
        .expect("all is read");
    assert_eq!(seen, written, "nothing unread was lost, nothing came twice");
    assert!(
        sum.partitions_attached >= 9 && sum.partitions_emptied >= 5,
        "{sum:?}"
    );
    assert!(sum.partitions_dropped >= 1, "{sum:?}");
}

#[tokio::test]
async fn empty_shells_are_dropped_one_in_a_round_and_never_while_somebody_waits() {
    let stage = Stage::new().await;
    let mut session = stage.lead_all("d").await;
    for partition in 0..8 {
        stage.skip_to(partition * WIDTH + 1).await;
        stage.enqueue(messages("t", 1)).await;
    }
    read_and_settle(&mut *session, 8).await;
    let mut reader = stage.pool().begin().await.expect("begin");
    sqlx::query("select count(*) from outbox.message")
        .execute(&mut *reader)
        .await
        .expect("read");
    let round = keep_house(&stage).await;
    assert_eq!((round.partitions_dropped, round.partitions_emptied), (0, 0));
    assert!(round.put_off > 0, "{round:?}");
    reader.commit().await.expect("commit");

    let round = keep_house(&stage).await;
    assert_eq!(
        (round.partitions_emptied, round.partitions_dropped),
        (7, 1),
        "{round:?}"
    );
    assert_eq!(keep_house(&stage).await.partitions_dropped, 1);
    assert_eq!(keep_house(&stage).await.partitions_dropped, 1);
    assert_eq!(
        keep_house(&stage).await.partitions_dropped,
        0,
        "the last four are left alone"
    );
    stage.enqueue(messages("t", 1)).await;
    read(&mut *session, 1).await;
}

#[tokio::test]
async fn progress_survives_the_rotation_of_its_tables_again_and_again() {
    let stage = Stage::new().await;
    let _busy = stage.lead_all("busy").await;
    let _quiet = stage.lead_all("quiet").await;
    let rotated = "select active::bigint from outbox.rotation";
    for (turn, active) in [(1, 1), (2, 0), (3, 1)] {
        let filler = format!(
            "insert into outbox.progress_{} (destination, incarnation, epoch, cursor, low_water, \
             high_water) select 'busy', incarnation, epoch, {turn}000000 + n, 0, 0 \
             from outbox.progress, generate_series(1, 20000) n where destination = 'busy'",
            1 - active
        );
        sqlx::raw_sql(AssertSqlSafe(filler))
            .execute(stage.pool())
            .await
            .expect("fill");
        keep_house(&stage).await;
        assert_eq!(stage.number(rotated).await, active);
        let busy = "select cursor from outbox.progress where destination = 'busy'";
        assert_eq!(stage.number(busy).await, turn * 1_000_000 + 20_000);
        let quiet = "select count(*) from outbox.progress where destination = 'quiet'";
        assert_eq!(stage.number(quiet).await, 1);
    }
    keep_house(&stage).await;
    assert_eq!(stage.number(rotated).await, 1, "a small table stays");
}

#[tokio::test]
async fn a_settle_that_is_being_written_stays_newer_than_what_a_rotation_copies() {
    let stage = Stage::new().await;
    let _session = stage.lead_all("d").await;
    stage
        .run(
            "insert into outbox.progress_1 (destination, incarnation, epoch, cursor, low_water, \
             high_water) select 'x', 'x', 1, 1, 1, 1 from generate_series(1, 20000);
             update outbox.rotation set active = 1",
        )
        .await;
    let mut settle = stage.pool().begin().await.expect("begin");
    sqlx::query(
        "insert into outbox.progress_1 (destination, incarnation, epoch, cursor, low_water, \
         high_water) values ('d', 'x', 1, 77, 77, 77)",
    )
    .execute(&mut *settle)
    .await
    .expect("settle");
    keep_house(&stage).await;
    assert_eq!(
        stage
            .number("select active::bigint from outbox.rotation")
            .await,
        0
    );
    let cursor = "select cursor from outbox.progress";
    assert_eq!(stage.number(cursor).await, 0, "not yet committed");
    settle.commit().await.expect("commit");
    assert_eq!(stage.number(cursor).await, 77);
}

#[tokio::test]
async fn one_maintainer_works_at_a_time() {
    let stage = Stage::new().await;
    stage.skip_to(3 * WIDTH).await;
    let mut other = stage.pool().begin().await.expect("begin");
    let begun: bool = sqlx::query_scalar("select outbox.maintain_begin()")
        .fetch_one(&mut *other)
        .await
        .expect("begin");
    assert!(begun);
    assert_eq!(keep_house(&stage).await, Maintained::default());
    other.rollback().await.expect("rollback");
    assert!(keep_house(&stage).await.partitions_attached > 0);
}

#[tokio::test]
async fn a_relay_long_dead_is_removed_unless_it_leads() {
    let stage = Stage::new().await;
    let _session = stage.lead_all("d").await;
    for instance in ["dead", "alive"] {
        stage.store.beat(instance).await.expect("beat");
    }
    stage
        .run(
            "update outbox.relay set beat_at = now() - interval '2 hours' \
             where instance in ('dead', 'first')",
        )
        .await;
    keep_house(&stage).await;
    let left: Vec<String> = sqlx::query_scalar("select instance from outbox.relay order by 1")
        .fetch_all(stage.pool())
        .await
        .expect("read");
    assert!(!left.contains(&"dead".to_owned()), "{left:?}");
    assert!(
        left.contains(&"alive".to_owned()) && left.contains(&"first".to_owned()),
        "{left:?}"
    );
}
