//! The bundled log behind an address, through the ports of the outbox.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use outbox_broker::{Broker as Server, BrokerOptions};
use outbox_broker_adapters::{connect, source};
use outbox_core::{
    Batch, Fence, Outcome, Pending, PublishError, Record, Source, SourceError, TopicPartition,
    TopicPattern,
};
use outbox_log_broker::{Log, LogOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    dir: tempfile::TempDir,
    server: Server,
    url: String,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let server = serve(dir.path(), 0).await;
        let url = format!("log://{}?partitions=4", server.local_addr());
        Self { dir, server, url }
    }

    /// Stops the broker and starts another one on its folder and address.
    async fn restart(&mut self) {
        let port = self.server.local_addr().port();
        let fresh = Server::start(options(&self.dir.path().join("elsewhere"), 0)).await;
        let old = std::mem::replace(&mut self.server, fresh.expect("starts"));
        old.stop().await;
        self.server = serve(self.dir.path(), port).await;
    }
}

fn options(dir: &std::path::Path, port: u16) -> BrokerOptions {
    let mut log = LogOptions::new(dir.join("log"));
    log.wal_file_bytes = 1024 * 1024;
    BrokerOptions::new(log, ([127, 0, 0, 1], port).into())
}

async fn serve(dir: &std::path::Path, port: u16) -> Server {
    let server = Server::start(options(dir, port)).await;
    server.expect("the broker starts")
}

fn message(seq: i64, key: &str) -> Pending {
    Pending {
        seq,
        id: Uuid::now_v7(),
        topic: "orders.placed".into(),
        key: Some(key.into()),
        payload: format!("payload {seq}").into(),
        content_type: "text/plain".into(),
        headers: None,
        created_at: DateTime::from_timestamp_micros(1_700_000_000_000_000 + seq).expect("in range"),
        deliver_after: None,
        expires_at: None,
        late: false,
        attempts: 0,
        redelivery: 0,
    }
}

fn batch(epoch: i64, messages: Vec<Pending>) -> Batch {
    let seqs = || messages.iter().map(|m| m.seq);
    Batch {
        fence: Fence {
            incarnation: "system-1".into(),
            destination: "orders".into(),
            epoch,
        },
        range: seqs().min().zip(seqs().max()),
        messages,
        low_water: 0,
        except: Vec::new(),
    }
}

fn messages(seqs: std::ops::Range<i64>) -> Vec<Pending> {
    seqs.map(|seq| message(seq, &format!("k{}", seq % 7)))
        .collect()
}

fn topics() -> [TopicPattern; 1] {
    ["orders.*".parse().expect("a pattern")]
}

/// Reads until `count` records are there, in the way a consumer does.
async fn read(source: &dyn Source, group: &str, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut positions = std::collections::BTreeMap::new();
    let reading = async {
        while records.len() < count {
            let mut moved = false;
            for of in source.partitions(&topics()).await.expect("partitions") {
                let at = match positions.get(&of) {
                    Some(&at) => at,
                    None => source.committed(group, &of).await.expect("an offset"),
                };
                let fetched = source.fetch(&of, at, 1000).await.expect("reads");
                moved |= !fetched.is_empty();
                positions.insert(of, fetched.last().map_or(at, |last| last.offset + 1));
                records.extend(fetched);
            }
            if !moved {
                source.changed().await;
            }
        }
    };
    timeout(PATIENCE, reading)
        .await
        .expect("the records arrive");
    records
}

fn payloads(records: &[Record]) -> BTreeSet<String> {
    let text = |r: &Record| String::from_utf8_lossy(&r.payload).into_owned();
    records.iter().map(text).collect()
}

/// Waits until the partitions of both are disjoint and together all four.
async fn shared(a: &dyn Source, b: &dyn Source) -> [BTreeSet<TopicPartition>; 2] {
    let sharing = async {
        loop {
            let first: BTreeSet<_> = of(a).await.into_iter().collect();
            let second: BTreeSet<_> = of(b).await.into_iter().collect();
            if first.is_disjoint(&second) && first.len() + second.len() == 4 {
                return [first, second];
            }
            tokio::select! {
                () = a.changed() => {}
                () = b.changed() => {}
            }
        }
    };
    timeout(PATIENCE, sharing)
        .await
        .expect("the partitions are shared")
}

async fn of(source: &dyn Source) -> Vec<TopicPartition> {
    source.partitions(&topics()).await.expect("partitions")
}

