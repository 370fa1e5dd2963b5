//! Transactions as clients see them: begun, seen or not seen, ended, taken over.

use proto_kafka::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use proto_kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto_kafka::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use proto_kafka::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    GroupId, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListTransactionsRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};
use proto_kafka::protocol::StrBytes;

use crate::producers::{Stamp, stamped};
use crate::rig::{Client, Rig, TOPIC, fetch_request, only_fetched, topic_name, values};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const OPERATION_NOT_ATTEMPTED: i16 = 55;
const PRODUCER_FENCED: i16 = 90;
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;

const ID: &str = "payments";

fn id(text: &'static str) -> TransactionalId {
    TransactionalId(StrBytes::from_static_str(text))
}

async fn init(client: &mut Client, timeout_ms: i32) -> InitProducerIdResponse {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id(ID)))
        .with_transaction_timeout_ms(timeout_ms);
    client.call(4, &request).await
}

/// A connection that holds the transactional id.
struct Producer {
    client: Client,
    id: i64,
    epoch: i16,
}

impl Producer {
    async fn begin(rig: &Rig) -> Self {
        let mut client = rig.connect().await;
        let answer = init(&mut client, 60_000).await;
        assert_eq!(answer.error_code, 0);
        Self {
            client,
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        }
    }

    /// Adds partitions; answers the error of each.
    async fn add(&mut self, version: i16, partitions: &[i32]) -> Vec<i16> {
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id(ID))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![
                AddPartitionsToTxnTopic::default()
                    .with_name(topic_name(TOPIC))
                    .with_partitions(partitions.to_vec()),
            ]);
        let answer = self.client.call(version, &request).await;
        let results = &answer.results_by_topic_v3_and_below[0].results_by_partition;
        results.iter().map(|r| r.partition_error_code).collect()
    }

    async fn send(&mut self, partition: i32, sequence: i32, value: &str) -> i16 {
        let stamp = Stamp {
            id: self.id,
            epoch: self.epoch,
            sequence,
            transactional: true,
        };
        let answer = self
            .client
            .produce(partition, stamped(stamp, &[value]))
            .await;
        answer.error_code
    }

    async fn end(&mut self, version: i16, commits: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(id(ID))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commits);
        self.client.call(version, &request).await.error_code
    }

    async fn add_group(&mut self, version: i16) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id(ID))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_group_id(GroupId(StrBytes::from_static_str("g")));
        self.client.call(version, &request).await.error_code
    }

    /// Commits an offset of partition 0, as a consumer without a member id.
    async fn commit_offset(&mut self, version: i16, offset: i64) -> i16 {
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id(ID))
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_generation_id(-1)
            .with_topics(vec![
                TxnOffsetCommitRequestTopic::default()
                    .with_name(topic_name(TOPIC))
                    .with_partitions(vec![
                        TxnOffsetCommitRequestPartition::default()
                            .with_committed_offset(offset)
                            .with_committed_metadata(Some(StrBytes::from_static_str("m"))),
                    ]),
            ]);
        let answer = self.client.call(version, &request).await;
        answer.topics[0].partitions[0].error_code
    }
}

/// What a reader of committed records gets from offset 0 on: bytes, last stable offset, and the
/// aborted transactions.
async fn fetch_committed(client: &mut Client, partition: i32) -> (usize, i64, Vec<(i64, i64)>) {
    let request = fetch_request(&[(partition, 0)]).with_isolation_level(1);
    let fetched = only_fetched(client.call(12, &request).await);
    let aborted = fetched.aborted_transactions.unwrap_or_default();
    let aborted = aborted.iter().map(|a| (a.producer_id.0, a.first_offset));
    let bytes = fetched.records.map_or(0, |r| r.len());
    (bytes, fetched.last_stable_offset, aborted.collect())
}

async fn latest(client: &mut Client, isolation: i8) -> i64 {
    let request = ListOffsetsRequest::default()
        .with_isolation_level(isolation)
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(topic_name(TOPIC))
                .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
        ]);
    let answer = client.call(7, &request).await;
    answer.topics[0].partitions[0].offset
}

#[tokio::test]
async fn a_transaction_is_seen_when_it_is_committed_and_named_when_it_is_aborted() {
    let rig = Rig::with_topic(2).await;
    let mut reader = rig.connect().await;
    let mut producer = Producer::begin(&rig).await;
    for (version, sequence) in (0..=3).zip(0..) {
        assert_eq!(producer.add(version, &[0, 1]).await, [0, 0]);
        assert_eq!(producer.send(0, sequence, "a").await, 0);
        assert_eq!(producer.send(1, sequence, "b").await, 0);
        let before = i64::from(2 * sequence);
        let (_, stable, _) = fetch_committed(&mut reader, 0).await;
        assert_eq!(stable, before, "open");
        assert_eq!(latest(&mut reader, 1).await, before);
        assert_eq!(latest(&mut reader, 0).await, before + 1);
        // The last one is aborted.
        assert_eq!(producer.end(version, version < 3).await, 0);
        assert_eq!(producer.end(version, version < 3).await, 0, "asked again");
        assert_eq!(producer.end(version, version == 3).await, INVALID_TXN_STATE);
        assert_eq!(latest(&mut reader, 1).await, before + 2);
    }
    for partition in [0, 1] {
        let (bytes, stable, aborted) = fetch_committed(&mut reader, partition).await;
        assert!(bytes > 0);
        assert_eq!((stable, aborted), (8, vec![(producer.id, 6)]));
    }
    // A reader of everything is told of none.
    let all = reader.fetch(0, 0).await;
    assert_eq!(all.aborted_transactions, None);
    assert_eq!(all.high_watermark, 8);
    assert_eq!(values(&all).first(), Some(&(0, "a".to_owned())));
}

#[tokio::test]
async fn whoever_takes_the_id_shuts_out_its_holder_in_the_words_of_each_version() {
    let rig = Rig::with_topic(1).await;
    let mut old = Producer::begin(&rig).await;
    assert_eq!(old.add(3, &[0]).await, [0]);
    assert_eq!(old.send(0, 0, "old").await, 0);
    let mut new = Producer::begin(&rig).await;
    assert_eq!((new.id, new.epoch), (old.id, old.epoch + 1));
    assert_eq!(old.send(0, 1, "zombie").await, INVALID_PRODUCER_EPOCH);
    for version in 0..=3 {
        let word = if version < 2 {
            INVALID_PRODUCER_EPOCH
        } else {
            PRODUCER_FENCED
        };
        assert_eq!(old.add(version, &[0]).await, [word]);
        assert_eq!(old.end(version, true).await, word);
        assert_eq!(old.add_group(version).await, word);
    }
    for (version, word) in [(3, INVALID_PRODUCER_EPOCH), (4, PRODUCER_FENCED)] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id(ID)))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(old.id))
            .with_producer_epoch(old.epoch);
        assert_eq!(old.client.call(version, &request).await.error_code, word);
    }
    assert_eq!(new.add(3, &[0]).await, [0]);
    assert_eq!(new.send(0, 0, "new").await, 0);
    assert_eq!(new.end(3, true).await, 0);
}