#[tokio::test]
async fn what_is_published_over_the_network_is_read_over_the_network() {
    let rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    let source = source(&rig.url, "billing").await.expect("a source");
    let sent = messages(1..101);
    let outcomes = broker
        .publish(&batch(1, sent.clone()))
        .await
        .expect("published");
    assert_eq!(outcomes.len(), 100);
    let read = read(&*source, "billing", 100).await;
    assert_eq!(payloads(&read).len(), 100);
    for record in &read {
        let sent = sent
            .iter()
            .find(|m| Some(m.id) == record.id)
            .expect("its message");
        assert_eq!(record.payload, sent.payload);
        assert_eq!(
            record.key.as_deref(),
            sent.key.as_deref().map(str::as_bytes)
        );
        assert_eq!(record.content_type.as_deref(), Some("text/plain"));
        assert_eq!(record.timestamp, sent.created_at);
    }
    // The receipts name the places where the records are.
    for (message, outcome) in sent.iter().zip(&outcomes) {
        let Outcome::Sent(receipt) = outcome else {
            panic!("{outcome:?}");
        };
        let place = (receipt.partition, receipt.offset);
        let record = read
            .iter()
            .find(|r| r.id == Some(message.id))
            .expect("its record");
        assert_eq!(
            place,
            (Some(record.partition.partition), Some(record.offset))
        );
    }
}

#[tokio::test]
async fn a_batch_that_is_published_again_is_stored_once_also_by_a_broker_started_anew() {
    let mut rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    let sent = batch(1, messages(1..21));
    broker.publish(&sent).await.expect("published");
    rig.restart().await;
    let again = broker.publish(&sent).await.expect("published again");
    let duplicate = |o: &Outcome| matches!(o, Outcome::Sent(receipt) if receipt.duplicate);
    assert!(again.iter().all(duplicate), "{again:?}");
    // Half of the next one is known.
    let half = broker
        .publish(&batch(1, messages(11..31)))
        .await
        .expect("published");
    assert_eq!(half.iter().filter(|o| duplicate(o)).count(), 10);
    let source = source(&rig.url, "billing").await.expect("a source");
    assert_eq!(payloads(&read(&*source, "billing", 30).await).len(), 30);
    let log: &Arc<Log> = rig.server.log();
    let ends = (0..4).map(|p| log.offsets("orders.placed", p).expect("held").1);
    assert_eq!(ends.sum::<i64>(), 30, "nothing is stored twice");
}

#[tokio::test]
async fn a_relay_with_an_old_epoch_stores_nothing() {
    let rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    broker
        .publish(&batch(5, messages(1..3)))
        .await
        .expect("published");
    let stale = broker.publish(&batch(4, messages(3..5))).await;
    assert_eq!(stale, Err(PublishError::Fenced { epoch: 4, newer: 5 }));
    let log: &Arc<Log> = rig.server.log();
    let ends = (0..4).map(|p| log.offsets("orders.placed", p).expect("held").1);
    assert_eq!(ends.sum::<i64>(), 2);
}

#[tokio::test]
async fn a_broker_that_is_away_is_an_outage_and_none_when_it_is_back() {
    let mut rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    broker
        .publish(&batch(1, messages(1..3)))
        .await
        .expect("published");
    let address = rig.server.local_addr();
    let elsewhere = Server::start(options(&rig.dir.path().join("elsewhere"), 0)).await;
    std::mem::replace(&mut rig.server, elsewhere.expect("starts"))
        .stop()
        .await;
    let away = broker.publish(&batch(1, messages(3..5))).await;
    assert!(
        matches!(&away, Err(PublishError::Outage(text)) if text.contains(&address.to_string()))
    );
    let lost = source(&rig.url, "billing").await.expect("a source");
    let unread = lost.partitions(&topics()).await;
    assert!(matches!(unread, Err(SourceError::Outage(_))), "{unread:?}");
    rig.server = serve(rig.dir.path(), address.port()).await;
    broker
        .publish(&batch(1, messages(3..5)))
        .await
        .expect("published");
}

#[tokio::test]
async fn an_offset_that_was_committed_is_where_the_next_member_goes_on() {
    let rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    broker
        .publish(&batch(1, messages(1..41)))
        .await
        .expect("published");
    let first = source(&rig.url, "billing").await.expect("a source");
    let records = read(&*first, "billing", 40).await;
    let mut next = std::collections::BTreeMap::new();
    for record in &records {
        next.insert(record.partition.clone(), record.offset + 1);
    }
    let next: Vec<_> = next.into_iter().collect();
    first.commit("billing", &next).await.expect("committed");
    first.close().await;
    broker
        .publish(&batch(1, messages(41..51)))
        .await
        .expect("published");
    let second = source(&rig.url, "billing").await.expect("a source");
    let rest = payloads(&read(&*second, "billing", 10).await);
    let expected = (41..51).map(|seq| format!("payload {seq}"));
    assert_eq!(rest, expected.collect());
}