#[tokio::test]
async fn offsets_are_a_groups_from_the_commit_on() {
    let rig = Rig::with_topic(1).await;
    let mut producer = Producer::begin(&rig).await;
    let held = || rig.broker.log().committed("g", TOPIC, 0);
    assert_eq!(producer.commit_offset(3, 1).await, INVALID_TXN_STATE);
    for version in 0..=3 {
        let offset = i64::from(version) + 5;
        let before = held();
        assert_eq!(producer.add_group(version).await, 0);
        assert_eq!(producer.commit_offset(version, offset).await, 0);
        assert_eq!(held(), before);
        assert_eq!(producer.end(version, true).await, 0);
        let committed = held().expect("committed");
        assert_eq!((committed.next_offset, &*committed.metadata), (offset, "m"));
    }
    assert_eq!(producer.add_group(3).await, 0);
    assert_eq!(producer.commit_offset(3, 99).await, 0);
    assert_eq!(producer.end(3, false).await, 0);
    assert_eq!(held().expect("as before").next_offset, 8);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_error_that_says_so() {
    let rig = Rig::with_topic(1).await;
    let mut producer = Producer::begin(&rig).await;
    assert_eq!(
        producer.end(3, true).await,
        INVALID_TXN_STATE,
        "nothing is open"
    );
    assert_eq!(producer.send(0, 0, "outside").await, INVALID_TXN_STATE);
    let mixed = producer.add(3, &[0, 7]).await;
    assert_eq!(mixed, [OPERATION_NOT_ATTEMPTED, UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(
        producer.end(3, true).await,
        INVALID_TXN_STATE,
        "none was added"
    );
    for timeout_ms in [0, -1, i32::MAX] {
        let refused = init(&mut producer.client, timeout_ms).await;
        assert_eq!(refused.error_code, INVALID_TRANSACTION_TIMEOUT);
        assert_eq!(refused.producer_id.0, -1);
    }
    producer.id += 1;
    assert_eq!(producer.add(3, &[0]).await, [INVALID_PRODUCER_ID_MAPPING]);
    assert_eq!(producer.end(3, true).await, INVALID_PRODUCER_ID_MAPPING);
}

#[tokio::test]
async fn transactions_are_listed_and_described() {
    let rig = Rig::with_topic(2).await;
    let mut producer = Producer::begin(&rig).await;
    let mut admin = rig.connect().await;
    let describe = DescribeTransactionsRequest::default().with_transactional_ids(vec![
        id(ID),
        id("nobody"),
        id(ID),
    ]);
    assert_eq!(producer.add(3, &[1]).await, [0]);
    let answer = admin.call(0, &describe).await;
    assert_eq!(answer.transaction_states.len(), 2, "each once");
    assert_eq!(
        answer.transaction_states[0].error_code,
        TRANSACTIONAL_ID_NOT_FOUND
    );
    let open = &answer.transaction_states[1];
    assert_eq!((open.error_code, &*open.transaction_state), (0, "Ongoing"));
    assert_eq!(
        (open.producer_id.0, open.producer_epoch),
        (producer.id, producer.epoch)
    );
    assert_eq!(open.transaction_timeout_ms, 60_000);
    assert!(open.transaction_start_time_ms > 0);
    assert_eq!(open.topics[0].partitions, [1]);

    let filter = |states: &[&'static str], producers: &[i64], longer| {
        let states = states.iter().map(|s| StrBytes::from_static_str(s));
        ListTransactionsRequest::default()
            .with_state_filters(states.collect())
            .with_producer_id_filters(producers.iter().map(|&p| ProducerId(p)).collect())
            .with_duration_filter(longer)
    };
    let cases = [
        (filter(&[], &[], -1), 1),
        (filter(&["Ongoing", "PrepareAbort"], &[producer.id], -1), 1),
        (filter(&["CompleteCommit"], &[], -1), 0),
        (filter(&[], &[producer.id + 1], -1), 0),
        (filter(&[], &[], 1_000_000), 0),
    ];
    for (n, (request, count)) in cases.iter().enumerate() {
        let answer = admin.call(1, request).await;
        assert_eq!(answer.transaction_states.len(), *count, "case {n}");
        assert!(answer.unknown_state_filters.is_empty());
    }
    let odd = admin.call(0, &filter(&["Nonsense"], &[], -1)).await;
    assert_eq!(&*odd.unknown_state_filters[0], "Nonsense");
    assert_eq!(producer.end(3, false).await, 0);
    let answer = admin.call(0, &describe).await;
    assert_eq!(
        &*answer.transaction_states[1].transaction_state,
        "CompleteAbort"
    );
    assert_eq!(answer.transaction_states[1].transaction_start_time_ms, -1);
}