#[tokio::test]
async fn two_members_share_the_partitions_and_one_that_leaves_gives_its_own_to_the_other() {
    let rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    broker
        .publish(&batch(1, messages(1..41)))
        .await
        .expect("published");
    let first = source(&rig.url, "billing").await.expect("a source");
    let second = source(&rig.url, "billing").await.expect("a source");
    let [one, two] = shared(&*first, &*second).await;
    assert_eq!((one.len(), two.len()), (2, 2));
    // What is the other one's is not committed by us.
    let foreign: Vec<_> = two.iter().map(|of| (of.clone(), 3)).collect();
    first
        .commit("billing", &foreign)
        .await
        .expect("nothing to do");
    for of in &two {
        assert_eq!(second.committed("billing", of).await.expect("an offset"), 0);
    }
    second.close().await;
    let alone = async {
        while of(&*first).await.len() < 4 {
            first.changed().await;
        }
    };
    timeout(PATIENCE, alone)
        .await
        .expect("the other one's partitions come over");
}

#[tokio::test]
async fn news_wakes_a_source_that_waits_at_the_end() {
    let rig = Rig::start().await;
    let broker = connect(&rig.url).await.expect("a broker");
    broker
        .publish(&batch(1, messages(1..8)))
        .await
        .expect("published");
    let source = source(&rig.url, "billing").await.expect("a source");
    read(&*source, "billing", 7).await;
    for round in 0..5 {
        let seq = 8 + round;
        let (published, news) = tokio::join!(
            async { broker.publish(&batch(1, messages(seq..seq + 1))).await },
            timeout(PATIENCE, read(&*source, "elsewhere", 8 + round as usize)),
        );
        published.expect("published");
        assert_eq!(news.expect("woken").len(), 8 + round as usize);
    }
}

#[tokio::test]
async fn a_broker_of_another_kind_is_told_from_ours_before_anything_is_stored() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("listens");
    let address = listener.local_addr().expect("an address");
    let stranger = tokio::spawn(stranger(listener));
    let broker = connect(&format!("log://{address}"))
        .await
        .expect("a broker");
    let published = timeout(PATIENCE, broker.publish(&batch(1, messages(1..3)))).await;
    let Err(PublishError::Outage(text)) = published.expect("an answer") else {
        panic!("it was published");
    };
    assert!(text.contains("it is not the bundled log broker"), "{text}");
    drop(broker);
    assert_eq!(
        stranger.await.expect("ends"),
        1,
        "one Produce request, and it was empty"
    );
}

/// A broker that knows topics and stores whatever it is sent, without a word about publications.
/// Answers how many Produce requests came; none may hold records.
async fn stranger(listener: tokio::net::TcpListener) -> usize {
    let (mut stream, _) = listener.accept().await.expect("a client");
    let mut produced = 0;
    while let Ok(length) = stream.read_i32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.expect("a request");
        let id = &frame[4..8];
        let body: Vec<u8> = match i16::from_be_bytes([frame[0], frame[1]]) {
            // ApiVersions 0: no error; three requests and their versions.
            18 => [
                &[0, 0, 0, 0, 0, 3][..],
                &[0, 0, 0, 0, 0, 9],
                &[0, 3, 0, 0, 0, 9],
                &[0, 19, 0, 0, 0, 7],
            ]
            .concat(),
            // Metadata 9: no tags, no throttling, no brokers, no cluster id, no controller, and one
            // topic with one partition and nothing else.
            3 => {
                let name = b"orders.placed";
                let topic = [&[0, 0, name.len() as u8 + 1][..], name, &[0, 2]].concat();
                let partition = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0];
                let ends = [0x80, 0, 0, 0, 0];
                [
                    &[0, 0, 0, 0, 0, 1, 0][..],
                    &(-1_i32).to_be_bytes(),
                    &[2],
                    &topic,
                    &partition,
                    &ends,
                    &[0x80, 0, 0, 0, 0],
                ]
                .concat()
            }
            0 => {
                produced += 1;
                assert!(
                    !frame.windows(7).any(|w| w == b"payload"),
                    "records were sent"
                );
                // Produce 9: no tags, no topics, no throttling, no tags.
                vec![0, 1, 0, 0, 0, 0, 0]
            }
            other => panic!("API {other} was asked"),
        };
        let answer = [&((body.len() + 4) as i32).to_be_bytes()[..], id, &body].concat();
        stream.write_all(&answer).await.expect("answered");
    }
    produced
}
